"""Steps of every optimizer against eager PyTorch, which the export itself compares."""

import pytest
import torch
from torch.nn import functional as F
from torch import optim

from pam_export import export_train_step

from examples import batch, mlp

OPTIMIZERS = {
    "amsgrad": lambda p: optim.AdamW(p, 0.01, weight_decay=0.1, amsgrad=True, maximize=True),
    "adam_decoupled": lambda p: optim.Adam(p, 0.01, weight_decay=0.1, decoupled_weight_decay=True),
    "nadam": lambda p: optim.NAdam(p, weight_decay=0.1),
    "nadam_decoupled": lambda p: optim.NAdam(p, weight_decay=0.1, decoupled_weight_decay=True),
    "radam": lambda p: optim.RAdam(p, weight_decay=0.1),
    "radam_short": lambda p: optim.RAdam(p, betas=(0.5, 0.6), weight_decay=0.1),
    "adamax": lambda p: optim.Adamax(p, weight_decay=0.1),
    "adadelta": lambda p: optim.Adadelta(p, weight_decay=0.1),
    "adagrad": lambda p: optim.Adagrad(p, 0.1, lr_decay=0.1, initial_accumulator_value=0.1),
    "rmsprop": lambda p: optim.RMSprop(p, weight_decay=0.1),
    "rmsprop_centered": lambda p: optim.RMSprop(p, centered=True, momentum=0.9),
    "rprop": lambda p: optim.Rprop(p),
    "asgd": lambda p: optim.ASGD(p, 0.1, t0=1, weight_decay=0.1),
    "adafactor": lambda p: optim.Adafactor(p, weight_decay=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_from_the_start_and_with_history(name, tmp_path):
    model, data = mlp(), batch()
    optimizer = OPTIMIZERS[name](model.parameters())
    export_train_step(model, F.cross_entropy, optimizer, data, tmp_path / "fresh.onnx")
    # RAdam changes its formula at the sixth step, with the usual betas.
    for _ in range(6):
        optimizer.zero_grad()
        F.cross_entropy(model(data[0]), data[1]).backward()
        optimizer.step()
    step = export_train_step(model, F.cross_entropy, optimizer, data, tmp_path / "later.onnx")
    kept = {k for k, v in optimizer.state[model[0].weight].items() if v is not None} - {"step"}
    assert {f"0.weight.{key}" for key in kept} <= set(step.bindings.values())
