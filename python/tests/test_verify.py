"""The exporter's comparison with PyTorch: what it must notice and what it must not mind."""

import contextlib

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pam_export import VerificationError, decompositions, export_train_step, optimizers

from examples import batch, mlp


class Shifted(nn.Module):
    """All classes are shifted alike, so that the shift's gradient is zero, and rounding noise in float32."""

    def __init__(self):
        super().__init__()
        self.linear, self.shift = nn.Linear(6, 7), nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return self.linear(x) + self.shift


@pytest.mark.parametrize("seed", [2, 6, 10, 11])
def test_noise_that_adam_blows_up_is_no_disagreement(seed, tmp_path):
    torch.manual_seed(seed)
    model = Shifted()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    data = batch(size=9, classes=7)
    export_train_step(model, F.cross_entropy, optimizer, data, tmp_path / "step.onnx")


@pytest.mark.parametrize("wrong", [{"eps": 1e-6}, {"weight_decay": 0.0}, {"betas": (0.9, 0.99)}])
def test_a_wrong_hyperparameter_is_noticed(wrong, tmp_path, monkeypatch):
    real = optimizers.rule_for
    monkeypatch.setattr(optimizers, "rule_for", lambda o, group: real(o, {**group, **wrong}))
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    with pytest.raises(VerificationError, match="new.*relative error"):
        export_train_step(model, F.cross_entropy, optimizer, batch(), tmp_path / "step.onnx")


def test_a_wrong_gradient_is_noticed_though_it_changes_little(tmp_path, monkeypatch):
    operator = torch.ops.aten.silu_backward.default
    right = decompositions.silu_backward
    monkeypatch.setitem(decompositions.EARLY, operator, lambda g, x: 0.9 * right(g, x))
    model = nn.Sequential(nn.Linear(6, 8), nn.SiLU(), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5)
    with pytest.raises(VerificationError, match="grad.0.weight: relative error"):
        export_train_step(model, F.cross_entropy, optimizer, batch(), tmp_path / "step.onnx")


@pytest.mark.parametrize("activation, noticed", [(2.0**-23, False), (2.0**-11, True)])
def test_rounding_may_decide_on_the_side_of_a_kink(activation, noticed, tmp_path, monkeypatch):
    def on_the_other_side(gradient, x, threshold):
        return torch.where(x > 2 * activation, gradient, torch.zeros_like(gradient))

    operator = torch.ops.aten.threshold_backward.default
    monkeypatch.setitem(decompositions.EARLY, operator, on_the_other_side)
    model = nn.Sequential(nn.Linear(2, 1, bias=False), nn.ReLU(), nn.Linear(1, 1))
    nn.init.ones_(model[0].weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = torch.tensor([[1.0 + activation, -1.0], [2.0, 3.0]]), torch.ones(2, 1)
    expected = contextlib.nullcontext()
    if noticed:
        expected = pytest.raises(VerificationError, match="grad.0.weight: relative error")
    with expected:
        export_train_step(model, F.mse_loss, optimizer, data, tmp_path / "step.onnx")
