"""``grid_sample`` in operators that autograd differentiates: elements that are picked, and weighted by distance."""

from __future__ import annotations

import torch
from torch import Tensor

from .resampling import CUBIC

WIDTHS = {"nearest": 1, "bilinear": 2, "bicubic": 4}
"""How many elements along each axis a sample is made of."""


def _padded(at: Tensor, size: int, padding: str, aligned: bool) -> Tensor:
    """A position among ``size`` elements, brought inside as the padding says."""
    if padding == "zeros":
        return at
    if padding == "reflection":
        low, high = (0.0, size - 1.0) if aligned else (-0.5, size - 0.5)
        if high == low:
            at = at * 0
        else:
            phase = torch.remainder((at - low).abs(), 2 * (high - low))
            at = torch.minimum(phase, 2 * (high - low) - phase) + low
    return at.clamp(0, size - 1)


def _cubic(distance: Tensor, far: bool) -> Tensor:
    """The weight of an element by cubic convolution."""
    if far:
        return ((CUBIC * distance - 5 * CUBIC) * distance + 8 * CUBIC) * distance - 4 * CUBIC
    return ((CUBIC + 2) * distance - (CUBIC + 3)) * distance * distance + 1


def _taps(at: Tensor, size: int, width: int, padding: str, aligned: bool):
    """Index, weight (or None) and whether it lies inside, of each element that positions are made of."""
    if width < 4:
        at = _padded(at, size, padding, aligned)
    low = at.round() if width == 1 else at.floor()
    above = at - low
    for i in range(width):
        offset = i - max(width // 2 - 1, 0)
        place, weight = low + offset, None
        distance = above - offset if offset <= 0 else offset - above
        if width == 2:
            weight = 1 - distance
        if width == 4:
            # The neighbours are padded one by one.
            place = _padded(place, size, padding, aligned)
            weight = _cubic(distance, far=i in (0, 3))
        place = place.detach()
        inside = (place >= 0) & (place <= size - 1)
        yield place.clamp(0, size - 1).to(torch.int64), weight, inside


def grid_sample(input, grid, mode="bilinear", padding_mode="zeros", align_corners=None):
    """``input[n, c, …]`` at the places in -1 to 1 that ``grid[n, …, axis]`` names, its last axis reversed."""
    sizes, aligned = input.shape[2:], bool(align_corners)
    batch, channels = input.shape[:2]
    corners = [(0, None, None)]
    for axis, size in enumerate(sizes):
        at = grid[..., len(sizes) - 1 - axis].flatten(1)
        at = (at + 1) / 2 * (size - 1) if aligned else ((at + 1) * size - 1) / 2
        taps = list(_taps(at, size, WIDTHS[mode], padding_mode, aligned))
        corners = [
            (
                index * size + own,
                own_weight if weight is None else weight * own_weight,
                own_inside if inside is None else inside & own_inside,
            )
            for index, weight, inside in corners
            for own, own_weight, own_inside in taps
        ]
    flat, total = input.flatten(2), 0
    for index, weight, inside in corners:
        value = flat.gather(2, index.unsqueeze(1).expand(-1, channels, -1))
        value = value if weight is None else value * weight.unsqueeze(1)
        total = total + torch.where(inside.unsqueeze(1), value, torch.zeros_like(value))
    return total.reshape(batch, channels, *grid.shape[1:-1])
