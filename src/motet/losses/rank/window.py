"""Each row's neighbours by score, as ranges of positions."""

from typing import NamedTuple

import torch
from torch import Tensor

from motet.losses.rank.arrangement import order_of


class Window(NamedTuple):
    """Scores in order and, for each, the range of those nearer than a width."""

    order: Tensor
    """(m,) rows by score."""
    x: Tensor
    """(m,) the scores in that order."""
    lo: Tensor
    hi: Tensor
    """(m,) int32 positions in that order: its row number k has the neighbours lo[k]…hi[k]."""


def window(x: Tensor, width: float) -> Window:
    """Neighbours by |xᵢ - xⱼ| < width. Rounding can't make i a neighbour of j without j being one of i."""
    order = order_of(x)
    x = x.index_select(0, order)
    hi = torch.searchsorted(x, x + width)
    # i is within j's reach from above exactly where hi[j] > i. So lo[i] = #{j: hi[j] ≤ i}, from hi and not from x.
    lo = torch.bincount(hi, minlength=len(x) + 1).cumsum(0)[:-1]
    return Window(order, x, lo.int(), hi.int())


def closed_gaps(near: Window) -> Tensor:
    """The scores by y with gaps of more than 1 closed to 1: windows and differences in them stay, the range shrinks.

    With a small bandwidth x is large, and Σ xᵢgᵢ would cancel.
    """
    gaps = near.x.diff(prepend=near.x[:1]).clamp_(max=1.0)
    closed = gaps.cumsum(0)
    return torch.empty_like(closed).index_copy_(0, near.order, closed - closed[-1:] / 2)
