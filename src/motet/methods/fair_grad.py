"""FairGrad, the α-fair direction: Ban & Ji, ICML 2024, arXiv 2402.15638."""

import math

from torch import Tensor

from motet.methods.base import GramMethod, register
from motet.solvers import fair_fixed_point


@register("fair-grad", year=2024, cost="gram")
class FairGrad(GramMethod):
    r"""Weights under which no task's progress is bought too dearly with another's.

    The direction d = Jᵀw maximises the α-fair utility Σₖ (gₖ·d)^(1-α) / (1-α) over a ball. Its
    optimality condition, with the progress gₖ·d = (Gw)ₖ, is

        G w = w^(-1/α),  w > 0.

    α = 1 is proportional fairness, which is Nash-MTL. α → ∞ tends to max-min, which is MGDA.

    Args:
        alpha: Fairness α, > 0. The paper uses 2 on all of its benchmarks.

    Shapes:
        gram (…, K, K) → weights (…, K).

    Scale:
        All losses times c give weights times c^(-2α/(1+α)): the direction stays, its length does not.

    Cost:
        Under one millisecond at K = 40 on one CPU thread, about two where there is no solution; ten times that for
        large α with norms far apart.

    Note:
        A Pareto-stationary point has no solution: the weights are then the best iterate, finite, and
        ``converged`` is False. A task with a zero gradient has weight 0.
    """

    batched = True
    by_products = True
    no_conflict = True

    def __init__(self, alpha: float = 2.0) -> None:
        super().__init__()
        if not 0 < alpha < math.inf:
            raise ValueError(f"alpha is the fairness of FairGrad and must be positive and finite, not {alpha}")
        self.alpha = alpha
        self.scale = -(alpha - 1) / (alpha + 1)

    def weights(self, gram: Tensor) -> Tensor:
        weights, self.converged = fair_fixed_point(gram, self.alpha)
        return weights
