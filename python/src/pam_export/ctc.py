"""Connectionist temporal classification, in operators that autograd differentiates (Graves et al., ICML 2006).

PyTorch's own is one kernel whose gradient holds only behind a log_softmax; this one is the recursion over time.
"""

from __future__ import annotations

import torch
from torch import Tensor

NEVER = -1e30
"""The logarithm of no probability: finite, since differences of infinities are undefined."""


def _labels(targets: Tensor, lengths: Tensor, batch: int) -> Tensor:
    """The labels of each sequence, ``[batch, longest]``, from a matrix or from all sequences one after the other."""
    if targets.dim() == 2:
        return targets
    starts = lengths.cumsum(0) - lengths
    places = starts.unsqueeze(1) + torch.arange(targets.shape[0], device=targets.device)
    return targets[places.clamp(max=targets.shape[0] - 1)]


def ctc_loss(
    log_probs, targets, input_lengths, target_lengths, blank=0, reduction="mean", zero_infinity=False
):  # fmt: skip
    """``-log`` of the sum over all alignments; infinite where a target is too long for its input.

    ``log_probs`` is ``[time, batch, class]`` or ``[time, class]``.
    """
    single = log_probs.dim() == 2
    if single:
        log_probs, targets = log_probs.unsqueeze(1), targets.reshape(1, -1)
    time, batch, _ = log_probs.shape
    device = log_probs.device
    steps = torch.as_tensor(input_lengths, device=device).reshape(-1).to(torch.int64)
    lengths = torch.as_tensor(target_lengths, device=device).reshape(-1).to(torch.int64)
    labels = _labels(targets, lengths, batch).to(torch.int64)
    # Blanks lie around the labels; what lies behind a target's end is never read.
    states = 2 * labels.shape[1] + 1
    blanks = torch.full([batch, states], blank, dtype=torch.int64, device=device)
    odd = torch.arange(states, device=device) % 2 == 1
    doubled = labels.repeat_interleave(2, 1)
    padded = torch.cat([doubled, blanks[:, :1]], 1)
    symbols = torch.where(odd, padded, blanks)
    emitted = log_probs.gather(2, symbols.unsqueeze(0).expand(time, -1, -1))
    never = torch.full_like(emitted[0, :, :1], NEVER)
    # A label may follow the one before it without a blank between them if it is another.
    before = torch.cat([blanks[:, :2], symbols[:, :-2]], 1)
    skips = odd & (symbols != before)
    first = torch.arange(states, device=device) < torch.where(lengths > 0, 2, 1).unsqueeze(1)
    alpha = torch.where(first, emitted[0], never)
    for t in range(1, time):
        one = torch.cat([never, alpha[:, :-1]], 1)
        two = torch.cat([never, never, alpha[:, :-2]], 1)[:, :states]
        ways = torch.stack([alpha, one, torch.where(skips, two, never)])
        moved = torch.logsumexp(ways, 0) + emitted[t]
        alpha = torch.where((t < steps).unsqueeze(1), moved, alpha)
    # All labels are out at the last one, or at the blank behind it.
    ends = torch.stack([2 * lengths, (2 * lengths - 1).clamp(min=0)], 1)
    final = alpha.gather(1, ends)
    last = torch.where(lengths > 0, final[:, 1], never[:, 0])
    loss = -torch.logsumexp(torch.stack([final[:, 0], last]), 0)
    impossible = loss > -NEVER / 2
    instead = torch.full_like(loss, 0.0 if zero_infinity else torch.inf)
    loss = torch.where(impossible, instead, loss)
    if reduction == "mean":
        return (loss / lengths.clamp(min=1).to(loss.dtype)).mean()
    if reduction == "sum":
        return loss.sum()
    return loss[0] if single else loss
