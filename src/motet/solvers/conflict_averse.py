"""The direction near the mean gradient that does most for the task that gains least (CAGrad)."""

import torch
from torch import Tensor

from motet.solvers.complementarity import minimise_on_orthant, violation
from motet.solvers.threads import one_thread
from motet.solvers.unit_diagonal import ROUNDING, unit_diagonal

TOLERANCE = 1e-6
STEPS = 50


@one_thread
def conflict_averse(gram: Tensor, c: float) -> tuple[Tensor, Tensor]:
    """max over d of minₖ gₖ·d subject to |d - g₀| ≤ c|g₀|, with g₀ the mean gradient.

    The least progress t is the unknown: x(t) ≥ 0 with G(1/K + x) ≥ t, complementary, gives the shortest
    change Jᵀx that lets every task reach t, and its length is a convex, increasing function of t. Newton's method
    from above finds the t at which it is c|g₀|.

    At a Pareto-stationary point no direction has t > 0. If c is large enough to reach t = 0 there, the
    answer is the shortest change that does so, the projection of g₀ on the dual cone.

    Shapes:
        gram (K, K) → weights (K,), converged ().

    Returns:
        The weights 1/K + x, and whether the optimality conditions and the length hold to 1e-6. Rows of zero
        norm are left out of the minimum and have weight 1/K.

    Cost:
        Three to eight quadratic programmes; the host looks once for each.
    """
    unit = unit_diagonal(gram)
    mean = unit.norms * unit.live / len(unit.norms)
    progress = unit.cosines @ mean
    radius = c * (mean @ progress).clamp(min=0).sqrt()
    share = unit.live / unit.norms
    # Already the change that suits a single task best takes it no further than this.
    target = torch.where(unit.live, unit.norms * (progress + radius), torch.inf).amin()
    target = torch.where(unit.live.any(), target, 0.0)
    support = None
    for _ in range(STEPS):
        linear = (progress - target * share).unsqueeze(0)
        x = minimise_on_orthant(unit.cosines, linear, support)
        support = x > 0
        length = (x[0] @ unit.cosines @ x[0]).clamp(min=0).sqrt()
        excess = length - radius
        if excess.abs() <= 1e-9 * radius or not length > 0:
            break
        target = target - excess * length / (share @ x[0])
    reached = excess.abs() <= TOLERANCE * radius
    # The change is lost in the rounding of vectors that cancel: 0 is in the hull and t cannot exceed 0.
    stationary = (target > 0) & (length**2 <= 2 * ROUNDING * (x[0] @ x[0]))
    if stationary:
        linear = progress.unsqueeze(0)
        x = minimise_on_orthant(unit.cosines, linear)
    x = torch.where(radius > 0, x, 0.0)
    converged = (violation(unit.cosines, linear, x) <= TOLERANCE).all() & (reached | stationary)
    return unit.finish(1 / len(unit.norms) + x[0] / unit.norms, converged | ~(radius > 0))
