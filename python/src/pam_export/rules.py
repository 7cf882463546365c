"""What each of PyTorch's optimizers does to one parameter.

Each ``*Rule`` states an update as a function (parameter, gradient, state, lr, step) -> (parameter,
state), following the single-tensor formulas of ``torch.optim``. Only the learning rate, the step count
and the state are tensors; all other hyper-parameters become constants of the graph.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import ExportError


@dataclass(frozen=True)
class ParameterRule:
    """What the optimizer does to one parameter: the hyper-parameters of its group."""

    group: dict

    def fresh(self, p: Tensor) -> dict[str, Tensor]:
        """The state of parameter ``p`` before the first step."""
        raise NotImplementedError

    def update(
        self, p: Tensor, g: Tensor, state: dict[str, Tensor], lr: Tensor, step: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """New parameter and new state. ``step`` is the count before this step."""
        raise NotImplementedError

    def needs_step(self) -> bool:
        """Whether the update depends on how many steps have been taken."""
        return True

    def decayed(self, p: Tensor, g: Tensor, lr: Tensor) -> tuple[Tensor, Tensor]:
        """Parameter and gradient after the options that all optimizers share."""
        decay = self.group.get("weight_decay", 0)
        if self.group["maximize"]:
            g = -g
        if decay != 0 and self.group.get("decoupled_weight_decay", False):
            p = p * (1 - lr * decay)
        elif decay != 0:
            g = g + p * decay
        return p, g


def _zeros(p: Tensor, *names: str) -> dict[str, Tensor]:
    return {name: torch.zeros_like(p) for name in names}


def _average(old: Tensor, new: Tensor, weight) -> Tensor:
    """The running average ``old`` after ``new``."""
    return old + (new - old) * weight


def _square(old: Tensor, g: Tensor, beta: float) -> Tensor:
    """The running average ``old`` of squares after that of ``g``."""
    return old * beta + (g * g) * (1 - beta)


class SgdRule(ParameterRule):
    """``torch.optim.SGD``: momentum, dampening, weight decay, Nesterov."""

    def needs_step(self):
        # The first step copies the gradient into the buffer undamped; with a zero buffer and
        # no dampening the general formula already gives that.
        return self.group["momentum"] != 0 and self.group["dampening"] != 0

    def fresh(self, p):
        return {} if self.group["momentum"] == 0 else _zeros(p, "momentum_buffer")

    def update(self, p, g, state, lr, step):
        momentum, dampening = self.group["momentum"], self.group["dampening"]
        p, g = self.decayed(p, g, lr)
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
    """``torch.optim.Adam`` and ``AdamW``, whose weight decay is decoupled from the gradient."""

    def fresh(self, p):
        largest = ["max_exp_avg_sq"] if self.group["amsgrad"] else []
        return _zeros(p, "exp_avg", "exp_avg_sq", *largest)

    def update(self, p, g, state, lr, step):
        beta1, beta2 = self.group["betas"]
        count = step + 1
        p, g = self.decayed(p, g, lr)
        average = _average(state["exp_avg"], g, 1 - beta1)
        square = _square(state["exp_avg_sq"], g, beta2)
        new = {"exp_avg": average, "exp_avg_sq": square}
        if self.group["amsgrad"]:
            square = new["max_exp_avg_sq"] = torch.maximum(state["max_exp_avg_sq"], square)
        step_size = lr / (1 - torch.pow(beta1, count))
        correction = torch.sqrt(1 - torch.pow(beta2, count))
        denominator = torch.sqrt(square) / correction + self.group["eps"]
        return p - step_size * (average / denominator), new


class NadamRule(ParameterRule):
    """``torch.optim.NAdam``: Adam with a Nesterov momentum whose weight grows."""

    def fresh(self, p):
        return _zeros(p, "exp_avg", "exp_avg_sq") | {"mu_product": torch.tensor(1.0)}

    def update(self, p, g, state, lr, step):
        beta1, beta2 = self.group["betas"]
        count = step + 1
        p, g = self.decayed(p, g, lr)
        growth = self.group["momentum_decay"]
        mu, following = (
            beta1 * (1 - 0.5 * torch.pow(0.96, n * growth)) for n in (count, count + 1)
        )
        product = state["mu_product"] * mu
        average = _average(state["exp_avg"], g, 1 - beta1)
        square = _square(state["exp_avg_sq"], g, beta2)
        denominator = torch.sqrt(square / (1 - torch.pow(beta2, count))) + self.group["eps"]
        p = p - (lr * (1 - mu) / (1 - product)) * (g / denominator)
        p = p - (lr * following / (1 - product * following)) * (average / denominator)
        return p, {"exp_avg": average, "exp_avg_sq": square, "mu_product": product}


class RadamRule(ParameterRule):
    """``torch.optim.RAdam``: momentum alone until the variance of the squares is known well enough."""

    def fresh(self, p):
        return _zeros(p, "exp_avg", "exp_avg_sq")

    def update(self, p, g, state, lr, step):
        beta1, beta2 = self.group["betas"]
        count = step + 1
        p, g = self.decayed(p, g, lr)
        average = _average(state["exp_avg"], g, 1 - beta1)
        square = _square(state["exp_avg_sq"], g, beta2)
        step_size = lr / (1 - torch.pow(beta1, count))
        p = p - step_size * (average * self._factor(square, count))
        return p, {"exp_avg": average, "exp_avg_sq": square}

    def _factor(self, square: Tensor, count: Tensor) -> Tensor:
        """What the momentum is multiplied by, 1 as long as too little is known."""
        beta2 = self.group["betas"][1]
        limit = 2 / (1 - beta2) - 1
        if limit <= 5:
            return torch.ones_like(square)
        # 1 − β^t = 2h / (1 + h) with h = tanh(−t·ln β / 2). The difference of two numbers that are
        # almost equal would not do, since it is multiplied by a large one and subtracted from another.
        half = torch.tanh(count * (-0.5 * math.log(beta2)))
        correction = 2 * half / (1 + half)
        length = limit - 2 * count * (1 - correction) / correction
        known = length > 5
        # The root must be one of a positive number where it is not used, too.
        length = torch.where(known, length, torch.full_like(length, 6.0))
        scale = limit / ((limit - 4) * (limit - 2))
        rectified = torch.sqrt(correction * ((length - 4) * (length - 2) * scale / length))
        factor = rectified / (torch.sqrt(square) + self.group["eps"])
        return torch.where(known, factor, torch.ones_like(factor))


class AdamaxRule(ParameterRule):
    """``torch.optim.Adamax``: Adam with the largest gradient in place of the root of squares."""

    def fresh(self, p):
        return _zeros(p, "exp_avg", "exp_inf")

    def update(self, p, g, state, lr, step):
        beta1, beta2 = self.group["betas"]
        p, g = self.decayed(p, g, lr)
        average = _average(state["exp_avg"], g, 1 - beta1)
        largest = torch.maximum(state["exp_inf"] * beta2, g.abs() + self.group["eps"])
        step_size = lr / (1 - torch.pow(beta1, step + 1))
        return p - step_size * (average / largest), {"exp_avg": average, "exp_inf": largest}


class AdadeltaRule(ParameterRule):
    """``torch.optim.Adadelta``: the step is as large as the steps before were, per unit of gradient."""

    def needs_step(self):
        return False

    def fresh(self, p):
        return _zeros(p, "square_avg", "acc_delta")

    def update(self, p, g, state, lr, step):
        rho, eps = self.group["rho"], self.group["eps"]
        p, g = self.decayed(p, g, lr)
        square = _square(state["square_avg"], g, rho)
        delta = torch.sqrt(state["acc_delta"] + eps) / torch.sqrt(square + eps) * g
        new = {"square_avg": square, "acc_delta": _square(state["acc_delta"], delta, rho)}
        return p - lr * delta, new


class AdagradRule(ParameterRule):
    """``torch.optim.Adagrad``: division by the root of the sum of all squares."""

    def needs_step(self):
        return self.group["lr_decay"] != 0

    def fresh(self, p):
        return {"sum": torch.full_like(p, self.group["initial_accumulator_value"])}

    def update(self, p, g, state, lr, step):
        p, g = self.decayed(p, g, lr)
        total = state["sum"] + g * g
        if self.needs_step():
            lr = lr / (1 + step * self.group["lr_decay"])
        return p - lr * (g / (torch.sqrt(total) + self.group["eps"])), {"sum": total}


class RmspropRule(ParameterRule):
    """``torch.optim.RMSprop``: momentum, and variance in place of the mean square if centered."""

    def needs_step(self):
        return False

    def fresh(self, p):
        names = ["square_avg"]
        names += ["momentum_buffer"] if self.group["momentum"] > 0 else []
        names += ["grad_avg"] if self.group["centered"] else []
        return _zeros(p, *names)

    def update(self, p, g, state, lr, step):
        alpha, momentum = self.group["alpha"], self.group["momentum"]
        p, g = self.decayed(p, g, lr)
        square = _square(state["square_avg"], g, alpha)
        new = {"square_avg": square}
        if self.group["centered"]:
            average = new["grad_avg"] = _average(state["grad_avg"], g, 1 - alpha)
            square = square - average * average
        change = g / (torch.sqrt(square) + self.group["eps"])
        if momentum > 0:
            change = new["momentum_buffer"] = state["momentum_buffer"] * momentum + change
        return p - lr * change, new


class RpropRule(ParameterRule):
    """``torch.optim.Rprop``: only the signs of gradients count. ``lr`` is where step sizes begin."""

    def needs_step(self):
        return False

    def fresh(self, p):
        return _zeros(p, "prev") | {"step_size": torch.full_like(p, float(self.group["lr"]))}

    def update(self, p, g, state, lr, step):
        minus, plus = self.group["etas"]
        smallest, largest = map(float, self.group["step_sizes"])
        p, g = self.decayed(p, g, lr)
        turn = torch.sign(g) * torch.sign(state["prev"])
        one = torch.ones_like(g)
        factor = torch.where(turn > 0, plus * one, torch.where(turn < 0, minus * one, one))
        size = (state["step_size"] * factor).clamp(smallest, largest)
        g = torch.where(turn < 0, torch.zeros_like(g), g)
        return p - torch.sign(g) * size, {"prev": g, "step_size": size}


class AsgdRule(ParameterRule):
    """``torch.optim.ASGD``: gradient descent, and the average of parameters beside it."""

    def fresh(self, p):
        eta = torch.tensor(float(self.group["lr"]))
        return {"eta": eta, "mu": torch.tensor(1.0), **_zeros(p, "ax")}

    def update(self, p, g, state, lr, step):
        decay, count = self.group["lambd"], step + 1
        p, g = self.decayed(p, g, lr)
        p = p * (1 - decay * state["eta"]) - state["eta"] * g
        average = torch.where(state["mu"] == 1, p, _average(state["ax"], p, state["mu"]))
        eta = lr / torch.pow(1 + decay * lr * count, self.group["alpha"])
        mu = 1 / (count - self.group["t0"]).clamp(min=1)
        return p, {"eta": eta, "mu": mu, "ax": average}


class AdafactorRule(ParameterRule):
    """``torch.optim.Adafactor``: squares of a matrix are kept as a row and a column."""

    def fresh(self, p):
        if p.dim() < 2:
            return _zeros(p, "variance")
        return {
            "row_var": p.new_zeros([*p.shape[:-1], 1]),
            "col_var": p.new_zeros([*p.shape[:-2], 1, p.shape[-1]]),
        }

    def update(self, p, g, state, lr, step):
        least, scale = self.group["eps"]
        least = torch.finfo(p.dtype).eps if least is None else least
        count = step + 1
        weight = torch.pow(count, self.group["beta2_decay"])
        size = torch.sqrt((p * p).mean()).clamp(min=scale)
        size = size * torch.minimum(lr, 1 / torch.sqrt(count))
        if self.group["maximize"]:
            g = -g
        if self.group["weight_decay"] != 0:
            p = p * (1 - lr * self.group["weight_decay"])
        square = g * g
        if g.dim() < 2:
            estimate = _average(state["variance"], square, weight)
            new = {"variance": estimate}
        else:
            row = _average(state["row_var"], square.mean(-1, keepdim=True), weight)
            column = _average(state["col_var"], square.mean(-2, keepdim=True), weight)
            estimate = row * column / row.mean(-2, keepdim=True).clamp(min=least)
            new = {"row_var": row, "col_var": column}
        update = g / torch.sqrt(estimate.clamp(min=least * least))
        clip = (torch.sqrt((update * update).mean()) / self.group["d"]).clamp(min=1)
        return p - (size / clip) * update, new


RULES = {
    torch.optim.SGD: SgdRule,
    torch.optim.Adam: AdamRule,
    torch.optim.AdamW: AdamRule,
    torch.optim.NAdam: NadamRule,
    torch.optim.RAdam: RadamRule,
    torch.optim.Adamax: AdamaxRule,
    torch.optim.Adadelta: AdadeltaRule,
    torch.optim.Adagrad: AdagradRule,
    torch.optim.RMSprop: RmspropRule,
    torch.optim.Rprop: RpropRule,
    torch.optim.ASGD: AsgdRule,
    torch.optim.Adafactor: AdafactorRule,
}


def rule_for(optimizer: torch.optim.Optimizer, group: dict) -> ParameterRule:
    """The rule of a parameter group, or ExportError for an optimizer that has none."""
    kind = type(optimizer)
    if kind in RULES:
        return RULES[kind](group)
    names = ", ".join(known.__name__ for known in RULES)
    raise ExportError(
        f"optimizer {kind.__module__}.{kind.__qualname__} is not supported: "
        f"use one of torch.optim's {names} (not a subclass, whose step could differ)"
    )
