"""Operators on complex numbers that PyTorch's exporter knows for real ones only.

It writes a complex tensor as a real one with an axis for real and imaginary parts at the end, and has
translations of Fourier transforms, of arithmetic and of a few more. The functions here say the others in
terms of these, and leave real tensors to the operator itself.
"""

from __future__ import annotations

import torch

aten = torch.ops.aten


def _reals(x):
    return torch.view_as_real(x.resolve_conj())


def new_zeros(x, size, *, dtype=None, **_):
    """Zeros for both parts."""
    if not (dtype or x.dtype).is_complex:
        return NotImplemented
    zeros = torch.zeros(size, dtype=(dtype or x.dtype).to_real(), device=x.device)
    return torch.complex(zeros, zeros)


def copy(x, src, non_blocking=False):
    """What is copied, in the copy's place."""
    return src if x.is_complex() and src.is_complex() and x.shape == src.shape else NotImplemented


def slice_scatter(x, src, dim=0, start=None, end=None, step=1):
    """What stays and what is put between, beside each other."""
    if not x.is_complex() or step != 1:
        return NotImplemented
    size = x.shape[dim]
    start, end, _ = slice(start, end).indices(size)
    parts = [x.narrow(dim, 0, start), src, x.narrow(dim, end, size - end)]
    return torch.cat([part for part in parts if part.shape[dim]], dim)


def select_scatter(x, src, dim, index):
    """The same with one entry put between."""
    if not x.is_complex():
        return NotImplemented
    index = index % x.shape[dim]
    return slice_scatter(x, unsqueeze(src, dim if dim >= 0 else dim + x.dim()), dim, index, index + 1)


def unsqueeze(x, dim):
    """The new axis is before that of the parts."""
    if not x.is_complex():
        return NotImplemented
    return torch.view_as_complex(_reals(x).unsqueeze(dim if dim >= 0 else dim - 1))


def select(x, dim, index):
    """Both parts of one entry."""
    if not x.is_complex():
        return NotImplemented
    return torch.view_as_complex(_reals(x).select(dim if dim >= 0 else dim - 1, index).contiguous())


def expand(x, size, *, implicit=False):
    """Both parts as often."""
    if not x.is_complex():
        return NotImplemented
    return torch.view_as_complex(_reals(x).expand([*size, 2]).contiguous())


def where(condition, x, y):
    """Both parts where the condition holds."""
    if not x.is_complex() and not y.is_complex():
        return NotImplemented
    x, y = (_reals(z if z.is_complex() else torch.complex(z, torch.zeros_like(z))) for z in (x, y))
    return torch.view_as_complex(torch.where(condition.unsqueeze(-1), x, y))


def sgn(x):
    """Numbers of size 1 of the same direction, or zeros."""
    if not x.is_complex():
        return NotImplemented
    size = x.abs()
    size = torch.where(size == 0, torch.ones_like(size), size)
    return torch.view_as_complex(_reals(x) / size.unsqueeze(-1))


def bmm(x, y):
    """Four products of real matrices."""
    if not x.is_complex():
        return NotImplemented
    (a, b), (c, d) = (_reals(z).unbind(-1) for z in (x, y))
    return torch.complex(torch.bmm(a, c) - torch.bmm(b, d), torch.bmm(a, d) + torch.bmm(b, c))


def complex_table() -> dict:
    """Operator overload -> function."""
    return {
        aten.new_zeros.default: new_zeros,
        aten.copy.default: copy,
        aten.slice_scatter.default: slice_scatter,
        aten.select_scatter.default: select_scatter,
        aten.unsqueeze.default: unsqueeze,
        aten.select.int: select,
        aten.expand.default: expand,
        aten.where.self: where,
        aten.bmm.default: bmm,
        aten.sgn.default: sgn,
    }
