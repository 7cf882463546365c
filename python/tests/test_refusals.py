"""What cannot be exported is refused, with the reason, and nothing is written."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pam_export import ExportError, export_train_step

from examples import batch, mlp


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.idle = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x):
        return self.used(x)


def refused(model, match, tmp_path, loss=F.cross_entropy, optimizer=None, example=None, **options):
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ExportError, match=match):
        export_train_step(
            model, loss, optimizer, example or batch(), tmp_path / "step.onnx", **options
        )
    assert not (tmp_path / "step.onnx").exists()


def test_refuses_dropout(tmp_path):
    model = nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.5))
    refused(model, "random numbers.*dropout probability to 0", tmp_path)


def test_refuses_a_parameter_without_path_to_the_loss(tmp_path):
    refused(Unused(), "no path from the loss to idle.weight, idle.bias", tmp_path)


def test_refuses_a_loss_that_is_not_scalar(tmp_path):
    loss = lambda logits, y: F.cross_entropy(logits, y, reduction="none")  # noqa: E731
    refused(mlp(), r"scalar tensor of rank 0, not \(5,\)", tmp_path, loss=loss)


def test_refuses_an_unknown_optimizer(tmp_path):
    model = mlp()
    optimizer = torch.optim.LBFGS(model.parameters())
    refused(model, "LBFGS.*use one of torch.optim's SGD, Adam", tmp_path, optimizer=optimizer)


def test_refuses_two_learning_rates(tmp_path):
    model = mlp()
    groups = [{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": 1.0}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    refused(model, "different learning rates", tmp_path, optimizer=optimizer)


def test_refuses_an_untrained_parameter(tmp_path):
    model = mlp()
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)
    refused(model, "does not train 2.weight, 2.bias", tmp_path, optimizer=optimizer)


def test_refuses_half_precision(tmp_path):
    model = mlp().to(torch.bfloat16)
    refused(model, "0.weight is torch.bfloat16", tmp_path)


def test_refuses_an_old_opset(tmp_path):
    refused(mlp(), "opset 13 is not supported", tmp_path, opset=13)


def test_refuses_data_dependent_control_flow(tmp_path):
    class Branch(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(6, 3)

        def forward(self, x):
            return self.linear(x) if x.sum() > 0 else self.linear(-x)

    refused(Branch(), "cannot be recorded", tmp_path)


def test_refuses_an_operator_without_translation_by_name(tmp_path):
    class Exponential(nn.Linear):
        def forward(self, x):
            return torch.matrix_exp(self.weight)[:3, :3] + x.sum()

    example = torch.randn(3, 6), torch.randn(3, 3)
    match = "aten.linalg_matrix_exp has no translation. Write it in other operators"
    refused(Exponential(4, 4, False), match, tmp_path, loss=F.mse_loss, example=example)


def test_refuses_the_largest_of_bags_of_different_sizes(tmp_path):
    class Bags(nn.EmbeddingBag):
        def forward(self, x):
            return super().forward(x, torch.tensor([0, 2]))

    example = torch.tensor([1, 3, 3]), torch.randn(2, 3)
    match = "embedding_bag.*use mode='sum' or 'mean'"
    refused(Bags(5, 3, mode="max"), match, tmp_path, loss=F.mse_loss, example=example)


def test_refuses_a_name_taken_twice(tmp_path):
    x, y = batch()
    refused(mlp(), "taken twice", tmp_path, example=({"lr": x}, {"y": y}))
