"""The exponential loss over all pairs by sorted sums: Σ cᵢbⱼ exp(xⱼ - xᵢ) factorises."""

import torch
from torch import Tensor

from motet.losses.rank.arrangement import Arrangement


def exponential(rows: Arrangement, x: Tensor) -> tuple[Tensor, Tensor]:
    """φ(u) = exp(-u). Sums are kept as logarithms, so nothing overflows that the loss itself does not."""
    never = x.new_full((1,), -torch.inf)
    worse = torch.cat([never, (rows.b.log() + x).logcumsumexp(0)])[rows.below]
    better = torch.cat([(rows.c.log() - x).flip(0).logcumsumexp(0).flip(0), never])[rows.above]
    as_better = (rows.c.log() - x + worse).exp()
    as_worse = (rows.b.log() + x + better).exp()
    return as_better.sum(), as_worse - as_better
