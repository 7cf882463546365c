"""Which component of a network an operator belongs to.

The tag is put on each traced operator before it is decomposed, so that the many small nodes
which a softmax backward becomes still say ``softmax``. Components are those of the compiler's
``--set`` option: matmul, softmax, norm, activation, loss, optimizer, other.
"""

from __future__ import annotations

import torch

MATMUL = {"mm", "addmm", "bmm", "baddbmm", "matmul", "convolution", "convolution_backward", "addmv", "mv", "dot"}
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
    "hardsigmoid", "softplus", "mish", "threshold", "log_sigmoid", "prelu", "_prelu_kernel",
}  # fmt: skip
LOSS = {"nll_loss_forward", "nll_loss2d_forward", "mse_loss", "binary_cross_entropy", "smooth_l1_loss"}

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
