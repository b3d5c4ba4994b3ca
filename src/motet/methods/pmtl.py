"""PMTL, Pareto multi-task learning: Lin et al., NeurIPS 2019, arXiv 1912.12854."""

import logging
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from motet.linalg import as_double
from motet.methods.base import register
from motet.methods.preferred import PreferredMethod, ray, read_preference, simplex_lattice
from motet.solvers import min_norm_point

logger = logging.getLogger("motet")


@register("pmtl", year=2019, cost="gram")
class PMTL(PreferredMethod):
    r"""Find a Pareto-optimal point in the part of the losses' space that is nearer to one ray than to others.

    With the unit vectors u₀ along the own ray and uⱼ along the others, the part is where hⱼ = (uⱼ - u₀)·L ≤ 0. The
    gradient of hⱼ is Jᵀ(uⱼ - u₀). The first steps make only the largest violations smaller, by the shortest vector
    in the convex hull of Jᵀvⱼ, vⱼ = (uⱼ - u₀)/|uⱼ - u₀|, over all j with hⱼ > 0. Once there are none, or after
    ``warmup`` steps, it is

        min |Jᵀw|²,  w = α + Σⱼ βⱼvⱼ,  α, β ≥ 0, Σα + Σβ = 1, βⱼ = 0 where hⱼ ≤ 0.

    Args:
        preference: r, one positive number a task; None: equal. The ray is 1/r: twice the preference, half the loss.
        vectors: The preferences of the other solutions; None: a lattice of at most 10, or of K vectors.
        warmup: Most steps of the first phase, ≥ 0. The authors' code spends up to two epochs on it.

    Shapes:
        losses (K,), gram (K, K) → weights (K,), of either sign.

    Scale:
        All losses times c leave the weights as they are.

    Cost:
        That of MGDA with K + N tasks, N being the number of vectors.

    Note:
        The end lies in the part of its ray, not on the ray: that is as exact as the vectors are dense. The paper
        writes its vectors as rays; here they are preferences as everywhere in motet. It counts constraints from
        hⱼ ≥ -ε as active, its code from hⱼ > 0 on, as here. The code normalises the weights of each
        step; here only the constraints' rows are, since neighbouring rays differ by little and the first phase would
        not get anywhere with ∇hⱼ itself. A warm-up that ends outside of the part is logged once. The step count of
        the first phase is part of the state.
    """

    scale = 1.0

    def __init__(
        self,
        preference: Sequence[float] | None = None,
        vectors: Sequence[Sequence[float]] | None = None,
        warmup: int = 100,
    ) -> None:
        super().__init__(preference)
        if warmup < 0:
            raise ValueError(f"warmup of PMTL is a number of steps and must not be negative, not {warmup}")
        rows = None if vectors is None else [read_preference(self, vector) for vector in vectors]
        if rows is not None and (not rows or len({len(row) for row in rows if row is not None}) != 1):
            raise ValueError("vectors of PMTL are one or more preferences of one length, one value a task")
        self._vectors = None if rows is None else torch.stack([row for row in rows if row is not None])
        self.vectors = None if self._vectors is None else self._vectors.tolist()
        self.symmetric = self.symmetric and vectors is None
        self.warmup = warmup
        self._calls = 0

    def weights(self, gram: Tensor) -> Tensor:
        gram = as_double(gram.detach())
        losses = self.observed(gram[0])
        apart = self._rays(losses) - ray(self.shares(losses))
        # A vector that is the own one is no constraint.
        active = apart @ (losses / losses.norm()) > 1e-12
        apart = apart / apart.norm(dim=1, keepdim=True).clamp(min=1e-300)
        steps = self.recall("steps", losses, 0.0)
        first = active.any() & (steps.amax() < self.warmup)
        # Beyond ``warmup``: it has been in its part.
        rest = torch.where(active.any(), steps.clamp(min=self.warmup), float(self.warmup + 1))
        self.remember("steps", torch.where(first, steps + 1, rest))
        self._calls += 1
        # Asked once, so that steps don't wait for the device.
        if self._calls == self.warmup + 1 > 1 and bool(active.any() & (steps.amax() == self.warmup)):
            logger.warning(
                "PMTL is outside of the part of its preference after warmup=%d steps: try more or larger ones",
                self.warmup,
            )
        # Rows of fixed number: what is not in the hull is replaced by a point that is.
        own = torch.eye(len(losses), dtype=gram.dtype, device=gram.device)
        middle = (active.to(gram) @ apart) / active.sum().clamp(min=1)
        own = torch.where(first, middle, own)
        rows = torch.cat([own, torch.where(active[:, None], apart, own.mean(0))])
        alpha, self.converged = min_norm_point(rows @ gram @ rows.T)
        return alpha @ rows

    def _rays(self, like: Tensor) -> Tensor:
        """Unit vectors along all rays: (N, K)."""
        if self._vectors is not None:
            chosen = self.chosen(self._vectors.T, like).T
        else:
            divisions = 1
            while len(like) > 1 and math.comb(divisions + len(like), len(like) - 1) <= 10:
                divisions += 1
            chosen = simplex_lattice(len(like), divisions).to(like)
        return ray(chosen)
