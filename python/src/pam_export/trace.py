"""Makes one flat graph of forward, backward and optimizer.

The step is a pure function; ``make_fx`` runs it once and records every operator, those of
autograd included. Gradients are outputs of the recorded graph too: that is how the ONNX side
later tells backward from optimizer. They are not outputs of the written model.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.fx import traceback as fx_traceback
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

from . import components
from .decompositions import EARLY, decomposition_table
from .errors import ExportError
from .optimizers import OptimizerRule
from .plain import plain_kernels

_RANDOM = re.compile(r"dropout|bernoulli|rand|normal_|uniform_|multinomial|exponential")


@dataclass
class StepSignature:
    """Names of the step's inputs and outputs, in the order in which the graph has them."""

    inputs: list[str]
    targets: list[str]
    lr: bool
    parameters: list[str]
    buffers: list[str]
    state: list[str]
    outputs: list[str] = field(default_factory=list)
    output_gradients: list[str] = field(default_factory=list)

    def graph_inputs(self) -> list[str]:
        """All inputs, in order."""
        lr = ["lr"] if self.lr else []
        return [*self.inputs, *self.targets, *lr, *self.parameters, *self.buffers, *self.state]

    def state_inputs(self) -> list[str]:
        """The inputs whose new value is an output."""
        return [*self.parameters, *self.buffers, *self.state]


def _named_outputs(value, names: list[str] | None) -> dict[str, Tensor]:
    if isinstance(value, Tensor):
        found = {"logits": value}
    elif isinstance(value, dict):
        found = {k: v for k, v in value.items() if isinstance(v, Tensor)}
    elif isinstance(value, (tuple, list)) and all(isinstance(v, Tensor) for v in value):
        found = {f"output_{i}": v for i, v in enumerate(value)}
    else:
        raise ExportError(
            f"the model returns {type(value).__name__}: a tensor, or a tuple or dict of tensors, "
            "is needed"
        )
    if names is not None:
        if len(names) != len(found):
            raise ExportError(f"{len(names)} output names for {len(found)} model outputs")
        found = dict(zip(names, found.values()))
    return found


def copy_model(model: torch.nn.Module) -> torch.nn.Module:
    """An independent copy; a tensor that a hook computed (spectral norm's weight) is copied as a value."""
    kept = [v for module in model.modules() for v in vars(module).values() if isinstance(v, Tensor)]
    return copy.deepcopy(model, {id(v): v.detach().clone() for v in kept if not v.is_leaf})


def build_step(model, loss_fn, rule: OptimizerRule, signature: StepSignature, output_names, frozen):
    """The pure function (batch, [lr], parameters, buffers, state) -> flat list of tensors.

    All are lists in the order of the signature: names would become part of generated code, where
    not every name is possible.

    Its result is: loss, model outputs, new parameters, new buffers, new state, then the
    gradients of parameters and of the model outputs, which tell roles apart.
    """

    def step(inputs, targets, lr, parameters, buffers, state):
        parameters = dict(zip(signature.parameters, parameters))
        buffers = dict(zip(signature.buffers, buffers))
        state = dict(zip(signature.state, state))
        leaves = {k: v.detach().requires_grad_() for k, v in parameters.items()}
        # BatchNorm updates its statistics in place; the clone becomes the new value.
        changed = {k: v.clone() for k, v in buffers.items()}
        result = functional_call(model, {**leaves, **changed, **frozen}, tuple(inputs))
        loss = loss_fn(result, *targets)
        if not isinstance(loss, Tensor) or loss.numel() != 1 or loss.dim() != 0:
            shape = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise ExportError(f"the loss must be a scalar tensor of rank 0, not {shape}")
        outputs = _named_outputs(result, output_names)
        signature.outputs = list(outputs)
        components.number_backward(loss)
        differentiable = {k: v for k, v in outputs.items() if v.requires_grad}
        gradients = torch.autograd.grad(
            loss, [*leaves.values(), *differentiable.values()], allow_unused=True
        )
        own = dict(zip(leaves, gradients))
        lost = [k for k, g in own.items() if g is None]
        if lost:
            raise ExportError(
                f"no path from the loss to {', '.join(lost)}: use them in the model or set "
                "requires_grad=False on them"
            )
        of_outputs = dict(zip(differentiable, gradients[len(leaves) :]))
        of_outputs = {k: g for k, g in of_outputs.items() if g is not None}
        signature.output_gradients = list(of_outputs)
        rate = torch.tensor(rule.lr) if lr is None else lr
        with torch.no_grad():
            new_parameters, new_state = rule.update(
                {k: v.detach() for k, v in parameters.items()}, own, state, rate
            )
        return [
            loss.detach(),
            *(v.detach() for v in outputs.values()),
            *new_parameters.values(),
            *changed.values(),
            *new_state.values(),
            *own.values(),
            *of_outputs.values(),
        ]

    return step


def trace(model, step, arguments: tuple) -> torch.export.ExportedProgram:
    """Records ``step`` and decomposes it down to operators that torch.onnx translates."""
    with plain_kernels(), components.module_scopes(model):
        try:
            graph = make_fx(step, tracing_mode="fake", _allow_non_fake_inputs=True)(*arguments)
        except ExportError:
            raise
        except Exception as error:
            raise ExportError(
                f"the step cannot be recorded as a graph: {first_line(error)} (data-dependent Python control "
                "flow and .item() have no place in a graph)"
            ) from error
    refuse_randomness(graph)
    _reshape_views(graph)
    components.tag(graph)
    if any(node.target in EARLY for node in graph.graph.nodes):
        # Retracing under preserve_node_meta carries the tags over.
        with fx_traceback.preserve_node_meta():
            graph = make_fx(
                torch.fx.Interpreter(graph).run,
                decomposition_table=EARLY,
                tracing_mode="fake",
                _allow_non_fake_inputs=True,
            )(*arguments)
        # It makes views of reshapes again.
        _reshape_views(graph)
    program = torch.export.export(graph, arguments)
    try:
        return program.run_decompositions(decomposition_table())
    except Exception as error:
        raise reason(error) from error


def _reshape_views(graph: torch.fx.GraphModule) -> None:
    """A view depends on strides, which decomposed operators do not keep; a reshape does not."""
    aten = torch.ops.aten
    for node in graph.graph.nodes:
        if node.target in (aten.view.default, aten._unsafe_view.default):
            node.target = aten.reshape.default
    graph.recompile()


def reason(error: BaseException) -> ExportError:
    """The ExportError behind what torch's tracers raise, or one that quotes the first cause."""
    cause = error
    while cause.__cause__ is not None and not isinstance(cause, ExportError):
        cause = cause.__cause__
    if isinstance(cause, ExportError):
        # The tracer appends what it was doing.
        return ExportError(first_line(cause))
    return ExportError(
        f"the step cannot be decomposed: {first_line(cause)} (write the operation in other operators)"
    )


def first_line(error: BaseException) -> str:
    """What an error says first; torch's go on with advice about its own debugging."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def refuse_randomness(graph: torch.fx.GraphModule) -> None:
    """Raises ExportError for operators that draw random numbers: a step is a pure function."""
    for node in graph.graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload):
            name = node.target._schema.name
            tags = node.target.tags
            if torch.Tag.nondeterministic_seeded in tags or _RANDOM.search(name):
                raise ExportError(
                    f"{name} draws random numbers and a step is a pure function of its inputs: "
                    "set the dropout probability to 0, or make what is drawn an input of the model"
                )
