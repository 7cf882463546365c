"""Which component of a network an operator belongs to.

The tag is put on each traced operator before it is decomposed, so that the many small nodes
which a softmax backward becomes still say ``softmax``. An operator whose name tells nothing (the
Mul of an RMSNorm written out) takes the component of the module it runs in, and in the backward
pass that of the forward operator it differentiates. Components are those of the compiler's
``--set`` option: matmul, softmax, norm, activation, loss, optimizer, other.
"""

from __future__ import annotations

import contextlib

import torch
from torch.fx import traceback

COMPONENT = "pam.component"
_MODULE = "pam.module"
_SEQUENCE = "pam.sequence"

MATMUL = {"mm", "addmm", "bmm", "baddbmm", "matmul", "convolution", "addmv", "mv", "dot"}
SOFTMAX = {"_softmax", "_log_softmax", "_safe_softmax", "logsumexp"}
NORM = {
    "native_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_functional",
    "native_layer_norm",
    "native_group_norm",
    "_fused_rms_norm",
    "linalg_vector_norm",
}
ACTIVATION = {
    "relu", "gelu", "silu", "tanh", "sigmoid", "elu", "leaky_relu", "hardtanh", "hardswish",
    "hardsigmoid", "softplus", "mish", "threshold", "log_sigmoid_forward",
    "log_sigmoid", "prelu", "_prelu_kernel", "glu", "celu", "selu", "hardshrink", "softshrink",
}  # fmt: skip
LOSS = {
    "nll_loss_forward", "nll_loss2d_forward", "nll_loss", "nll_loss2d", "mse_loss",
    "binary_cross_entropy", "smooth_l1_loss", "huber_loss",
}  # fmt: skip

_TABLE = (
    (MATMUL, "matmul"),
    (SOFTMAX, "softmax"),
    (NORM, "norm"),
    (ACTIVATION, "activation"),
    (LOSS, "loss"),
)

_ONNX_MATMUL = {"MatMul", "Gemm", "Conv", "ConvTranspose"}
_ONNX = {
    **dict.fromkeys(_ONNX_MATMUL, "matmul"),
    "Softmax": "softmax",
    "LogSoftmax": "softmax",
    "LayerNormalization": "norm",
    "BatchNormalization": "norm",
    "Relu": "activation",
    "Gelu": "activation",
}


def of_module(module: torch.nn.Module) -> str:
    """Component of what a module's own operators do; ``other`` for containers and the like."""
    kind = type(module)
    if "Softmax" in kind.__name__ or "Softmin" in kind.__name__:
        return "softmax"
    if "Norm" in kind.__name__ and not any(module.children()):
        return "norm"
    if kind.__module__ == "torch.nn.modules.activation" and "Attention" not in kind.__name__:
        return "activation"
    return "other"


@contextlib.contextmanager
def module_scopes(model: torch.nn.Module):
    """While active, operators recorded inside a module with a component of its own say so."""
    open_scopes, handles = [], []

    def enter(component):
        def hook(module, arguments):
            open_scopes.append(traceback.annotate({_MODULE: component}))
            open_scopes[-1].__enter__()

        return hook

    def leave(module, arguments, result):
        open_scopes.pop().__exit__(None, None, None)

    for module in model.modules():
        component = of_module(module)
        if component != "other":
            handles.append(module.register_forward_pre_hook(enter(component)))
            handles.append(module.register_forward_hook(leave))
    with traceback.preserve_node_meta():
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            while open_scopes:
                open_scopes.pop().__exit__(None, None, None)


def number_backward(loss: torch.Tensor) -> None:
    """Makes backward operators carry the sequence number of the operator they differentiate."""
    stack, seen = [loss.grad_fn], set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        stack.extend(parent for parent, _ in node.next_functions)
        scope = []

        def before(gradients, node=node, scope=scope):
            scope.append(traceback.annotate({_SEQUENCE: node._sequence_nr()}))
            scope[-1].__enter__()

        def after(inputs, outputs, scope=scope):
            scope.pop().__exit__(None, None, None)

        node.register_prehook(before)
        node.register_hook(after)


def tag(graph: torch.fx.GraphModule) -> None:
    """Replaces the recorded scopes by one component for each operator."""
    by_sequence: dict[int, str] = {}
    for node in graph.graph.nodes:
        if node.op != "call_function":
            continue
        scopes = node.meta.get("custom", {})
        sequence = scopes.get(_SEQUENCE)
        component = of_operator(node.target)
        if component == "other":
            component = scopes.get(_MODULE, "other")
        if sequence is None:
            if component != "other":
                by_sequence[node.meta.get("seq_nr", -1)] = component
        elif component == "other":
            component = by_sequence.get(sequence, "other")
        node.meta["custom"] = {COMPONENT: component}


def of_operator(target) -> str:
    """Component of an ATen operator, forward or backward; ``other`` where its name tells nothing."""
    if not isinstance(target, torch._ops.OpOverload):
        return "other"
    name = target._schema.name.rpartition("::")[2].removesuffix("_")
    for suffix in ("_backward_data", "_backward"):
        name = name.removesuffix(suffix)
    for names, component in _TABLE:
        if name in names:
            return component
    return "other"


def of_onnx(op_type: str) -> str:
    """Component of an ONNX operator that no traced operator is known for."""
    return _ONNX.get(op_type, "other")
