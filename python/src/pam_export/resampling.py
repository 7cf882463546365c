"""Upsampling and its gradients, for any size and scale.

Along each axis an output element is a weighted sum of a few input elements, so that interpolation is a product
with a constant matrix, and its gradient one with the transposed matrix. Where the weights are ones, elements are
picked, and their gradients added to where they came from: nothing is multiplied. Matrices and places follow from
``arange`` alone, so that the compiler finds constants.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

aten = torch.ops.aten

CUBIC = -0.75
"""The coefficient of PyTorch's cubic convolution."""


def _numbers(count: int, like: Tensor) -> Tensor:
    """0, 1, …; in double precision, since places are compared with whole numbers."""
    return torch.arange(count, dtype=torch.float64, device=like.device)


def _ratio(source: int, target: int, scale: float | None) -> float:
    """Input elements for each output element."""
    return 1 / scale if scale else source / target


def _nearest(source: int, target: int, scale: float | None, exact: bool, like: Tensor) -> Tensor:
    """The input element of each output element."""
    shift = 0.5 if exact else 0.0
    places = (_numbers(target, like) + shift) * _ratio(source, target, scale)
    return places.floor().clamp(max=source - 1).to(torch.int64)


def _positions(source, target, align, scale, like) -> Tensor:
    """Where the output elements lie between the input elements, as a column."""
    numbers = _numbers(target, like)
    if not align:
        numbers = (numbers + 0.5) * _ratio(source, target, scale) - 0.5
    elif target > 1:
        numbers = numbers * ((source - 1) / (target - 1))
    return numbers.unsqueeze(1)


def _linear(source, target, align, scale, like) -> Tensor:
    """The weights of the input elements, a row for each output element."""
    at = _positions(source, target, align, scale, like).clamp(0, source - 1)
    return (1 - (at - _numbers(source, like)).abs()).clamp(min=0)


def _cubic(source, target, align, scale, like) -> Tensor:
    """As :func:`_linear`, by cubic convolution over four elements; the ends are repeated."""
    at = _positions(source, target, align, scale, like)
    x = (at - (_numbers(source + 4, like) - 2)).abs()
    near = ((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1
    far = ((CUBIC * x - 5 * CUBIC) * x + 8 * CUBIC) * x - 4 * CUBIC
    weights = torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
    if source == 1:
        return weights.sum(1, keepdim=True)
    first, last = weights[:, :3].sum(1, keepdim=True), weights[:, -3:].sum(1, keepdim=True)
    return torch.cat([first, weights[:, 3:-3], last], 1)


def along(x: Tensor, matrices: list[Tensor]) -> Tensor:
    """Products with a matrix along each of the last axes, whose columns are the results."""
    for axis, matrix in zip(range(-len(matrices), 0), matrices):
        x = torch.matmul(x.transpose(axis, -1), matrix.to(x.dtype)).transpose(axis, -1)
    return x


def _axes(sources, targets, scales):
    """Size before and after, and the scale that was asked for, of each axis."""
    scales = [*scales, *[None] * (len(targets) - len(scales))]
    return list(zip(sources, targets, scales))


def _picked(exact: bool):
    """Forward and backward of nearest neighbours."""

    def forward(x, output_size, *scales):
        for axis, (source, target, scale) in enumerate(_axes(x.shape[2:], output_size, scales), 2):
            x = x.index_select(axis, _nearest(source, target, scale, exact, x))
        return x

    def backward(grad, output_size, input_size, *scales):
        sources = list(input_size[2:])
        places = torch.zeros([1], dtype=torch.int64, device=grad.device)
        for source, target, scale in _axes(sources, output_size, scales):
            along = _nearest(source, target, scale, exact, grad)
            places = (places.unsqueeze(1) * source + along).flatten()
        planes = list(input_size[:2])
        zeros = grad.new_zeros([*planes, math.prod(sources)])
        index = places.expand([*planes, places.shape[0]])
        return zeros.scatter_add(-1, index, grad.flatten(2)).reshape(list(input_size))

    return forward, backward


def _interpolated(weights):
    """Forward and backward of interpolation with these weights."""

    def forward(x, output_size, align_corners, *scales):
        axes = _axes(x.shape[2:], output_size, scales)
        return along(x, [weights(s, t, align_corners, f, x).t() for s, t, f in axes])

    def backward(grad, output_size, input_size, align_corners, *scales):
        axes = _axes(input_size[2:], output_size, scales)
        return along(grad, [weights(s, t, align_corners, f, grad) for s, t, f in axes])

    return forward, backward


def resampling_table() -> dict:
    """Operator overload -> function, for all of PyTorch's upsampling but the antialiased."""
    families = [(f"upsample_nearest{d}d", _picked(False)) for d in (1, 2, 3)]
    families += [(f"_upsample_nearest_exact{d}d", _picked(True)) for d in (1, 2, 3)]
    linear = ("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d")
    families += [(name, _interpolated(_linear)) for name in linear]
    families.append(("upsample_bicubic2d", _interpolated(_cubic)))
    table = {}
    for name, (forward, backward) in families:
        table[getattr(aten, name).default] = forward
        table[getattr(aten, f"{name}_backward").default] = backward
    return table
