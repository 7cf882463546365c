"""Pooling and its gradients, for windows of any size.

Where windows are all alike, forward pooling is ONNX's own. Else an average along an axis is a product
with a constant matrix, and its gradient one with the transposed matrix; and unlike windows of a maximum
become alike by repeating elements, which changes no maximum. The gradient of a maximum goes to the
position that the maximum came from.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from .resampling import along

aten = torch.ops.aten


def fill(values, rank: int) -> list[int]:
    """One value for each axis, from as many or from one for all."""
    values = list(values)
    return values * rank if len(values) == 1 else values


def _adaptive(source: int, target: int) -> list[tuple[int, int]]:
    """First element and end of each window of adaptive pooling."""
    return [(i * source // target, -(-(i + 1) * source // target)) for i in range(target)]


def _tiles(sources, targets) -> list[int] | None:
    """Size of the windows of adaptive pooling along each axis, if they are alike and do not overlap."""
    if any(s % t for s, t in zip(sources, targets)):
        return None
    return [s // t for s, t in zip(sources, targets)]


def _weights(windows, counts, source: int, like: Tensor) -> Tensor:
    """The weights 1/count of the elements in each window, a row for each window."""
    rows = [
        [1 / count if start <= i < end else 0.0 for i in range(source)]
        for (start, end), count in zip(windows, counts)
    ]
    return torch.tensor(rows, dtype=like.dtype, device=like.device)


def _adaptive_weights(sources, targets, like: Tensor) -> list[Tensor]:
    windows = [_adaptive(s, t) for s, t in zip(sources, targets)]
    return [
        _weights(w, [end - start for start, end in w], s, like) for w, s in zip(windows, sources)
    ]


def _sliding_weights(sources, targets, settings, like: Tensor) -> list[Tensor]:
    """Of average pooling. What lies beyond the padding never counts; the padding does if asked for."""
    kernel, stride, padding, ceil_mode, count_include_pad, divisor = settings
    weights = []
    for axis, (source, target) in enumerate(zip(sources, targets)):
        starts = [i * stride[axis] - padding[axis] for i in range(target)]
        windows = [(s, min(s + kernel[axis], source + padding[axis])) for s in starts]
        inside = [(max(start, 0), min(end, source)) for start, end in windows]
        counts = [end - start for start, end in (windows if count_include_pad else inside)]
        if divisor is not None:
            counts = [divisor if axis == 0 else 1] * target
        weights.append(_weights(inside, counts, source, like))
    return weights


def _settings(rank, kernel, stride=(), padding=(0,), ceil=False, include=True, divisor=None):
    """Arguments of average pooling, with one value for each axis."""
    kernel = fill(kernel, rank)
    return kernel, fill(stride or kernel, rank), fill(padding, rank), ceil, include, divisor


def _spread(grad, x, kernel, stride, padding, ceil_mode, count_include_pad, divisor):
    """A depthwise transposed convolution with ones, after division by the window's count."""
    rank, channels = len(kernel), x.shape[1]
    dense = [1] * rank, False, [0] * rank
    if divisor is not None:
        grad = grad / divisor
    elif count_include_pad or not any(padding):
        grad = grad / math.prod(kernel)
    else:
        window = x.new_ones([1, 1, *kernel])
        whole = x.new_ones([1, 1, *x.shape[2:]])
        grad = grad / aten.convolution(whole, window, None, stride, padding, *dense, 1)
    left_over = [
        x.shape[2 + i] - ((grad.shape[2 + i] - 1) * stride[i] - 2 * padding[i] + kernel[i])
        for i in range(rank)
    ]
    ones = x.new_ones([channels, 1, *kernel])
    return aten.convolution(
        grad, ones, None, stride, padding, [1] * rank, True, left_over, channels
    )


def _average(rank: int):
    """Forward and backward of average pooling."""

    def forward(x, *arguments):
        settings = kernel, stride, padding, ceil_mode, *_ = _settings(rank, *arguments)
        if not ceil_mode:
            return NotImplemented
        sources, targets = x.shape[-rank:], []
        for s, k, step, p in zip(sources, kernel, stride, padding):
            target = -(-(s + 2 * p - k) // step) + 1
            # A window that would begin in the padding behind the input is left out.
            targets.append(target - ((target - 1) * step >= s + p))
        return along(x, [w.t() for w in _sliding_weights(sources, targets, settings, x)])

    def backward(grad, x, *arguments):
        settings = _settings(rank, *arguments)
        if x.dim() == rank + 2 and not settings[3]:
            return _spread(grad, x, *settings)
        return along(grad, _sliding_weights(x.shape[-rank:], grad.shape[-rank:], settings, grad))

    return forward, backward


def _adaptive_average(rank: int):
    """Forward and backward of adaptive average pooling."""
    pool = {2: aten.avg_pool2d, 3: aten.avg_pool3d}[rank]

    def forward(x, output_size):
        sources = x.shape[-rank:]
        kernel = _tiles(sources, output_size)
        if kernel:
            return pool(x, kernel, kernel)
        return along(x, [w.t() for w in _adaptive_weights(sources, output_size, x)])

    def backward(grad, x):
        sources, targets = x.shape[-rank:], grad.shape[-rank:]
        kernel = _tiles(sources, targets)
        if kernel and x.dim() == rank + 2:
            return _spread(grad, x, *_settings(rank, kernel))
        return along(grad, _adaptive_weights(sources, targets, grad))

    return forward, backward


def _adaptive_maximum(rank: int):
    """Forward of adaptive maximum pooling: the maxima and where in a plane they were."""
    pool = {2: aten.max_pool2d_with_indices, 3: aten.max_pool3d_with_indices}[rank]

    def forward(x, output_size):
        sources = x.shape[-rank:]
        kernel = _tiles(sources, output_size)
        if kernel:
            return pool(x, kernel, kernel)
        kernel, numbers = [], []
        for source, target in zip(sources, output_size):
            windows = _adaptive(source, target)
            kernel.append(max(end - start for start, end in windows))
            numbers.append(
                [min(start + i, end - 1) for start, end in windows for i in range(kernel[-1])]
            )
        for axis, chosen in enumerate(numbers, -rank):
            x = x.index_select(axis, torch.tensor(chosen, device=x.device))
        values, indices = pool(x, kernel, kernel)
        strides = [math.prod(sources[axis + 1 :]) for axis in range(rank)]
        places = [sum(map(int.__mul__, at, strides)) for at in itertools.product(*numbers)]
        places = torch.tensor(places, device=x.device).index_select(0, indices.flatten())
        return values, places.reshape(indices.shape)

    return forward


def _maximum_backward(rank: int):
    """Each gradient goes to the position its maximum came from; overlapping windows add up."""

    def backward(grad, x, *settings_and_indices):
        indices = settings_and_indices[-1]
        zeros = x.new_zeros([*x.shape[:-rank], math.prod(x.shape[-rank:])])
        return zeros.scatter_add(-1, indices.flatten(-rank), grad.flatten(-rank)).reshape(x.shape)

    return backward


def pooling_table() -> dict:
    """Operator overload -> function, for average, maximum and adaptive pooling."""
    table = {}
    for rank in (2, 3):
        for name, (forward, backward) in {
            f"avg_pool{rank}d": _average(rank),
            f"_adaptive_avg_pool{rank}d": _adaptive_average(rank),
        }.items():
            table[getattr(aten, name).default] = forward
            table[getattr(aten, f"{name}_backward").default] = backward
        table[getattr(aten, f"adaptive_max_pool{rank}d").default] = _adaptive_maximum(rank)
        for name in (f"max_pool{rank}d_with_indices", f"adaptive_max_pool{rank}d"):
            table[getattr(aten, f"{name}_backward").default] = _maximum_backward(rank)
    return table
