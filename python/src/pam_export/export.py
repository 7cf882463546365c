"""``export_train_step`` and ``export_forward``."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxscript.optimizer
import torch
from onnx_ir.passes import common
from torch import Tensor

from . import components, tidy, trace
from .errors import ExportError
from .optimizers import read_optimizer
from .verify import Reference, verify_step

OPSETS = range(18, 24)


@dataclass(frozen=True)
class ExportedStep:
    """What was written.

    ``bindings`` maps each new-value output to its state input, ``gradients`` each parameter to
    the tensor that holds its gradient inside the graph. ``expected`` are PyTorch's own values of
    all outputs for the example batch; ``noise`` maps the outputs that are mostly rounding error
    to the relative error PyTorch itself makes there (float32 against float64).
    """

    path: Path
    inputs: dict[str, np.ndarray]
    expected: dict[str, np.ndarray]
    bindings: dict[str, str]
    gradients: dict[str, str]
    noise: dict[str, float]


def _named_batch(part, default: str) -> dict[str, Tensor]:
    if isinstance(part, Tensor):
        part = {default: part}
    elif isinstance(part, (tuple, list)):
        part = {f"{default}{i}": v for i, v in enumerate(part)} if len(part) != 1 else {default: part[0]}
    if not isinstance(part, dict) or not all(isinstance(v, Tensor) for v in part.values()):
        raise ExportError("a batch part must be a tensor, or a tuple or dict of tensors")
    return dict(part)


def _check_opset(opset: int) -> None:
    if opset not in OPSETS:
        raise ExportError(f"opset {opset} is not supported: choose {OPSETS[0]} to {OPSETS[-1]}")


def _fold(model) -> None:
    """Inlines functions, folds constants and shares what is equal.

    ``torch.onnx.export(optimize=True)`` would also match patterns, and takes 1e-8, the usual eps of Adam,
    for the zero of ``x + 0``.
    """
    common.InlinePass()(model)
    onnxscript.optimizer.fold_constants(model)
    for step in (
        common.RemoveUnusedNodesPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.OutputFixPass(),
        common.NameFixPass(),
    ):
        step(model)


def _cause(error: BaseException) -> str:
    """Which operator torch.onnx stopped at, as far as the error says."""
    text = trace.first_line(error)
    name = re.search(r"No ONNX function found for <OpOverload\(op='([^']+)'", text)
    return f"{name[1]} has no translation" if name else text


def _to_onnx(program, opset: int):
    """Runs torch.onnx quietly; returns the proto and each node's traced component."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = torch.onnx.export(
                program, dynamo=True, verbose=False, optimize=False, opset_version=opset
            )
            _fold(result.model)
    except Exception as error:
        cause = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise ExportError(
            f"torch.onnx cannot translate the step at opset {opset}: {_cause(cause)}. Write it in other operators, or "
            "add a row to pam_export/decompositions.py"
        ) from error
    custom = {
        node.name: node.meta.get("custom", {}).get(components.COMPONENT)
        for node in result.exported_program.graph.nodes
    }
    model = result.model_proto
    known = {}
    for node in model.graph.node:
        for entry in node.metadata_props:
            if entry.key == "pkg.torch.onnx.fx_node":
                fx_name = entry.value.split(":", 1)[0].strip().lstrip("%")
                if custom.get(fx_name):
                    known[node.name] = custom[fx_name]
    return model, known


def export_train_step(
    model: torch.nn.Module,
    loss_fn,
    optimizer: torch.optim.Optimizer,
    example_batch: tuple,
    path: str | os.PathLike,
    *,
    opset: int = 20,
    lr_input: bool = True,
    output_names: list[str] | None = None,
    verify: bool = True,
    verify_steps: int = 2,
) -> ExportedStep:
    """Writes forward, backward and optimizer of one training step to ``path``.

    ``example_batch`` is ``(inputs, targets)``; each is a tensor (named ``x``, ``y``), a tuple
    (``x0``, ``x1``, …) or a dict whose keys become the graph's input names. Inputs are passed to
    ``model`` in order, and the loss is ``loss_fn(model(*inputs), *targets)``, a scalar. The
    model is exported in the mode it is in; shapes are those of the example.

    Graph inputs are the batch, ``lr`` (unless ``lr_input`` is false), then parameters, buffers
    and optimizer state under their dotted names with the present values as defaults. Outputs are
    ``loss``, the model's outputs (``logits`` for a single one, or ``output_names``), then
    ``new.<name>`` for every state input. Frozen parameters become constants. The model and the
    optimizer are left as they were.

    With ``verify``, the graph is run by onnxruntime for ``verify_steps`` chained steps and
    compared with the same steps of eager PyTorch under the real optimizer before it is written.

    Raises ExportError if something cannot be exported, VerificationError if the results differ.
    """
    _check_opset(opset)
    if not isinstance(example_batch, (tuple, list)) or len(example_batch) != 2:
        raise ExportError("example_batch must be the pair (inputs, targets)")
    inputs, targets = _named_batch(example_batch[0], "x"), _named_batch(example_batch[1], "y")
    trained = {k: p for k, p in model.named_parameters() if p.requires_grad}
    frozen = {k: p.detach().clone() for k, p in model.named_parameters() if not p.requires_grad}
    for name, value in trained.items():
        if value.dtype != torch.float32:
            raise ExportError(f"parameter {name} is {value.dtype}: only float32 is supported")
    persistent = dict(model.named_buffers())
    stateful = _changing_buffers(model, inputs, persistent)
    frozen |= {k: v.detach().clone() for k, v in persistent.items() if k not in stateful}
    rule = read_optimizer(optimizer, trained)
    signature = trace.StepSignature(
        list(inputs), list(targets), lr_input, list(trained), stateful, list(rule.state)
    )
    _check_names(signature)

    parameters = {k: p.detach().clone() for k, p in trained.items()}
    buffers = {k: persistent[k].detach().clone() for k in stateful}
    lr = torch.tensor(rule.lr) if lr_input else None
    state = [list(part.values()) for part in (parameters, buffers, rule.state)]
    arguments = (list(inputs.values()), list(targets.values()), lr, *state)
    twin = trace.copy_model(model)
    step = trace.build_step(twin, loss_fn, rule, signature, output_names, frozen)
    program = trace.trace(twin, step, arguments)
    proto, known = _to_onnx(program, opset)
    defaults = {**parameters, **buffers, **rule.state}
    defaults = {k: v.numpy() for k, v in defaults.items()}
    if lr_input:
        defaults = {"lr": lr.numpy(), **defaults}
    bindings, gradients = _finish(proto, known, signature, defaults)

    batch = {k: v.numpy() for k, v in {**inputs, **targets}.items()}
    reference = Reference(model, loss_fn, optimizer, inputs, targets, signature)
    if verify:
        verify_step(proto, reference, batch, defaults, bindings, verify_steps)
    path = tidy.save(proto, path)
    expected, noise = reference.first_step()
    return ExportedStep(path, batch, expected, bindings, gradients, noise)


def _changing_buffers(model, inputs, buffers) -> list[str]:
    """Buffers that a forward pass changes; the others are constants (masks, tables)."""
    trial = trace.copy_model(model)
    before = dict(trial.named_buffers())
    versions = {k: v._version for k, v in before.items()}
    # A model may compute derivatives itself, so that gradients stay enabled.
    trial(*inputs.values())
    after = dict(trial.named_buffers())
    # Values are not enough: what converges (spectral norm's vectors) may be written and stay the same.
    written = {k for k, v in before.items() if v._version != versions[k]}
    kinds = (torch.nn.modules.batchnorm._NormBase,)
    owned = {
        f"{name}.{key}" if name else key
        for name, module in model.named_modules()
        if isinstance(module, kinds) and module.training
        for key, _ in module.named_buffers(recurse=False)
    }
    return [k for k, v in buffers.items() if k in owned | written or not torch.equal(v, after[k])]


def _check_names(signature: trace.StepSignature) -> None:
    names = signature.graph_inputs()
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice or "loss" in names:
        raise ExportError(
            f"the input names {', '.join(twice) or 'loss'} are taken twice, by the batch, lr, loss, parameters or "
            "the optimizer's state: name the batch tensors differently by passing dicts, or rename the parameter"
        )


def _finish(proto, known, signature, defaults) -> tuple[dict, dict]:
    """Names, roles, defaults and metadata; returns bindings and gradients."""
    graph = proto.graph
    state = signature.state_inputs()
    wanted = signature.graph_inputs()
    if len(graph.input) != len(wanted):
        raise ExportError(f"the exporter kept {len(graph.input)} of {len(wanted)} inputs")
    tidy.strip(proto)
    tidy.give_outputs_their_own_value(proto)
    outputs = ["loss", *signature.outputs, *(f"new.{n}" for n in state)]
    hidden = [f"grad.{n}" for n in [*signature.parameters, *signature.output_gradients]]
    produced = [o.name for o in graph.output]
    if len(produced) != len(outputs) + len(hidden):
        raise ExportError(f"the exporter kept {len(produced)} of {len(outputs) + len(hidden)} outputs")
    names = dict(zip((i.name for i in graph.input), wanted)) | dict(zip(produced, outputs + hidden))
    tidy.rename_values(proto, names)
    del graph.output[len(outputs) :]
    gradients = {n: f"grad.{n}" for n in signature.parameters}
    tidy.tag_nodes(
        proto,
        known,
        loss="loss",
        outputs=signature.outputs,
        buffers=[f"new.{n}" for n in signature.buffers],
        gradients=list(gradients.values()),
        output_gradients=[f"grad.{n}" for n in signature.output_gradients],
    )
    tidy.drop_unused_initializers(proto)
    tidy.set_defaults(proto, defaults)
    bindings = {f"new.{n}": n for n in state}
    tidy.step_metadata(proto, bindings, gradients, "loss")
    tidy.sort_topologically(proto)
    return bindings, gradients


def export_forward(
    model: torch.nn.Module,
    example_inputs,
    path: str | os.PathLike,
    *,
    opset: int = 20,
    output_names: list[str] | None = None,
) -> Path:
    """Writes the inference graph of ``model`` (put in eval mode meanwhile) to ``path``.

    Weights are initializers under their dotted names; inputs are named as in
    ``export_train_step``, the output ``logits``.
    """
    _check_opset(opset)
    inputs = _named_batch(example_inputs, "x")
    was_training = model.training
    try:
        model.eval()
        program = torch.export.export(model, tuple(inputs.values()))
    finally:
        model.train(was_training)
    proto, known = _to_onnx(program, opset)
    tidy.strip(proto)
    names = output_names or (
        ["logits"]
        if len(proto.graph.output) == 1
        else [f"output_{i}" for i in range(len(proto.graph.output))]
    )
    tidy.rename_values(
        proto,
        dict(zip((i.name for i in proto.graph.input), inputs))
        | dict(zip((o.name for o in proto.graph.output), names)),
    )
    tidy.tag_nodes(
        proto, known, loss="", outputs=names, buffers=[], gradients=[], output_gradients=[]
    )
    return tidy.save(proto, path)
