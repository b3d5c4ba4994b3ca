"""Projection on the dual cone of the tasks' gradients: the directions that hurt no task."""

from torch import Tensor

from motet.solvers.complementarity import minimise_on_orthant, violation
from motet.solvers.threads import one_thread
from motet.solvers.unit_diagonal import lifted, unit_diagonal

TOLERANCE = 1e-6


@one_thread
def project_on_dual_cone(gram: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of the projections of Jᵀu on {d : Jd ≥ 0}, for many u at once.

    The projection is Jᵀw with the w that solves min wᵀGw over w ≥ u. With w = u + x this is
    x ≥ 0, G(u + x) ≥ 0, complementary. A row of zero norm keeps w = u.

    Shapes:
        gram (…, K, K), targets u (…, N, K) or (N, K) → weights (…, N, K), converged (…).

    Returns:
        The weights, and whether the optimality conditions of all N hold to 1e-6 of the largest term, with every
        gradient brought to unit length.
    """
    unit = unit_diagonal(gram)
    matrix, lift = lifted(unit.measured)
    norms = unit.norms.unsqueeze(-2)
    targets = targets.to(norms)
    linear = (targets * norms) @ unit.measured
    added = minimise_on_orthant(matrix, lift, linear)
    converged = (violation(matrix, lift, linear, added) <= TOLERANCE).all(-1)
    # u itself and not (norms·u)/norms: what needs no projection is returned to the last bit.
    return unit.finish(targets + added / norms, converged)
