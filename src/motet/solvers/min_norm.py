"""The shortest vector in the convex hull of the tasks' gradients."""

import torch
from torch import Tensor

from motet.solvers.complementarity import minimise_on_orthant, violation
from motet.solvers.threads import one_thread
from motet.solvers.unit_diagonal import lifted, unit_diagonal

TOLERANCE = 1e-6


@one_thread
def min_norm_point(gram: Tensor) -> tuple[Tensor, Tensor]:
    """min wᵀGw over w ≥ 0 with Σw = 1.

    At the optimum Gw ≥ wᵀGw, with equality where w > 0: so w is, up to its sum, the solution of
    min ½ vᵀ(G + s²11ᵀ)v - s²Σv over v ≥ 0 with any s. The added square keeps v bounded where the hull holds the origin.
    A row of zero norm is itself the shortest vector: such rows share the weight.

    Shapes:
        gram (…, K, K) → weights (…, K), converged (…).

    Returns:
        The weights, and whether the optimality conditions hold to 1e-6 with every gradient brought to
        unit length. Where the hull holds the origin, the weights are one of the ways to write it.
    """
    unit = unit_diagonal(gram)
    matrix, lift = lifted(unit.measured)
    share = unit.norms.amin(-1, keepdim=True) / unit.norms  # s is the smallest norm
    matrix = matrix + share.unsqueeze(-1) * share.unsqueeze(-2)
    linear = -share.unsqueeze(-2)
    solution = minimise_on_orthant(matrix, lift, linear)
    off = violation(matrix, lift, linear, solution).squeeze(-1)
    largest = solution.amax((-2, -1)).clamp(min=torch.finfo(solution.dtype).tiny)
    converged = off <= TOLERANCE * largest.clamp(max=1)  # v has no scale of its own
    weights = solution.squeeze(-2) * share
    weights = torch.where(unit.live.all(-1, keepdim=True), weights, (~unit.live).to(weights))
    return unit.finish(weights / weights.sum(-1, keepdim=True), converged)
