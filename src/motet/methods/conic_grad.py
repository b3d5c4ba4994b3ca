"""ConicGrad, the best update within a cone: Hassanpour et al., 2025, arXiv 2502.00217."""

import torch
from torch import Tensor

from motet.linalg import as_double
from motet.methods.base import GramMethod, register
from motet.solvers import min_norm_point, project_on_dual_cone
from motet.solvers.unit_diagonal import ROUNDING

_STEPS = 60
_TOLERANCE = 1e-8
_LEAST = 1e-6
"""Of the mean gradient's squared length: what a shorter direction has left is rounding."""


@register("conic-grad", year=2025, cost="gram")
class ConicGrad(GramMethod):
    r"""Do the most for the task that gains least, at no more than an angle from the mean gradient g₀.

        max over d of minₖ gₖ·d  subject to  cos(d, g₀) ≥ c,  |d| = |g₀|.

    Args:
        c: Cosine of the cone's half-angle, above 0 and up to 1. 1 gives the mean, small values MGDA's direction.

    Shapes:
        gram (K, K) → weights (K,).

    Scale:
        All losses times c leave the weights as they are.

    Cost:
        One quadratic programme of K×K where MGDA's direction is in the cone, else about ten; the host looks at each.

    Note:
        Reconstruction. The cone about g₀, the max-min and a length apart from the direction are the paper's; the
        default of c and |d| = |g₀| are chosen here. The paper has a closed form for given multipliers; here the problem
        is solved: the shortest vectors of the hull of all g₀ + λgₖ, which are CAGrad's directions, turn away from g₀
        steadily as λ grows, up to MGDA's, and the one on the cone is looked for. At a Pareto-stationary point no
        direction helps all tasks: the answer is then one that does least harm for what it gains along g₀. With a mean
        gradient of zero there is no cone, and no update. Tasks with a zero gradient are left out.
    """

    scale = 1.0

    def __init__(self, c: float = 0.25) -> None:
        super().__init__()
        if not 0 < c <= 1:
            raise ValueError(f"c is the cosine of ConicGrad's half-angle and must be above 0 and at most 1, not {c}")
        self.c = c

    def weights(self, gram: Tensor) -> Tensor:
        gram = as_double(gram.detach())
        weights, self.converged = _in_cone(gram, self.c)
        size, squared = gram.mean().clamp(min=0), weights @ gram @ weights
        return weights * (size / squared.clamp(min=torch.finfo(gram.dtype).tiny)).sqrt()


def shortest(gram: Tensor) -> Tensor:
    """Weights of the shortest vector in the hull of the gradients that are not zero: (K, K) → (K,).

    All are zero where that vector is zero to rounding, at a Pareto-stationary point.
    """
    live = gram.diagonal().nonzero().squeeze(1)
    weights = torch.zeros_like(gram[0])
    if len(live) > 0:
        part = gram[live][:, live]
        found, _ = min_norm_point(part)
        there = found @ part @ found > 2 * ROUNDING * (found**2 @ part.diagonal())
        weights[live] = torch.where(there, found, 0.0)
    return weights


def _in_cone(gram: Tensor, c: float) -> tuple[Tensor, Tensor | bool]:
    """Weights of the best direction in the cone, of any length, and whether it is the best to 1e-6."""
    mean = torch.full_like(gram[0], 1 / len(gram))
    progress, size = gram @ mean, gram.mean()
    rounding = 2 * ROUNDING * (mean**2 @ gram.diagonal())
    if c == 1 or not size > rounding:
        return torch.where(size <= rounding, 0.0, mean), True
    live = gram.diagonal().nonzero().squeeze(1)
    part, gains = gram[live][:, live], progress[live]

    def above(weights: Tensor) -> float:
        """By how much the cosine with g₀ exceeds c; -1 for what is left of vectors that cancel."""
        squared = weights @ gram @ weights
        return float(torch.where(squared > _LEAST * size, (weights @ progress) / (squared * size).sqrt() - c, -1.0))

    farthest = shortest(gram)
    squared = farthest @ gram @ farthest
    if stationary := not squared > 0:
        farthest, _ = project_on_dual_cone(gram, mean.unsqueeze(0))
        farthest = farthest[0]
    under = above(farthest)
    if under >= 0:
        return farthest, True
    # At 0 the direction is g₀ and at 1 MGDA's; halfway both have the same say.
    scale = torch.ones_like(size) if stationary else (size / squared).sqrt()
    low, high, over, stays = 0.0, 1.0, 1 - c, 0
    weights, excess = mean, over
    for _ in range(_STEPS):
        # False position; halving the value of an end that stays keeps it from creeping (Illinois).
        middle = low + (high - low) * over / (over - under)
        turn = middle * scale
        hull = (1 - middle) ** 2 * size + (1 - middle) * turn * (gains + gains[:, None]) + turn**2 * part
        found, _ = min_norm_point(hull)
        trial = (1 - middle) * mean
        trial[live] += turn * found
        value = above(trial)
        if value > -_TOLERANCE:
            weights, excess = trial, value
        if value > 0:
            low, over = middle, value
            under, stays = (under / 2 if stays > 0 else under), 1
        else:
            high, under = middle, value
            over, stays = (over / 2 if stays < 0 else over), -1
        if abs(value) <= _TOLERANCE or high - low <= _TOLERANCE:
            break
    return weights, excess < 1e-6 or stationary
