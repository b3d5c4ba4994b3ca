"""The shortest vector in the convex hull of the tasks' gradients."""

import torch
from torch import Tensor

from motet.solvers.complementarity import minimise_on_orthant, violation
from motet.solvers.threads import one_thread
from motet.solvers.unit_diagonal import unit_diagonal

TOLERANCE = 1e-6


@one_thread
def min_norm_point(gram: Tensor) -> tuple[Tensor, Tensor]:
    """min wᵀGw over w ≥ 0 with Σw = 1.

    At the optimum Gw ≥ wᵀGw, with equality where w > 0: so w is, up to its sum, the solution of
    min ½ vᵀGv - Σv over v ≥ 0. A row of zero norm is itself the shortest vector: such rows share the weight.

    Shapes:
        gram (K, K) → weights (K,), converged ().

    Returns:
        The weights, and whether the optimality conditions hold to 1e-6 with every gradient brought to
        unit length. Where the hull holds the origin, the weights are one of the ways to write it.
    """
    unit = unit_diagonal(gram)
    linear = -(unit.norms.min() / unit.norms).unsqueeze(0)
    solution = minimise_on_orthant(unit.cosines, linear)
    converged = (violation(unit.cosines, linear, solution) <= TOLERANCE).all()
    weights = solution[0] * (unit.norms.min() / unit.norms)
    weights = torch.where(unit.live.all(), weights, (~unit.live).to(weights))
    return unit.finish(weights / weights.sum(), converged)
