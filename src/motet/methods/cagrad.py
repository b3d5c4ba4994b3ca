"""CAGrad, conflict-averse gradient descent: Liu et al., NeurIPS 2021, arXiv 2110.14048."""

import math

from torch import Tensor

from motet.methods.base import GramMethod, register
from motet.solvers import conflict_averse


@register("cagrad", year=2021, cost="gram")
class CAGrad(GramMethod):
    r"""Stay near the mean gradient g₀ and do the most for the task that gains least.

        max over d of minₖ gₖ·d  subject to  |d - g₀| ≤ c|g₀|,

    whose solution is d = g₀ + c|g₀|/|g_w| g_w with g_w = Jᵀω and ω on the simplex minimising g_w·g₀ + c|g₀||g_w|.

    Args:
        c: Radius of the ball, ≥ 0. 0 gives the mean; from 1 on no task loses.

    Shapes:
        gram (…, K, K) → weights 1/K + c|g₀|/|g_w| ω (…, K).

    Scale:
        All losses times c' leave the weights as they are.

    Cost:
        About two milliseconds at K = 40 on one CPU thread, three where gradients are linearly dependent.

    Note:
        The direction of the paper and of TorchJD. The authors' code divides it by 1 + c² and multiplies it by K.
        At a Pareto-stationary point with c large enough, g_w = 0 and the formula breaks down: TorchJD then returns
        zero, this the projection of g₀ on the dual cone, the shortest change after which no task loses. Tasks with
        a zero gradient are left out of the minimum.
    """

    batched = True
    by_products = True
    scale = 1.0

    def __init__(self, c: float = 0.4) -> None:
        super().__init__()
        if not 0 <= c < math.inf:
            raise ValueError(f"c is the radius of CAGrad's ball and must be finite and not negative, not {c}")
        self.c = c
        self.no_conflict = c >= 1

    def weights(self, gram: Tensor) -> Tensor:
        weights, self.converged = conflict_averse(gram, self.c)
        return weights
