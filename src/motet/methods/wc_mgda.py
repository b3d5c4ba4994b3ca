"""WC-MGDA, weighted Chebyshev MGDA: Momma, Dong & Liu, ICML 2022."""

from collections.abc import Sequence

import torch
from torch import Tensor

from motet.linalg import as_double
from motet.methods.base import register
from motet.methods.preferred import PreferredMethod
from motet.solvers.simplex import minimise_on_simplex


@register("wc-mgda", year=2022, cost="gram")
class WCMGDA(PreferredMethod):
    r"""Bring down the largest rₖLₖ, and balance that against the shortest vector of MGDA, on the gradients rₖgₖ.

        max over α of  Σₖ αₖrₖLₖ / maxⱼ rⱼLⱼ  -  u/2 |Σₖ αₖrₖgₖ|² / maxⱼ |rⱼgⱼ|²,  α ≥ 0, Σα = 1,  then  w = r α K.

    The second term is zero at a Pareto-stationary point only, and there the first wants all rₖLₖ with αₖ > 0 to
    be the largest: what neither term would change is a solution of min maxₖ rₖLₖ.

    Args:
        preference: r, one positive number a task; None: equal. Twice the preference means half the loss.
        u: Weight of MGDA's term, > 0. Towards 0 the task with the largest rₖLₖ alone counts, large u is MGDA.

    Shapes:
        losses (K,), gram (K, K) → weights (K,). With equal preference they sum to 1.

    Scale:
        All losses times c leave the weights as they are.

    Cost:
        A quadratic programme by an interior-point method: about 4 ms at K = 2 and 8 at K = 40 on one CPU thread.

    Note:
        Reconstruction. In the authors' programme the length is not squared, which makes it one of second order cones;
        for every u of the one there is a u of the other with the same α. Theirs choose u anew in every step;
        what it is measured in and its default of 1 are this implementation's.
    """

    scale = 1.0

    def __init__(self, preference: Sequence[float] | None = None, u: float = 1.0) -> None:
        super().__init__(preference)
        if not u > 0:
            raise ValueError(f"u is the weight of the shortest vector in WC-MGDA and must be positive, not {u}")
        self.u = u

    def weights(self, gram: Tensor) -> Tensor:
        gram = as_double(gram.detach())
        losses = self.observed(gram[0])
        r = self.shares(losses)
        weighted = r * (losses / losses.amax())
        matrix = gram * r * r[:, None]
        longest = matrix.diagonal().amax()
        matrix = self.u * matrix / torch.where(longest > 0, longest, 1.0)
        alpha, self.converged = minimise_on_simplex(matrix, -weighted / weighted.amax())
        return len(r) * r * alpha
