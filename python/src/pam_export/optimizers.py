"""PyTorch's optimizers as pure functions of tensors.

A ``torch.optim`` object mutates its parameters and keeps its state in a dictionary, neither of
which has a place in a graph. Each ``*Rule`` here reads the hyper-parameters off such an object
and states the same update as a function (parameter, gradient, state, lr) -> (parameter, state),
following the single-tensor formulas of ``torch.optim``. Only the learning rate and the state are
tensors; all other hyper-parameters become constants of the graph.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import ExportError

STEP = "step"


@dataclass(frozen=True)
class ParameterRule:
    """What the optimizer does to one parameter: the hyper-parameters of its group."""

    group: dict

    def initial(self, parameter: Tensor, saved: dict) -> dict[str, Tensor]:
        """State tensors of this parameter, from ``saved`` (the optimizer's own) or fresh zeros."""
        raise NotImplementedError

    def update(
        self, p: Tensor, g: Tensor, state: dict[str, Tensor], lr: Tensor, step: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """New parameter and new state. ``step`` is the count before this step."""
        raise NotImplementedError

    def needs_step(self) -> bool:
        """Whether the update depends on how many steps have been taken."""
        raise NotImplementedError


class SgdRule(ParameterRule):
    """``torch.optim.SGD``: momentum, dampening, weight decay, Nesterov."""

    def needs_step(self) -> bool:
        # The first step copies the gradient into the buffer undamped; with a zero buffer and
        # no dampening the general formula already gives that.
        return self.group["momentum"] != 0 and self.group["dampening"] != 0

    def initial(self, parameter, saved):
        if self.group["momentum"] == 0:
            return {}
        buffer = saved.get("momentum_buffer")
        return {"momentum_buffer": torch.zeros_like(parameter) if buffer is None else buffer}

    def update(self, p, g, state, lr, step):
        momentum, dampening = self.group["momentum"], self.group["dampening"]
        if self.group["maximize"]:
            g = -g
        if self.group["weight_decay"] != 0:
            g = g + p * self.group["weight_decay"]
        if momentum == 0:
            return p - lr * g, {}
        buffer = state["momentum_buffer"] * momentum
        if dampening == 0:
            buffer = buffer + g
        else:
            buffer = torch.where(step == 0, g, buffer + g * (1 - dampening))
        g = g + buffer * momentum if self.group["nesterov"] else buffer
        return p - lr * g, {"momentum_buffer": buffer}


class AdamRule(ParameterRule):
    """``torch.optim.Adam`` and ``AdamW`` (weight decay decoupled from the gradient)."""

    def __init__(self, group: dict, decoupled: bool):
        super().__init__(group)
        object.__setattr__(self, "decoupled", decoupled)

    def needs_step(self) -> bool:
        return True

    def initial(self, parameter, saved):
        return {
            name: saved.get(name, torch.zeros_like(parameter)) for name in ("exp_avg", "exp_avg_sq")
        }

    def update(self, p, g, state, lr, step):
        beta1, beta2 = self.group["betas"]
        decay = self.group["weight_decay"]
        count = step + 1
        if self.group["maximize"]:
            g = -g
        if decay != 0 and self.decoupled:
            p = p * (1 - lr * decay)
        elif decay != 0:
            g = g + p * decay
        average = state["exp_avg"] + (g - state["exp_avg"]) * (1 - beta1)
        square = state["exp_avg_sq"] * beta2 + (g * g) * (1 - beta2)
        step_size = lr / (1 - torch.pow(beta1, count))
        correction = torch.sqrt(1 - torch.pow(beta2, count))
        denominator = torch.sqrt(square) / correction + self.group["eps"]
        p = p - step_size * (average / denominator)
        return p, {"exp_avg": average, "exp_avg_sq": square}


def _rule_for(optimizer: torch.optim.Optimizer, group: dict) -> ParameterRule:
    kind = type(optimizer)
    if kind is torch.optim.SGD:
        return SgdRule(group)
    if kind in (torch.optim.Adam, torch.optim.AdamW):
        if group["amsgrad"]:
            raise ExportError(
                f"{kind.__name__}(amsgrad=True) is not supported: export with amsgrad=False"
            )
        return AdamRule(group, decoupled=kind is torch.optim.AdamW)
    raise ExportError(
        f"optimizer {kind.__module__}.{kind.__qualname__} is not supported: "
        "use torch.optim.SGD, Adam or AdamW (not a subclass, whose step could differ)"
    )


@dataclass(frozen=True)
class OptimizerRule:
    """A whole optimizer: one rule per trained parameter, state under ``<parameter>.<state>``."""

    rules: dict[str, ParameterRule]
    lr: float
    state: dict[str, Tensor]

    def update(
        self, parameters: dict[str, Tensor], gradients: dict[str, Tensor], state: dict, lr: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """New parameters and new state, keyed like the old ones."""
        step = state.get(STEP)
        new_parameters, new_state = {}, {}
        for name, rule in self.rules.items():
            own = {
                key.removeprefix(name + "."): value
                for key, value in state.items()
                if key.rpartition(".")[0] == name
            }
            new_parameters[name], changed = rule.update(
                parameters[name], gradients[name], own, lr, step
            )
            new_state |= {f"{name}.{key}": value for key, value in changed.items()}
        if step is not None:
            new_state[STEP] = step + 1
        return new_parameters, {key: new_state[key] for key in state}


def read_optimizer(
    optimizer: torch.optim.Optimizer, parameters: dict[str, torch.nn.Parameter]
) -> OptimizerRule:
    """Reads rules and state off ``optimizer`` for ``parameters`` (dotted name -> parameter).

    Raises ExportError for an unsupported optimizer, for learning rates that differ between the
    groups (the graph has one ``lr``) and for parameters that it does not train.
    """
    names = {id(p): name for name, p in parameters.items()}
    rates = {float(group["lr"]) for group in optimizer.param_groups}
    if len(rates) != 1:
        raise ExportError(
            f"the parameter groups have different learning rates {sorted(rates)}: the exported "
            "step has a single lr input, so give all groups the same one"
        )
    rules, state, steps = {}, {}, set()
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names.get(id(parameter))
            if not parameter.requires_grad:
                continue  # PyTorch skips parameters without a gradient, too.
            if name is None:
                raise ExportError(
                    f"the optimizer trains a parameter of shape {tuple(parameter.shape)} that is "
                    "not one of the model's parameters"
                )
            rules[name] = _rule_for(optimizer, group)
            saved = optimizer.state.get(parameter, {})
            if "step" in saved:
                steps.add(float(saved["step"]))
    missing = [name for name in parameters if name not in rules]
    if missing:
        raise ExportError(
            f"the optimizer does not train {', '.join(missing)}: pass these parameters to it or "
            "set requires_grad=False on them"
        )
    rules = {name: rules[name] for name in parameters}
    for name, rule in rules.items():
        saved = optimizer.state.get(parameters[name], {})
        for key, value in rule.initial(parameters[name].detach(), saved).items():
            state[f"{name}.{key}"] = value.detach().clone()
    if any(rule.needs_step() for rule in rules.values()):
        if len(steps) > 1:
            raise ExportError(
                f"the parameters have taken different numbers of steps {sorted(steps)}: the "
                "exported step has a single step count"
            )
        if not steps and any(bool(s) for s in optimizer.state.values()):
            # SGD keeps no count, yet it does matter whether the first step is behind it.
            steps = {1.0}
        state[STEP] = torch.tensor(steps.pop() if steps else 0.0)
    return OptimizerRule(rules, rates.pop(), state)
