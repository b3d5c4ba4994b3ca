"""The logistic loss of all outcomes at once, for few rows: every pair in one table per outcome."""

from collections.abc import Sequence

import torch
from torch import Tensor

from motet.losses.rank import Pairs

LARGEST = 1_000_000
"""Pairs of all outcomes together, 8 MB a table: above it the blocks of `Pairs.loss` are about as fast."""
RANGE = {torch.float64: 300.0, torch.float32: 40.0}
"""Scores beyond ± this many bandwidths overflow, or would lose their gradients."""
BANDS = 8
"""Bands of rows at most: beyond it there is little left to leave out."""


class Tables:
    r"""Σ_{ij} pᵢⱼ log(1 + exp(-(fᵢ - fⱼ)/w)) and its gradient, without an exponential per pair.

    With E = exp(f/w) a pair costs one sum, one quotient and one logarithm,

        log(1 + exp(-(fᵢ - fⱼ)/w)) = log(Eᵢ + Eⱼ) - fᵢ/w,      ∂/∂fⱼ = -∂/∂fᵢ = Eⱼ / (Eᵢ + Eⱼ) / w,

    and all outcomes share each operation, which for a hundred rows takes as long as it takes to start it. Each
    outcome's rows stand in their order, so that only pairs below the diagonal count: bands of rows leave most of the
    rest out.

    Args:
        pairs: Of K outcomes of the same n rows.
        bandwidth: w.
        dtype: Of the tables. In float32 sums over a band have its precision; those over bands are float64.

    Cost:
        About 2 K·n² numbers of memory.
    """

    def __init__(self, pairs: Sequence[Pairs], bandwidth: float, dtype: torch.dtype = torch.float64) -> None:
        tables, orders = [], []
        for one in pairs:
            rows = one.rows
            better = (rows.rank.unsqueeze(1) > rows.rank) * torch.outer(rows.c, rows.b) / one.divisor
            table = better.new_zeros(one.n, one.n)
            table[rows.index.unsqueeze(1), rows.index] = better
            key = rows.rank.new_full((one.n,), -1)  # rows in no pair come first
            key[rows.index] = rows.rank
            order = key.argsort(stable=True)
            tables.append(table[order][:, order].to(dtype))
            orders.append(order)
        self.order = torch.stack(orders)  # (K, n)
        self.back = self.order.argsort(1)
        table = torch.stack(tables)
        self.row = table.double().sum(2)
        self.bandwidth = bandwidth
        n = table.shape[1]
        ends = [n * (band + 1) // bands for bands in [max(1, min(BANDS, n // 100))] for band in range(bands)]
        starts = [0, *ends[:-1]]
        self.bands = [
            (start, end, table[:, start:end, :end].contiguous()) for start, end in zip(starts, ends, strict=True)
        ]
        self.room = [(torch.empty_like(part), torch.empty_like(part)) for _, _, part in self.bands]

    @staticmethod
    def serve(pairs: Sequence[object], kind: str) -> bool:
        """Whether they are for this loss and so few rows."""
        exact = [one for one in pairs if isinstance(one, Pairs)]
        small = len(exact) == len(pairs) and sum(one.n**2 for one in exact) <= LARGEST
        return kind == "logistic" and small and all(one.divisor > 0 for one in exact)

    def losses(self, scores: Tensor, value: bool = True) -> tuple[Tensor, Tensor] | None:
        """L (K,) in float64 and ∂L_k/∂f_k (n, K) of scores (n, K); None where they are too far apart.

        Without ``value`` L is not computed, which is half the work, and is NaN.
        """
        f = scores.T.double().gather(1, self.order) / self.bandwidth
        f = f - f.mean(1, keepdim=True)
        if not bool((f.abs() <= RANGE[self.bands[0][2].dtype]).all()):
            return None
        E = f.exp().to(self.bands[0][2].dtype)
        slope = torch.zeros_like(f)
        losses = -(self.row * f).sum(1) if value else f.new_full((len(f),), torch.nan)
        for (start, end, table), (sums, quotients) in zip(self.bands, self.room, strict=True):
            better, worse = E[:, start:end], E[:, :end]
            torch.add(better.unsqueeze(2), worse.unsqueeze(1), out=sums)
            torch.div(table, sums, out=quotients)
            slope[:, start:end] -= torch.bmm(quotients, worse.unsqueeze(2)).squeeze(2)
            slope[:, :end] += quotients.sum(1) * worse
            if value:
                losses += torch.linalg.vecdot(table, sums.log_()).double().sum(1)
        return losses, slope.gather(1, self.back).T / self.bandwidth
