"""The logistic loss of all outcomes at once, for few rows: every pair in one table per outcome."""

from collections.abc import Sequence

import torch
from torch import Tensor

from motet.losses.rank import Pairs

LARGEST = 1_000_000
"""Pairs of all outcomes together, 8 MB a table: above it the blocks of `Pairs.loss` are about as fast."""
RANGE = 300.0
"""Scores beyond ± this many bandwidths overflow."""


class Tables:
    r"""Σ_{ij} pᵢⱼ log(1 + exp(-(fᵢ - fⱼ)/w)) and its gradient, without an exponential per pair.

    With E = exp(f/w) a pair costs one sum, one quotient and one logarithm,

        log(1 + exp(-(fᵢ - fⱼ)/w)) = log(Eᵢ + Eⱼ) - fᵢ/w,      ∂/∂fⱼ = -∂/∂fᵢ = Eⱼ / (Eᵢ + Eⱼ) / w,

    and all outcomes share each operation, which for a hundred rows takes as long as it takes to start it.

    Args:
        pairs: Of K outcomes of the same n rows.
        bandwidth: w.

    Cost:
        3 K·n² numbers of memory.
    """

    def __init__(self, pairs: Sequence[Pairs], bandwidth: float) -> None:
        tables = []
        for one in pairs:
            rows = one.rows
            better = (rows.rank.unsqueeze(1) > rows.rank) * torch.outer(rows.c, rows.b) / one.divisor
            table = better.new_zeros(one.n, one.n)
            table[rows.index.unsqueeze(1), rows.index] = better
            tables.append(table)
        self.table = torch.stack(tables)
        self.row = self.table.sum(2)
        self.bandwidth = bandwidth
        self.sums, self.quotients = torch.empty_like(self.table), torch.empty_like(self.table)

    @staticmethod
    def serve(pairs: Sequence[object], kind: str) -> bool:
        """Whether they are for this loss and so few rows."""
        exact = [one for one in pairs if isinstance(one, Pairs)]
        small = len(exact) == len(pairs) and sum(one.n**2 for one in exact) <= LARGEST
        return kind == "logistic" and small and all(one.divisor > 0 for one in exact)

    def losses(self, scores: Tensor) -> tuple[Tensor, Tensor] | None:
        """L (K,) in float64 and ∂L_k/∂f_k (n, K) of scores (n, K); None where they are too far apart."""
        f = scores.T.double() / self.bandwidth
        f = f - f.mean(1, keepdim=True)
        if not bool((f.abs() <= RANGE).all()):
            return None
        E = f.exp()
        torch.add(E.unsqueeze(2), E.unsqueeze(1), out=self.sums)
        torch.div(self.table, self.sums, out=self.quotients)
        down = torch.einsum("kij,kj->ki", self.quotients, E)
        up = torch.einsum("kij->kj", self.quotients) * E
        losses = torch.linalg.vecdot(self.table, self.sums.log_()).sum(1) - (self.row * f).sum(1)
        return losses, (up - down).T / self.bandwidth
