"""Layers and losses that PyTorch itself cannot get into a graph, and pooling with any windows.

The export itself compares two steps with eager PyTorch.
"""

import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pam_export import export_train_step


class Scaled(nn.Module):
    """A layer whose input depends on a parameter, so that it has a backward pass."""

    def __init__(self, shape, layer):
        super().__init__()
        self.scale, self.layer = nn.Parameter(1 + 0.1 * torch.randn(shape)), layer

    def forward(self, x):
        return self.layer(x * self.scale)


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def exported(model, loss, x, targets, tmp_path):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    step = export_train_step(model, loss, optimizer, (x, targets), tmp_path / "step.onnx")
    onnx.checker.check_model(str(step.path))
    return step


PLANES = {1: (2, 3, 8), 2: (2, 3, 8, 8), 3: (2, 3, 6, 6, 6)}

POOLS = {
    "max_1": (1, nn.MaxPool1d(3, 2, 1, ceil_mode=True)),
    "max_3": (3, nn.MaxPool3d(3, 2, 1)),
    "adaptive_max_1": (1, nn.AdaptiveMaxPool1d(2)),
    "adaptive_max_2": (2, nn.AdaptiveMaxPool2d((4, 2))),
    "adaptive_max_2_uneven": (2, nn.AdaptiveMaxPool2d((5, 3))),
    "adaptive_max_3_uneven": (3, nn.AdaptiveMaxPool3d(4)),
    "adaptive_average_1_uneven": (1, nn.AdaptiveAvgPool1d(5)),
    "adaptive_average_2_uneven": (2, nn.AdaptiveAvgPool2d((5, 3))),
    "adaptive_average_3": (3, nn.AdaptiveAvgPool3d((2, 3, 1))),
    "average_2_ceil": (2, nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False)),
    "average_2_divisor": (2, nn.AvgPool2d(3, 2, ceil_mode=True, divisor_override=5)),
    "average_3_ceil": (3, nn.AvgPool3d(3, 2, 1, ceil_mode=True)),
}


@pytest.mark.parametrize("name", POOLS)
def test_pooling(name, tmp_path):
    torch.manual_seed(0)
    rank, layer = POOLS[name]
    shape = PLANES[rank]
    model, x = Scaled(shape, layer), torch.randn(shape)
    exported(model, F.mse_loss, x, torch.randn_like(model(x)), tmp_path)


def test_pooling_without_a_batch_axis(tmp_path):
    model, x = Scaled((3, 8, 8), nn.AvgPool2d(2)), torch.randn(3, 8, 8)
    exported(model, F.mse_loss, x, torch.randn(3, 4, 4), tmp_path)


class Standardized(nn.Module):
    """A strided convolution whose weight is normalised."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, 3, 3))

    def forward(self, x):
        rows = self.weight.reshape(1, 4, -1)
        rows = F.batch_norm(rows, None, None, training=True, momentum=0.0)
        return F.conv2d(x, rows.reshape_as(self.weight), None, 2, 1)


def test_a_standardised_weight_behind_a_pooling(tmp_path):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 3, 1), nn.MaxPool2d(3, 2, 1), Standardized()]
    model, x = nn.Sequential(*layers), torch.randn(2, 3, 16, 16)
    exported(model, F.mse_loss, x, torch.randn(2, 4, 4, 4), tmp_path)


@pytest.mark.parametrize("batches", [0, 3])
def test_batchnorm_without_momentum_averages_all_batches(batches, tmp_path):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.BatchNorm1d(4, momentum=None), nn.Linear(4, 3)), torch.randn(5, 4)
    for _ in range(batches):
        model(torch.randn(5, 4))
    step = exported(model, F.mse_loss, x, torch.randn(5, 3), tmp_path)
    assert step.bindings["new.0.num_batches_tracked"] == "0.num_batches_tracked"
    assert step.expected["new.0.num_batches_tracked"] == batches + 1


SPECTRAL = {
    "linear": lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3)),
    "hook": lambda: nn.utils.spectral_norm(nn.Linear(4, 3)),
    "eval": lambda: nn.utils.spectral_norm(nn.Linear(4, 3)).eval(),
}


@pytest.mark.parametrize("name", SPECTRAL)
def test_spectral_norm_is_exported_and_the_model_can_be_used_before_and_after(name, tmp_path):
    torch.manual_seed(0)
    model, x = SPECTRAL[name](), torch.randn(5, 4)
    model(x).sum().backward()
    step = exported(model, F.mse_loss, x, torch.randn(5, 3), tmp_path)
    assert len(step.bindings) == (2 if name == "eval" else 4)
    assert torch.isfinite(model(x)).all()


LABELS = [[3, 0, -1, 1], [0, -1, 2, 3], [-1, 0, 1, 2], [1, 2, 3, 0], [2, -1, 2, -1]]

LOSSES = {
    "gaussian": (nn.GaussianNLLLoss(full=True), [torch.randn(5, 4), torch.rand(5, 1) + 0.1]),
    "gaussian_number": (lambda x, y: F.gaussian_nll_loss(x, y, 0.5), [torch.randn(5, 4)]),
    "gaussian_function": (F.gaussian_nll_loss, [torch.randn(5, 4), torch.rand(5) * 1e-5]),
    "margin": (nn.MultiMarginLoss(), [torch.tensor([0, 3, 1, 1, 2])]),
    "margin_squared": (
        nn.MultiMarginLoss(2, 0.7, torch.tensor([0.3, 1, 2, 0]), reduction="sum"),
        [torch.tensor([0, 3, 1, 1, 2])],
    ),
    "margin_of_labels": (nn.MultiLabelMarginLoss(), [torch.tensor(LABELS)]),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name, tmp_path):
    torch.manual_seed(0)
    loss, targets = LOSSES[name]
    model = Scaled((5, 4), nn.Identity())
    exported(model, loss, torch.randn(5, 4), tuple(targets), tmp_path)


@pytest.mark.parametrize("joined", [False, True])
def test_ctc_loss(joined, tmp_path):
    """Labels in a row, an empty target, one that is too long for its input, and inputs of several lengths."""
    torch.manual_seed(0)
    labels = torch.tensor([[2, 2, 3, 1], [1, 1, 1, 1], [4, 1, 2, 3], [3, 2, 1, 1]])
    lengths = torch.tensor([3, 0, 4, 2])
    if joined:
        labels = torch.cat([row[:n] for row, n in zip(labels, lengths)])
    model = nn.Sequential(nn.Linear(4, 5), nn.LogSoftmax(2))
    steps = torch.tensor([8, 6, 3, 7])
    loss = nn.CTCLoss(zero_infinity=True)
    exported(model, loss, torch.randn(8, 4, 4), (labels, steps, lengths), tmp_path)


SAMPLES = [
    ("bilinear", "zeros", False, (2, 3, 5, 6)),
    ("bilinear", "border", True, (2, 1, 3, 5, 4)),
    ("nearest", "reflection", False, (2, 3, 5, 6)),
    ("bicubic", "reflection", True, (2, 3, 5, 6)),
]


@pytest.mark.parametrize("mode, padding, aligned, shape", SAMPLES)
def test_samples_at_computed_places(mode, padding, aligned, shape, tmp_path):
    """Image and places both have a gradient."""
    torch.manual_seed(0)
    rank = len(shape) - 2
    grid = torch.rand(2, *shape[2:], rank) * 3 - 1.5

    def sampled(x):
        shift = torch.stack([x.mean(1)] * rank, -1) / 10
        return F.grid_sample(x, grid + shift, mode, padding, aligned)

    model, x = Scaled(shape, Function(sampled)), torch.randn(shape)
    exported(model, F.mse_loss, x, torch.randn(shape), tmp_path)


def test_a_variance_below_the_floor_keeps_its_gradient(tmp_path):
    loss = lambda found, y: F.gaussian_nll_loss(found[:, :2], y, found[:, 2:].exp(), eps=1.0)  # noqa: E731
    exported(Scaled((5, 4), nn.Identity()), loss, torch.randn(5, 4), torch.randn(5, 2), tmp_path)


class Bag(nn.Module):
    """Bags of one size, or beginning at offsets, with padding and weights where they are possible."""

    def __init__(self, mode, offsets=None):
        super().__init__()
        self.weight, self.mode, self.offsets = nn.Parameter(torch.randn(6, 3)), mode, offsets

    def forward(self, x):
        options = {} if self.mode == "max" else {"padding_idx": -1}
        if self.mode == "sum":
            options["per_sample_weights"] = torch.linspace(-1, 1, x.numel()).reshape(x.shape)
        return F.embedding_bag(x, self.weight, self.offsets, mode=self.mode, **options)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_embedding_bags_of_one_size(mode, tmp_path):
    x = torch.tensor([[1, 5, 2], [5, 5, 5], [0, 2, 2]])
    exported(Bag(mode), F.mse_loss, x, torch.randn(3, 3), tmp_path)


@pytest.mark.parametrize("mode", ["sum", "mean"])
def test_embedding_bags_at_offsets(mode, tmp_path):
    x, offsets = torch.tensor([1, 5, 2, 0, 0]), torch.tensor([0, 2, 2, 4])
    exported(Bag(mode, offsets), F.mse_loss, x, torch.randn(4, 3), tmp_path)


def test_a_sparse_gradient_becomes_a_dense_one(tmp_path):
    x = torch.tensor([1, 3, 3])
    exported(nn.Embedding(5, 4, sparse=True), F.mse_loss, x, torch.randn(3, 4), tmp_path)


class Clusters(nn.Module):
    """An adaptive softmax, of whose clusters a batch uses one."""

    def __init__(self):
        super().__init__()
        self.layer = nn.AdaptiveLogSoftmaxWithLoss(6, 10, [3, 6])

    def forward(self, x):
        return self.layer(x, torch.tensor([0, 4, 2])).output


class Turned(nn.Module):
    """Pairs of numbers turned by complex ones that are a buffer, as rotary embeddings have them."""

    def __init__(self):
        super().__init__()
        self.register_buffer("turns", torch.polar(torch.ones(3, 3), torch.randn(3, 3)))

    def forward(self, x):
        pairs = torch.view_as_complex(x.unflatten(-1, (3, 2)))
        return torch.view_as_real(pairs * self.turns).flatten(-2) + self.turns[1, 2].abs()


def of_complex_numbers(x):
    """Products of complex matrices, chosen from and repeated."""
    z = torch.view_as_complex(x.unflatten(-1, (3, 2)))
    product = torch.bmm(z.unsqueeze(0), z.unsqueeze(0))[0]
    chosen = torch.where(x[:, :3] > 0, product, z) * z[0].expand(3, 3)
    return torch.view_as_real(chosen).flatten(-2)


FUNCTIONS = {
    "complex_numbers": ((3, 6), Function(of_complex_numbers)),
    "rotated": ((3, 6), Turned()),
    "adaptive_softmax": ((3, 6), Clusters()),
    "rrelu": ((3, 6), nn.RReLU().eval()),
    "distances": ((3, 6), Function(lambda x: torch.cdist(x, torch.tanh(x)))),
    "windows": ((3, 6), Function(lambda x: x.unfold(1, 3, 2))),
    "spectrum": ((3, 6), Function(lambda x: torch.fft.irfft(torch.fft.rfft(x) * torch.arange(1, 5), n=6))),
    "spectrum_of_images": ((2, 4, 4), Function(lambda x: torch.fft.fft2(x.to(torch.complex64)).abs())),
    "diagonals": ((3, 4, 5), Function(lambda x: torch.cat([x.diagonal(1), x.diagonal(-1, 2, 1).T, x.diagonal(0, 1, 2).T]))),
    "matrix_times_vector": ((3, 4), Function(lambda x: x.t() @ x[:, 0])),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name, tmp_path):
    torch.manual_seed(0)
    shape, layer = FUNCTIONS[name]
    model, x = Scaled(shape, layer), torch.randn(shape)
    exported(model, F.mse_loss, x, torch.randn_like(model(x)), tmp_path)


def test_hooks_that_compute_a_weight_leave_the_model_usable(tmp_path):
    model, x = nn.utils.weight_norm(nn.Linear(4, 3)), torch.randn(5, 4)
    model(x).sum().backward()
    exported(model, F.mse_loss, x, torch.randn(5, 3), tmp_path)
    assert torch.isfinite(model(x)).all()
