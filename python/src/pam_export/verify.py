"""Compares a written step with eager PyTorch.

The measure is float64: PyTorch's own float32 step errs by some amount against its float64
step, and the exported step may err by at most ten times that, or by ``RELATIVE`` of the
tensor's largest magnitude where that is more. So a tensor that is nothing but rounding noise
(the gradient of a bias in front of a BatchNorm) does not need to be listed by hand.
"""

from __future__ import annotations

import copy

import numpy as np
import onnxruntime
import torch

from .errors import VerificationError
from .optimizers import STEP
from .trace import StepSignature, _named_outputs

RELATIVE = 1e-4
NOISE = 1e-5


class Reference:
    """The same step in eager PyTorch, under a copy of the real optimizer."""

    def __init__(self, model, loss_fn, optimizer, inputs, targets, signature: StepSignature):
        self.signature = signature
        self.loss_fn = loss_fn
        self.inputs, self.targets = inputs, targets
        self.model, self.optimizer = model, optimizer

    def run(self, steps: int, dtype: torch.dtype) -> list[dict[str, np.ndarray]]:
        """Outputs of ``steps`` chained steps on the example batch, under the graph's names."""
        model, optimizer = _copy_pair(self.model, self.optimizer, dtype)
        inputs = [_cast(v, dtype) for v in self.inputs.values()]
        targets = [_cast(v, dtype) for v in self.targets.values()]
        loss_fn = self.loss_fn
        if isinstance(loss_fn, torch.nn.Module):
            loss_fn = copy.deepcopy(loss_fn).to(dtype)
        count = read_step(optimizer)
        results = []
        for _ in range(steps):
            optimizer.zero_grad()
            result = model(*inputs)
            loss = loss_fn(result, *targets)
            outputs = _named_outputs(result, None)
            values = [loss, *outputs.values()]
            loss.backward()
            optimizer.step()
            count += 1
            found = dict(zip(["loss", *self.signature.outputs], values))
            found |= self._state(model, optimizer, count)
            results.append({k: v.detach().clone().numpy() for k, v in found.items()})
        return results

    def both(self, steps: int):
        """The float32 and the float64 run; float32 twice where the model insists on float32."""
        single = self.run(steps, torch.float32)
        try:
            return single, self.run(steps, torch.float64)
        except RuntimeError:
            return single, single

    def _state(self, model, optimizer, count) -> dict[str, torch.Tensor]:
        tensors = dict(model.named_parameters()) | dict(model.named_buffers())
        found = {}
        for name in self.signature.state_inputs():
            if name in tensors:
                found[f"new.{name}"] = tensors[name]
            elif name == STEP:
                found[f"new.{name}"] = torch.tensor(float(count))
            else:
                parameter, _, key = name.rpartition(".")
                found[f"new.{name}"] = optimizer.state[tensors[parameter]][key]
        return found

    def first_step(self) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """PyTorch's float32 values, and the outputs whose relative error is above ``NOISE``."""
        single, double = (run[0] for run in self.both(1))
        noise = {}
        for name, value in single.items():
            error = relative_error(value, double[name])
            if error > NOISE:
                noise[name] = error
        return single, noise


def _cast(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return value.to(dtype) if value.is_floating_point() else value


def _copy_pair(model, optimizer, dtype):
    """Independent copies of both; the optimizer's copy trains the model's copy."""
    twin = copy.deepcopy(model).to(dtype)
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


def relative_error(value: np.ndarray, true: np.ndarray) -> float:
    """Largest absolute difference over the largest magnitude (0 for equal values)."""
    value, true = np.asarray(value, np.float64), np.asarray(true, np.float64)
    if value.size == 0 or np.array_equal(value, true, equal_nan=True):
        return 0.0
    finite = np.isfinite(true)
    if not np.array_equal(value[~finite], true[~finite], equal_nan=True):
        return float("inf")
    scale = np.abs(true[finite]).max(initial=0.0)
    gap = np.abs(value[finite] - true[finite]).max(initial=0.0)
    return float(gap / scale) if scale > 0 else (0.0 if gap == 0 else float("inf"))


def verify_step(model, reference: Reference, batch, bindings, steps: int) -> None:
    """Runs the model with onnxruntime and raises VerificationError where it differs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [o.name for o in session.get_outputs()]
    single, double = reference.both(steps)
    state: dict[str, np.ndarray] = {}
    problems = []
    for step in range(steps):
        found = dict(zip(names, session.run(names, {**batch, **state})))
        state = {old: found[new] for new, old in bindings.items()}
        for name in names:
            native = single[step][name]
            if found[name].shape != native.shape or found[name].dtype != native.dtype:
                problems.append(
                    f"step {step + 1}, {name}: {found[name].dtype}{list(found[name].shape)}, "
                    f"PyTorch has {native.dtype}{list(native.shape)}"
                )
                continue
            allowed = max(RELATIVE, 10 * relative_error(native, double[step][name]))
            error = relative_error(found[name], double[step][name])
            if not error <= allowed:
                problems.append(
                    f"step {step + 1}, {name}: relative error {error:.2e}, allowed {allowed:.2e}"
                )
    if problems:
        more = f" and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise VerificationError(
            "the exported step disagrees with eager PyTorch:\n  " + "\n  ".join(problems[:8]) + more
        )
