"""Functions and modules of PyTorch whose own code cannot be recorded, in operators that can.

Some look at the values of tensors (to check them, or to choose what to compute), which a graph does
not have; others run as one kernel that neither ONNX nor PyTorch's decompositions know. What is here
takes their place while a step is recorded, and autograd differentiates it like any other code.
"""

from __future__ import annotations

import contextlib
import math
import sys
import warnings
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from .ctc import ctc_loss
from .errors import ExportError
from .sampling import grid_sample

_BatchNorm = torch.nn.modules.batchnorm._BatchNorm


def _reduced(loss: Tensor, reduction: str, size_average=None, reduce=None) -> Tensor:
    """Mean, sum or the tensor itself, as losses have it; the two old arguments go before."""
    if size_average is not None or reduce is not None:
        reduction = F._Reduction.legacy_get_string(size_average, reduce, emit_warning=False)
    return {"mean": loss.mean, "sum": loss.sum, "none": lambda: loss}[reduction]()


def gaussian_nll_loss(input, target, var, full=False, eps=1e-6, reduction="mean"):
    """½(log σ² + (x − y)²/σ²), without the look whether a variance is negative."""
    if isinstance(var, float):
        var = torch.full_like(input, var)
    if var.shape == input.shape[:-1]:
        var = var.unsqueeze(-1)
    # The floor does not count as an operation: what lies below it keeps its gradient.
    var = var + (var.clamp(min=eps) - var).detach()
    loss = 0.5 * (torch.log(var) + (input - target) ** 2 / var)
    return _reduced(loss + 0.5 * math.log(2 * math.pi) if full else loss, reduction)


def multi_margin_loss(
    input, target, p=1, margin=1.0, weight=None, size_average=None, reduce=None, reduction="mean"
):
    """Σ_{j≠y} w_y·max(0, margin − x_y + x_j)^p / C."""
    x, y = torch.atleast_2d(input), target.reshape(-1, 1)
    short = F.relu(margin - x.gather(1, y) + x) ** p
    if weight is not None:
        short = short * weight[y]
    others = torch.arange(x.shape[1], device=x.device) != y
    loss = torch.where(others, short, torch.zeros_like(short)).sum(1) / x.shape[1]
    return _reduced(loss.reshape(target.shape), reduction, size_average, reduce)


def multilabel_margin_loss(input, target, size_average=None, reduce=None, reduction="mean"):
    """Σ_{j, i∉y} max(0, 1 − x_{y_j} + x_i) / C, where the labels y end at the first negative one."""
    x, y = torch.atleast_2d(input), torch.atleast_2d(target)
    label = (y < 0).to(torch.int64).cumsum(1) == 0
    y = torch.where(label, y, torch.zeros_like(y))
    times = torch.zeros_like(x).scatter_add(1, y, label.to(x.dtype))
    short = F.relu(1 - x.gather(1, y).unsqueeze(2) + x.unsqueeze(1))
    counts = label.unsqueeze(2) & (times == 0).unsqueeze(1)
    loss = torch.where(counts, short, torch.zeros_like(short)).sum((1, 2)) / x.shape[1]
    return _reduced(loss.reshape(input.shape[:-1]), reduction, size_average, reduce)


def embedding(
    input, weight, padding_idx=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False, sparse=False
):  # fmt: skip
    """A dense gradient, since ``sparse`` only says how it is stored."""
    return F.embedding(input, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq)


def embedding_bag(
    input, weight, offsets=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False, mode="mean",
    sparse=False, per_sample_weights=None, include_last_offset=False, padding_idx=None,
):  # fmt: skip
    """Rows that are looked up one by one, then reduced within each bag; padding belongs to none."""
    if mode == "max" and (offsets is not None or padding_idx is not None):
        raise ExportError(
            "embedding_bag(mode='max') is supported for bags of one size without padding_idx: use mode='sum' or 'mean'"
        )
    flat = input.flatten()
    rows = F.embedding(flat, weight, None, max_norm, norm_type, scale_grad_by_freq)
    if mode == "max":
        return rows.reshape(*input.shape, -1).amax(1)
    if offsets is None:
        count = input.shape[0]
        bag = torch.arange(count, device=flat.device).repeat_interleave(input.shape[1])
    else:
        count = offsets.shape[0] - include_last_offset
        places = torch.arange(flat.shape[0], device=flat.device).unsqueeze(1)
        bag = (places >= offsets[:count]).sum(1) - 1
    kept = torch.ones_like(rows[:, :1])
    if padding_idx is not None:
        kept = (flat != padding_idx % weight.shape[0]).unsqueeze(1).to(rows.dtype)
        rows = torch.where(kept > 0, rows, torch.zeros_like(rows))
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.reshape(-1, 1)
    total = rows.new_zeros([count, rows.shape[1]]).index_add(0, bag, rows)
    if mode == "sum":
        return total
    return total / rows.new_zeros([count, 1]).index_add(0, bag, kept).clamp(min=1)


def cdist(x1, x2, p=2.0, compute_mode=None):
    """The norms of all differences of two rows."""
    return torch.linalg.vector_norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), p, -1)


def rrelu(input, lower=1 / 8, upper=1 / 3, training=False, inplace=False):
    """Its slope is the middle one outside of training, and random in it."""
    if training:
        return F.rrelu(input, lower, upper, training)
    return F.leaky_relu(input, (lower + upper) / 2)


def _adaptive_log_softmax(self, input_: Tensor, target_: Tensor):
    """All clusters for all rows, since which ones a batch needs depends on its values."""
    target = torch.atleast_1d(target_).unsqueeze(1)
    output = self.log_prob(torch.atleast_2d(input_)).gather(1, target).reshape(target_.shape)
    return torch.nn.modules.adaptive._ASMoutput(output, (-output).mean())


class PlainFunctions(TorchFunctionMode):
    """While active, functions are replaced, however the caller got hold of them."""

    table = {
        F.gaussian_nll_loss: gaussian_nll_loss,
        F.multi_margin_loss: multi_margin_loss,
        F.multilabel_margin_loss: multilabel_margin_loss,
        F.embedding: embedding,
        F.embedding_bag: embedding_bag,
        F.grid_sample: grid_sample,
        F.rrelu: rrelu,
        F.ctc_loss: ctc_loss,
        torch.cdist: cdist,
    }

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return self.table.get(func, func)(*args, **(kwargs or {}))


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    return v * (g / torch.norm_except_dim(v, 2, dim))


def _stated_causality(mask, is_causal=None, size=None) -> bool:
    """Whether a mask is said to be causal; it is used in any case, so that its values need not be looked at."""
    return is_causal is True


def _dense(pool):
    """Pooling of what lies in the order of its axes; of other layouts PyTorch records strides."""

    def pooled(x: Tensor, output_size):
        return pool(x.contiguous(), output_size)

    return pooled


def _batch_norm(forward):
    """BatchNorm whose statistics are the mean over all batches so far, where it has no momentum."""

    def normalized(self, x: Tensor) -> Tensor:
        if self.momentum is not None or not self.training or self.running_mean is None:
            return forward(self, x)
        self._check_input_dim(x)
        # With a momentum of one, running statistics become those of the batch.
        mean, var = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
        x = F.batch_norm(x, mean, var, self.weight, self.bias, True, 1.0, self.eps)
        self.num_batches_tracked.add_(1)
        self.running_mean.add_((mean - self.running_mean) / self.num_batches_tracked)
        self.running_var.add_((var - self.running_var) / self.num_batches_tracked)
        return x

    return normalized


@contextlib.contextmanager
def plain_kernels():
    """While active, everything here takes the place of what it stands for."""
    plain = [
        (torch, "_weight_norm", _weight_norm),
        (sys.modules["torch.nn.utils.weight_norm"], "_weight_norm", _weight_norm),
        (torch.nn.modules.transformer, "_detect_is_causal_mask", _stated_causality),
        (torch.nn.AdaptiveLogSoftmaxWithLoss, "forward", _adaptive_log_softmax),
        (_BatchNorm, "forward", _batch_norm(_BatchNorm.forward)),
    ]
    for name in ("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"):
        plain.append((F, name, _dense(getattr(F, name))))
    with contextlib.ExitStack() as stack:
        for owner, name, function in plain:
            stack.enter_context(mock.patch.object(owner, name, function))
        stack.enter_context(warnings.catch_warnings())
        # Restoring oneDNN's flags warns of Intel GPUs wherever there are none.
        warnings.filterwarnings("ignore", message="TF32 acceleration on top of oneDNN")
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(torch.backends.mkldnn.flags(enabled=False))
        stack.enter_context(PlainFunctions())
        yield
