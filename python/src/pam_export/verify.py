"""Compares a written step with eager PyTorch.

The measure is float64: PyTorch's own float32 step errs by some amount against its float64 step, and
the exported step may err by ten times that, or by a small part of the tensor's largest magnitude
where that is more. So a tensor that is nothing but rounding noise (the gradient of a bias in front
of a BatchNorm) does not need to be listed by hand.

An optimizer may blow such noise up: Adam divides it by its own magnitude, so that the sign of noise
decides about a whole step. Therefore the two halves of a step are compared apart: gradients with
PyTorch's gradients, and what becomes of parameters and optimizer state with what the real optimizer
makes of the file's own gradients. For the same reason each step starts from the state that the file
itself has reached.
"""

from __future__ import annotations

import copy

import numpy as np
import onnx
import onnxruntime
import torch

from .errors import VerificationError
from .optimizers import STEP
from .trace import StepSignature, _named_outputs, copy_model, first_line

RELATIVE = 1e-4
"""Allowed error of forward values and gradients, as a part of the tensor's largest magnitude."""
CHANGE = 1e-3
"""Allowed error of what the optimizer changes, as a part of the largest change."""
ROUNDING = 1e-6
"""Allowed error of the same by rounding, as a part of the tensor's largest magnitude."""
ZERO = 1e-12
"""A tensor that is smaller than this beside its kind, in float64, is zero but for rounding."""
NOISE = 1e-5
SHAKEN = 1e-6
"""What parameters and inputs are off by in the steps that show what rounding decides, as a part of themselves."""
SHAKEN_STEPS = 4


class Twin:
    """A copy of model and optimizer in eager PyTorch and one precision."""

    def __init__(self, reference: Reference, dtype: torch.dtype):
        self.signature = reference.signature
        self.model, self.optimizer = _copy_pair(reference.model, reference.optimizer, dtype)
        self.inputs = [_cast(v, dtype) for v in reference.inputs.values()]
        self.targets = [_cast(v, dtype) for v in reference.targets.values()]
        self.loss_fn = reference.loss_fn
        if isinstance(self.loss_fn, torch.nn.Module):
            self.loss_fn = _converted(copy.deepcopy(self.loss_fn), dtype)
        self.count = read_step(self.optimizer)

    def differentiate(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Loss, outputs and new buffers; and the gradients; both under the graph's names."""
        self.optimizer.zero_grad()
        result = self.model(*self.inputs)
        loss = self.loss_fn(result, *self.targets)
        values = [loss, *_named_outputs(result, None).values()]
        loss.backward()
        forward = dict(zip(["loss", *self.signature.outputs], values))
        forward |= {f"new.{n}": self._tensor(n) for n in self.signature.buffers}
        gradients = {}
        for name in self.signature.parameters:
            parameter = self._tensor(name)
            # None stands for zeros where it depends on the batch which parameters are used.
            gradient = parameter.grad
            gradients[f"grad.{name}"] = torch.zeros_like(parameter) if gradient is None else gradient
        return _arrays(forward), _arrays(gradients)

    def update(self, gradients: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The parameters and the optimizer's state after a step along these gradients."""
        for name in self.signature.parameters:
            parameter = self._tensor(name)
            gradient = torch.from_numpy(np.array(gradients[f"grad.{name}"]))
            parameter.grad = gradient.to(parameter.dtype)
        self.optimizer.step()
        self.count += 1
        names = [*self.signature.parameters, *self.signature.state]
        return _arrays({f"new.{n}": self._tensor(n) for n in names})

    def take(self, state: dict[str, np.ndarray]) -> None:
        """Goes on from ``state``, which has the names of the graph's inputs."""
        with torch.no_grad():
            for name, value in state.items():
                if name != STEP:
                    self._tensor(name).copy_(torch.from_numpy(np.array(value)))

    def shake(self, generator: torch.Generator) -> None:
        """Moves parameters and inputs a little."""
        inputs = [v for v in self.inputs if v.is_floating_point()]
        with torch.no_grad():
            for value in [*self.model.parameters(), *inputs]:
                noise = torch.rand(value.shape, generator=generator, dtype=torch.float64)
                value.mul_((1 + SHAKEN * (2 * noise - 1)).to(value.dtype))

    def _tensor(self, name: str) -> torch.Tensor:
        """The tensor behind a state input."""
        tensors = dict(self.model.named_parameters()) | dict(self.model.named_buffers())
        if name in tensors:
            return tensors[name]
        if name == STEP:
            return torch.tensor(float(self.count))
        parameter, _, key = name.rpartition(".")
        return self.optimizer.state[tensors[parameter]][key]


class Reference:
    """The same step in eager PyTorch, under the real optimizer."""

    def __init__(self, model, loss_fn, optimizer, inputs, targets, signature: StepSignature):
        self.signature = signature
        self.loss_fn = loss_fn
        self.inputs, self.targets = inputs, targets
        self.model, self.optimizer = model, optimizer

    def twins(self) -> tuple[Twin, Twin]:
        """A float32 and a float64 twin; two of float32 where the model insists on float32."""
        try:
            Twin(self, torch.float64).differentiate()
        except RuntimeError:
            return Twin(self, torch.float32), Twin(self, torch.float32)
        return Twin(self, torch.float32), Twin(self, torch.float64)

    def shaken(self, state) -> list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
        """What float32 twins that start from about this state find."""
        found = []
        for seed in range(SHAKEN_STEPS):
            twin = Twin(self, torch.float32)
            twin.inputs = [v.clone() for v in twin.inputs]
            twin.take(state)
            twin.shake(torch.Generator().manual_seed(seed))
            found.append(twin.differentiate())
        return found

    def first_step(self) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """PyTorch's float32 values, and the outputs whose relative error is above ``NOISE``."""
        single, double = (_whole_step(twin) for twin in self.twins())
        names = ["loss", *self.signature.outputs]
        names += [f"new.{n}" for n in self.signature.state_inputs()]
        errors = {n: relative_error(single[n], double[n]) for n in names}
        return {n: single[n] for n in names}, {n: e for n, e in errors.items() if e > NOISE}


def _whole_step(twin: Twin) -> dict[str, np.ndarray]:
    forward, gradients = twin.differentiate()
    return forward | twin.update(gradients)


def _arrays(tensors: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Copies, since the next step changes the tensors in place."""
    # NumPy has no bfloat16.
    wide = {k: v.float() if v.dtype is torch.bfloat16 else v for k, v in tensors.items()}
    return {k: v.detach().to_dense().clone().numpy() for k, v in wide.items()}


def _cast(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if value.is_complex():
        return value.to(dtype.to_complex())
    return value.to(dtype) if value.is_floating_point() else value


def _converted(module: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """As ``Module.to``, which would drop the imaginary parts of complex buffers."""
    return module._apply(lambda tensor: _cast(tensor, dtype))


def _copy_pair(model, optimizer, dtype):
    """Independent copies of both; the optimizer's copy trains the model's copy."""
    twin = _converted(copy_model(model), dtype)
    groups = []
    place = dict(zip(map(id, model.parameters()), twin.parameters()))
    for group in optimizer.param_groups:
        groups.append({**group, "params": [place[id(p)] for p in group["params"]]})
    # An explicit choice of the plain loop: fused and foreach variants add in other orders.
    twin_optimizer = type(optimizer)(groups, lr=groups[0]["lr"])
    twin_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for group in twin_optimizer.param_groups:
        group["foreach"], group["fused"] = False, None
    return twin, twin_optimizer


def read_step(optimizer) -> float:
    """How many steps ``optimizer`` has taken, as far as its state tells."""
    for state in optimizer.state.values():
        if "step" in state:
            return float(state["step"])
        if any(v is not None for v in state.values()):
            return 1.0
    return 0.0


def gap(value: np.ndarray, true: np.ndarray) -> float:
    """Largest absolute difference; infinite if they differ in what is not finite."""
    value, true = np.asarray(value, np.float64), np.asarray(true, np.float64)
    finite = np.isfinite(true)
    if not np.array_equal(value[~finite], true[~finite], equal_nan=True):
        return float("inf")
    gaps = np.abs(value[finite] - true[finite])
    return float("inf") if np.isnan(gaps).any() else float(gaps.max(initial=0.0))


def magnitude(value: np.ndarray) -> float:
    """Largest absolute value of what is finite."""
    value = np.asarray(value, np.float64)
    return float(np.abs(value[np.isfinite(value)]).max(initial=0.0))


def _ratio(error: float, size: float) -> float:
    return error / size if size > 0 else (0.0 if error == 0 else float("inf"))


def relative_error(value: np.ndarray, true: np.ndarray) -> float:
    """Largest absolute difference over the largest magnitude (0 for equal values)."""
    return _ratio(gap(value, true), magnitude(true))


def _problem(found, natives, true, tolerance: float) -> str | None:
    """What is wrong with an output, if it errs by more than ``tolerance`` and ten times what PyTorch does."""
    native = natives[0]
    if found.shape != native.shape or found.dtype != native.dtype:
        return (
            f"{found.dtype}{list(found.shape)}, PyTorch has {native.dtype}{list(native.shape)}"
        )
    error, allowed = gap(found, true), max(tolerance, *(10 * gap(n, true) for n in natives))
    if error <= allowed:
        return None
    size = magnitude(true)
    return f"relative error {_ratio(error, size):.2e}, allowed {_ratio(allowed, size):.2e}"


def _compare_values(found, natives, true) -> dict[str, str]:
    """Problems of one kind of values, forward ones or gradients."""
    floats = [v for v in true.values() if v.dtype.kind == "f"]
    largest = max(map(magnitude, floats), default=0.0)
    problems = {}
    for name, value in true.items():
        size = magnitude(value)
        tolerance = RELATIVE * (size if size > ZERO * largest else largest)
        problems[name] = _problem(found[name], [n[name] for n in natives], value, tolerance)
    return problems


def _compare_updates(found, native, true, before) -> dict[str, str]:
    """Problems of parameters and optimizer state, measured by how much they change."""
    problems = {}
    for name, value in true.items():
        tolerance = max(CHANGE * gap(value, before[name]), ROUNDING * magnitude(value))
        problems[name] = _problem(found[name], [native[name]], value, tolerance)
    return problems


def _session(model, signature: StepSignature) -> onnxruntime.InferenceSession:
    """A session that returns the gradients, too."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    inputs = {i.name: i.type for i in model.graph.input}
    for name in signature.parameters:
        output = shown.graph.output.add(name=f"grad.{name}")
        output.type.CopyFrom(inputs[name])
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(
            shown.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise VerificationError(
            f"onnxruntime does not load the exported step: {first_line(error)} (write the operation in other "
            "operators, or pass verify=False where another runtime is to run it)"
        ) from error


def verify_step(model, reference: Reference, batch, defaults, bindings, steps: int) -> None:
    """Runs the model with onnxruntime and raises VerificationError where it differs."""
    session = _session(model, reference.signature)
    names = [o.name for o in session.get_outputs()]
    twins = reference.twins()
    state: dict[str, np.ndarray] = {}
    problems = []
    for step in range(steps):
        found = dict(zip(names, session.run(names, {**batch, **state})))
        wrong: dict[str, str | None] = {}
        kinds = zip(*(twin.differentiate() for twin in twins))
        for kind, (single, double) in enumerate(kinds):
            wrong_values = _compare_values(found, [single], double)
            if any(wrong_values.values()):
                shaken = [values[kind] for values in reference.shaken(state)]
                wrong_values = _compare_values(found, [single, *shaken], double)
            wrong |= wrong_values
        before = {new: state.get(old, defaults[old]) for new, old in bindings.items()}
        wrong |= _compare_updates(found, *(twin.update(found) for twin in twins), before)
        problems += [f"step {step + 1}, {name}: {text}" for name, text in wrong.items() if text]
        state = {old: found[new] for new, old in bindings.items()}
        for twin in twins:
            twin.take(state)
    if problems:
        more = f" and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise VerificationError(
            "the exported step disagrees with eager PyTorch:\n  " + "\n  ".join(problems[:8]) + more
        )
