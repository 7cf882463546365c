"""PyTorch's optimizers as pure functions of tensors.

A ``torch.optim`` object mutates its parameters and keeps its state in a dictionary, neither of
which has a place in a graph. ``read_optimizer`` reads both off such an object; what happens to each
parameter is a rule of ``rules.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import ExportError
from .rules import ParameterRule, rule_for

STEP = "step"


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
            rules[name] = rule_for(optimizer, group)
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
        for key, value in rule.fresh(parameters[name].detach()).items():
            known = saved.get(key)
            state[f"{name}.{key}"] = (value if known is None else known).detach().clone()
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
