"""Piecewise polynomial losses over all pairs in O(n log n): sums over windows of scores, by outcome.

With the scores x = f/w, u = xᵢ - xⱼ for a better row i and a worse row j, and weights p = cᵢbⱼ of a pair, a loss φ
needs V = Σ p φ(u) and gᵢ = ∂V/∂xᵢ. The gradient is of a lower degree than the loss, and gives most of V for nothing:
Σ p u φ'(u) = Σᵢ xᵢgᵢ. So the double ReLU needs weighted counts alone, and the cubic loss moments up to the second.
"""

import torch
from torch import Tensor

from motet.losses.rank.arrangement import Arrangement, order_of
from motet.losses.rank.dominance import offset, prefix, sides
from motet.losses.rank.window import closed_gaps, window


def drelu(rows: Arrangement, x: Tensor) -> tuple[Tensor, Tensor]:
    """φ(u) = 1 - clip(u + 1/2, 0, 1): 1 minus the double ReLU."""
    near = window(x, 0.5)
    ((worse, better),) = sides(rows, near.order, torch.stack([near.lo, near.hi]), [None])
    slope = rows.c * (worse[1] - worse[0]) - rows.b * (better[1] - better[0])
    # Σ S = Σ over u ≥ 1/2 of 1 + Σ over the window of (1/2 + u).
    ordered = rows.c @ (0.5 * (worse[0] + worse[1]) - offset(rows))
    return rows.pair_weight - ordered - closed_gaps(near) @ slope, -slope


def epanechnikov(rows: Arrangement, x: Tensor) -> tuple[Tensor, Tensor]:
    """φ(u) = 1/2 - 3u/4 + u³/4 in |u| < 1, 1 below and 0 above: 1 minus the Epanechnikov kernel's distribution.

    Positions within cells of the window's width, v = x/2 = ⌊v⌋ + s, keep moments in [0, 1]. A window reaches into two
    cells, which meet at the integer nearest to v.
    """
    near = window(x, 1.0)
    # A row at the very end of a window, and so outside of it, may be where the cells meet.
    meet = torch.searchsorted(near.x, 2 * near.x.div(2).round(), out_int32=True).clamp(near.lo, near.hi)
    v = x / 2
    s, a = v - v.floor(), v - v.round()
    slope, count = torch.zeros_like(x), torch.zeros_like(x)
    moments = sides(rows, near.order, torch.stack([near.lo, meet, near.hi]), [None, s, s.square()])
    ordered = rows.c @ (0.5 * (moments[0][0][0] + moments[0][0][2]) - offset(rows))
    for side, factor in enumerate((rows.c, -rows.b)):
        (n_low, n), (m_low, m), (_, square) = ((t[side][1] - t[side][0], t[side][2] - t[side][0]) for t in moments)
        # Σ (u/2)² over the window, where u/2 is a - s in the upper cell and a - s + 1 in the lower one.
        square = square + a * (a * n - 2 * m) + (2 * a + 1) * n_low - 2 * m_low
        slope += factor * (0.75 * n - 3 * square)
        count += factor * n
    # 3u/4 - u³/4 = u S'(u)/3 + u/2 in the window.
    return rows.pair_weight - ordered - closed_gaps(near) @ (slope / 3 + count / 2), -slope


def squared_hinge(rows: Arrangement, x: Tensor) -> tuple[Tensor, Tensor]:
    """φ(u) = max(0, 1 - u)²."""
    near = window(x, 1.0)
    ends = torch.stack([torch.zeros_like(near.lo), near.lo, near.hi])
    (n_worse, n_better), (m_worse, m_better) = sides(rows, near.order, ends, [None, x])
    # Of the worse rows those from lo upwards, of the better ones those below hi.
    n = rows.worse - (n_worse[1] - n_worse[0])
    m = prefix(rows.b * x)[rows.below] - (m_worse[1] - m_worse[0])
    as_better = rows.c * (n * (1 - x) + m)
    as_worse = rows.b * ((n_better[2] - n_better[0]) * (1 + x) - (m_better[2] - m_better[0]))
    # (1 - u)² = (1 - u) + u φ'(u)/2.
    return as_better.sum() + x @ (as_worse - as_better), 2 * (as_worse - as_better)


def concordant(rows: Arrangement, x: Tensor) -> Tensor:
    """Weight of the pairs with u > 0, and half of that of the pairs with u = 0."""
    order = order_of(x)
    ordered = x.index_select(0, order)
    ends = torch.stack([torch.searchsorted(ordered, ordered, right=right, out_int32=True) for right in (False, True)])
    ((worse, _),) = sides(rows, order, ends, [None])
    return rows.c @ (0.5 * (worse[0] + worse[1]) - offset(rows))
