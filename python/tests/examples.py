"""The model and the batch that most tests use."""

import torch
from torch import nn


def mlp():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def batch(size=5, features=6, classes=3):
    return torch.randn(size, features), torch.randint(0, classes, (size,))
