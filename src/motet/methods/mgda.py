"""MGDA, the multiple-gradient descent algorithm: Désidéri, C. R. Math. 2012; Sener & Koltun, arXiv 1810.04650."""

from torch import Tensor

from motet.methods.base import GramMethod, register
from motet.solvers import min_norm_point


@register("mgda", year=2012, cost="gram")
class MGDA(GramMethod):
    r"""The shortest vector in the convex hull of the gradients: min |Jᵀw|² over w ≥ 0, Σw = 1.

    It gains the same for every task with a positive weight, and at least that for the others; it is zero
    exactly at Pareto-stationary points.

    Shapes:
        gram (K, K) → weights (K,), summing to 1.

    Scale:
        All losses times c leave the weights as they are. A task with small gradients dominates; one with a zero
        gradient takes all the weight, and the update is zero.

    Cost:
        About one millisecond at K = 40 on one CPU thread.

    Note:
        Solved to optimality. TorchJD takes at most 100 Frank-Wolfe steps, which at K = 40 can end in a
        conflicting direction twice as long. The code of Sener & Koltun offers to divide gradients by their norm
        or loss first; this is the plain form.
    """

    scale = 1.0
    no_conflict = True

    def weights(self, gram: Tensor) -> Tensor:
        weights, self.converged = min_norm_point(gram)
        return weights
