"""Backward operators that ONNX has no counterpart for, written in operators that it has.

PyTorch's exporter translates forward operators; for the backward operators here it either
stops or, worse, writes something else (``nll_loss_forward`` would lose its total weight,
``native_batch_norm`` its training mode). ``decomposition_table`` is what the traced step is
decomposed with before it is handed to ``torch.onnx``.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch._decomp import get_decompositions

from .complex import complex_table
from .errors import ExportError
from .pooling import fill, pooling_table
from .resampling import resampling_table

aten = torch.ops.aten


def _swap_batch_and_channel(x: Tensor, groups: int) -> Tensor:
    """[N, G·C, …] -> [C, G·N, …]: the group stays in front of what becomes the channel."""
    n, channels, *spatial = x.shape
    x = x.reshape([n, groups, channels // groups, *spatial])
    return x.transpose(0, 2).reshape([channels // groups, groups * n, *spatial])


def _batch_into_kernel(x: Tensor, groups: int) -> Tensor:
    """[N, G·C, …] -> [G·C, N, …]."""
    return x.transpose(0, 1)


def _weight_gradient(x, grad, kernel, stride, padding, dilation, groups):
    """dW[o,c,k] = Σ_{n,i} x[n, c, i·stride + k·dilation − padding] · grad[n, o, i].

    That is a convolution with N and C swapped whose kernel is ``grad``; stride and dilation
    trade places, and what the forward convolution's rounding left over is cut off.
    """
    result = aten.convolution(
        _swap_batch_and_channel(x, groups),
        _batch_into_kernel(grad, groups),
        None,
        dilation,
        padding,
        stride,
        False,
        [0] * len(stride),
        groups,
    )
    for axis, size in enumerate(kernel):
        if result.shape[2 + axis] != size:
            result = result.narrow(2 + axis, 0, size)
    return result.transpose(0, 1)


def convolution_backward(
    grad, x, weight, bias_sizes, stride, padding, dilation, transposed, output_padding, groups, mask
):
    """Gradients of ``aten.convolution`` as one transposed and one swapped convolution."""
    rank = x.dim() - 2
    stride, padding, dilation = (fill(v, rank) for v in (stride, padding, dilation))
    kernel = list(weight.shape[2:])
    grad_x = grad_weight = grad_bias = None
    if mask[0] and transposed:
        grad_x = aten.convolution(
            grad, weight, None, stride, padding, dilation, False, [0] * rank, groups
        )
    elif mask[0]:
        left_over = [
            x.shape[2 + i]
            - ((grad.shape[2 + i] - 1) * stride[i] - 2 * padding[i])
            - dilation[i] * (kernel[i] - 1)
            - 1
            for i in range(rank)
        ]
        grad_x = aten.convolution(
            grad, weight, None, stride, padding, dilation, True, left_over, groups
        )
    if mask[1]:
        source, target = (grad, x) if transposed else (x, grad)
        grad_weight = _weight_gradient(source, target, kernel, stride, padding, dilation, groups)
    if mask[2]:
        grad_bias = grad.sum([0, *range(2, 2 + rank)])
    return grad_x, grad_weight, grad_bias


def replication_pad_backward(grad, x, padding):
    """What was copied outwards adds up at the edge it came from; ``padding`` begins with the last axis."""
    for i in range(len(padding) // 2):
        axis, left, right = -1 - i, padding[2 * i], padding[2 * i + 1]
        size = x.shape[axis]
        if min(left, right) < 0:
            raise ExportError("replication padding that cuts off is not supported: slice the input instead")
        if size == 1:
            grad = grad.sum(axis, keepdim=True)
            continue
        first = grad.narrow(axis, 0, left + 1).sum(axis, keepdim=True)
        last = grad.narrow(axis, left + size - 1, right + 1).sum(axis, keepdim=True)
        grad = torch.cat([first, grad.narrow(axis, left + 1, size - 2), last], axis)
    return grad


def scatter_reduce(x, dim, index, src, reduce, *, include_self=True):
    """The mean as a sum over a count, since ONNX has none; else the operator itself."""
    if reduce != "mean":
        return NotImplemented
    count = torch.zeros_like(x).scatter_add(dim, index, torch.ones_like(src))
    if include_self:
        return x.scatter_add(dim, index, src) / (count + 1)
    start = torch.where(count > 0, torch.zeros_like(x), x)
    return start.scatter_add(dim, index, src) / count.clamp(min=1)


def trilinear(a, b, c, expand_a, expand_b, expand_c, sum_dim, unroll_dim=1):
    """The product of three tensors with axes of one inserted, summed over axes: what bilinear layers are made of."""
    product = None
    for factor, axes in ((a, expand_a), (b, expand_b), (c, expand_c)):
        for axis in axes:
            factor = factor.unsqueeze(axis)
        product = factor if product is None else product * factor
    return product.sum(sum_dim)


def unfold_backward(grad, sizes, dim, size, step):
    """What overlapping windows took adds up; their elements are the last axis."""
    starts = torch.arange(grad.shape[dim], device=grad.device).unsqueeze(1) * step
    places = (starts + torch.arange(size, device=grad.device)).flatten()
    taken = grad.movedim(-1, dim + 1).flatten(dim, dim + 1)
    return grad.new_zeros(sizes).index_add(dim, places, taken)


def diagonal_backward(grad, sizes, offset, dim1, dim2):
    """Zeros but for the diagonal, by a selection instead of a write in place."""
    rank = len(sizes)
    dim1, dim2 = dim1 % rank, dim2 % rank
    rows, columns = (torch.arange(sizes[d], device=grad.device) for d in (dim1, dim2))
    # The diagonal counts rows if it begins in the first one, else columns.
    places, axis = (rows, -1) if offset >= 0 else (columns, -2)
    kept = grad.index_select(-1, places.clamp(max=grad.shape[-1] - 1)).unsqueeze(axis)
    on = columns.unsqueeze(0) - rows.unsqueeze(1) == offset
    result = torch.where(on, kept, torch.zeros((), dtype=grad.dtype, device=grad.device))
    return result.movedim((-2, -1), (dim1, dim2))


def mv(matrix, vector):
    """By a matrix of one column: onnxruntime 1.32 takes a transposed matrix times a vector for something else."""
    return torch.mm(matrix, vector.unsqueeze(1)).squeeze(1)


def softshrink_backward(grad, x, bound):
    """1 beyond the bounds, 0 between them."""
    return torch.where(x.abs() > bound, grad, torch.zeros_like(grad))


def silu_backward(grad, x):
    """d/dx x·σ(x) = σ(x)·(1 + x·(1 − σ(x)))."""
    sigmoid = torch.sigmoid(x)
    return grad * sigmoid * (1 + x * (1 - sigmoid))


def mish_backward(grad, x):
    """d/dx x·tanh(softplus(x)) = t + x·σ(x)·(1 − t²) with t = tanh(softplus(x))."""
    t = torch.tanh(torch.nn.functional.softplus(x))
    return grad * (t + x * torch.sigmoid(x) * (1 - t * t))


EARLY = {
    aten.silu_backward.default: silu_backward,
    aten.mish_backward.default: mish_backward,
    aten.scatter_reduce.two: scatter_reduce,
    aten.diagonal_backward.default: diagonal_backward,
    **pooling_table(),
    **resampling_table(),
}
"""PyTorch calls some of these composite, and ``run_decompositions`` then ignores its table."""


def decomposition_table() -> dict:
    """Operator overload -> function, for ``ExportedProgram.run_decompositions``."""
    table = dict(
        get_decompositions(
            [
                aten.nll_loss_forward,
                aten.nll_loss_backward,
                aten.nll_loss2d_forward,
                aten.nll_loss2d_backward,
                aten.native_batch_norm,
                aten._native_batch_norm_legit,
                aten._native_batch_norm_legit_functional,
                aten.native_batch_norm_backward,
                aten.native_layer_norm_backward,
                aten.native_group_norm_backward,
                aten.embedding_dense_backward,
                aten._softmax_backward_data,
                aten._log_softmax_backward_data,
                aten.gelu_backward,
                aten.tanh_backward,
                aten.sigmoid_backward,
                aten.elu_backward,
                aten.leaky_relu_backward,
                aten.hardtanh_backward,
                aten.hardswish_backward,
                aten.hardsigmoid_backward,
                aten.softplus_backward,
                aten.threshold_backward,
                aten.mse_loss,
                aten.mse_loss_backward,
                aten.smooth_l1_loss_backward,
                aten.binary_cross_entropy_backward,
                aten.select_backward,
                aten.slice_backward,
            ]
        )
    )
    table[aten.convolution_backward.default] = convolution_backward
    table[aten.replication_pad1d_backward.default] = replication_pad_backward
    table[aten.replication_pad2d_backward.default] = replication_pad_backward
    table[aten.replication_pad3d_backward.default] = replication_pad_backward
    table[aten._trilinear.default] = trilinear
    table[aten.mv.default] = mv
    table.update(complex_table())
    table[aten.unfold_backward.default] = unfold_backward
    table[aten.softshrink_backward.default] = softshrink_backward
    table[aten.hardshrink_backward.default] = softshrink_backward
    return table
