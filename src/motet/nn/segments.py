"""Sums, means and softmax over the segments of a flat tensor.

Values are (N, …), the N rows of all bags one after the other. Offsets are (B + 1,) int64: bag b holds the rows
offsets[b] … offsets[b + 1] - 1, offsets[0] = 0 and offsets[B] = N. Empty segments give 0.
"""

import torch
from torch import Tensor

from motet.nn.precision import at_least_float32


def segment_ids(offsets: Tensor, rows: int) -> Tensor:
    """The segment of each row, (N,) int64, without a wait for the device as long as the caller knows N."""
    return torch.searchsorted(offsets[1:], torch.arange(rows, device=offsets.device), right=True)


def segment_sum(values: Tensor, offsets: Tensor) -> Tensor:
    """Σ over each segment: (N, …) → (B, …), in float32 at least."""
    # index_add has derivatives of every order and mode; segment_reduce has only the first backward.
    values = at_least_float32(values)
    total = values.new_zeros(len(offsets) - 1, *values.shape[1:])
    return total.index_add(0, segment_ids(offsets, len(values)), values)


def segment_mean(values: Tensor, offsets: Tensor) -> Tensor:
    """Mean over each segment: (N, …) → (B, …)."""
    count = offsets.diff().clamp(min=1)
    return segment_sum(values, offsets) / count.reshape(-1, *(1,) * (values.ndim - 1))


def segment_softmax(logits: Tensor, offsets: Tensor) -> Tensor:
    """Softmax within each segment, each trailing index on its own: (N, …) → (N, …), in float32 at least."""
    logits = at_least_float32(logits)
    ids = segment_ids(offsets, len(logits))
    index = ids.reshape(-1, *(1,) * (logits.ndim - 1)).expand_as(logits)
    top = logits.new_zeros(len(offsets) - 1, *logits.shape[1:])
    top = top.scatter_reduce(0, index, logits.detach(), "amax", include_self=False)
    # A segment of nothing but -inf has no largest logit to subtract: its weights are 0, not NaN.
    power = (logits - torch.where(top == -torch.inf, 0, top)[ids]).exp()
    total = segment_sum(power, offsets)
    return power / torch.where(total > 0, total, 1)[ids]
