"""FERERO, preference-guided multi-objective learning: Chen et al., NeurIPS 2024, arXiv 2412.01773."""

from collections.abc import Sequence

import torch
from torch import Tensor

from motet.linalg import as_double
from motet.methods.base import register
from motet.methods.preferred import PreferredMethod, ray
from motet.solvers.simplex import minimise_on_simplex

DAMPING = 1e-4
"""δ over the mean squared length of the gradients: the end misses the ray by about this much."""
LARGEST = 100.0
"""Bound of |ν|. It must outweigh λ for the constraint to decide: preferences of more than 1 to 100 are not reached."""


@register("ferero", year=2024, cost="gram")
class FERERO(PreferredMethod):
    r"""Descend as far as all losses can together while their distance to a ray shrinks at a given rate.

    The ray is v ∝ 1/r, on which all rₖLₖ are equal, P = I - vvᵀ takes what is off it, and H = PL is to vanish. The
    direction d = Jᵀw with w = λ + Pν solves  min over d of |d|²/2 - minₖ gₖ·d  where PJd = cH. Its dual is

        min over λ and ν of  |Jᵀ(λ + Pν)|²/2 - c νᵀH + δ|ν|²/2,  λ ≥ 0, Σλ = 1.

    Args:
        preference: r, one positive number a task; None: equal. Twice the preference means half the loss.
        rate: c, > 0: what share of the distance a step of length 1 is to remove. The authors' code has 0.5.

    Shapes:
        losses (K,), gram (K, K) → weights (K,), of either sign: a loss that is ahead of the others may rise.

    Scale:
        None: the constraint is on the losses, and the descent on their gradients.

    Cost:
        A quadratic programme by an interior-point method: about 4 ms at K = 2 and 8 at K = 40 on one CPU thread.

    Note:
        Reconstruction, for one ray and no other order than that of the losses themselves (A = I in the paper).
        Gradients that depend on each other, or are small while H isn't, leave the constraint without a sensible
        solution, so δ softens it: δ = 1e-4 mean |gₖ|² + c|H|/100, which bounds ν. The authors
        take one or a few projected-gradient steps in λ and ν instead, with a step size of 1e-5.
    """

    def __init__(self, preference: Sequence[float] | None = None, rate: float = 0.5) -> None:
        super().__init__(preference)
        if not rate > 0:
            raise ValueError(f"rate is how fast FERERO approaches its ray and must be positive, not {rate}")
        self.rate = rate

    def weights(self, gram: Tensor) -> Tensor:
        gram = as_double(gram.detach())
        losses = self.observed(gram[0])
        v = ray(self.shares(losses))
        off = torch.eye(len(v), dtype=v.dtype, device=v.device) - torch.outer(v, v)
        pull = self.rate * (losses - (v @ losses) * v)
        damping = DAMPING * gram.diagonal().mean() + pull.norm() / LARGEST
        damping = torch.where(damping > 0, damping, 1.0)
        system = off @ gram @ off / damping
        factor, _ = torch.linalg.cholesky_ex((system + system.T) / 2 + torch.eye(len(v)).to(v))
        # ν = (P G P + δ)⁻¹ P (cL - Gλ), put in, leaves a programme in λ alone.
        solved = torch.cholesky_solve(torch.cat([off @ gram, pull[:, None]], dim=1) / damping, factor)
        answer, offset = off @ solved[:, :-1], off @ solved[:, -1]
        matrix = gram - gram @ answer
        lam, self.converged = minimise_on_simplex((matrix + matrix.T) / 2, gram @ offset)
        return lam + offset - answer @ lam
