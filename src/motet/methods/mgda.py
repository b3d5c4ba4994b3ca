"""MGDA, the multiple-gradient descent algorithm: Désidéri, C. R. Math. 2012; Sener & Koltun, arXiv 1810.04650."""

from typing import Literal, get_args

import torch
from torch import Tensor

from motet.linalg import as_double
from motet.methods.base import GramMethod, register
from motet.solvers import min_norm_point

Normalise = Literal["none", "l2", "loss", "loss+"]


@register("mgda", year=2012, cost="gram")
class MGDA(GramMethod):
    r"""The shortest vector in the convex hull of the gradients: min |Σ wₖgₖ/sₖ|² over w ≥ 0, Σw = 1, with sₖ = 1.

    It gains the same for every task with a positive weight, and at least that for the others; it is zero
    exactly at Pareto-stationary points.

    Args:
        normalise: What the gradients are divided by before the shortest vector is sought: "none", sₖ = 1; "l2", their
            norms; "loss", their losses; "loss+", both. The weights then multiply the gradients as they are.

    Shapes:
        gram (…, K, K) → weights (…, K), summing to 1.

    Scale:
        All losses times c leave the weights as they are. Without normalisation a task with small gradients
        dominates. A task with a zero gradient takes all the weight, and the update is zero.

    Cost:
        About one millisecond at K = 40 on one CPU thread, two where gradients are linearly dependent.

    Note:
        Solved to optimality. TorchJD takes at most 100 Frank-Wolfe steps, which at K = 40 can end in a
        conflicting direction twice as long. The normalisations are those of the code of Sener & Koltun, in which
        they decide the weights alone: the update is Σ wₖgₖ and not Σ wₖgₖ/sₖ, so that it may go against a task, and
        need not vanish at Pareto-stationary points. Their default is "none", their runs use "loss+" too.
    """

    batched = True
    by_products = True
    scale = 1.0

    def __init__(self, normalise: Normalise = "none") -> None:
        super().__init__()
        if normalise not in get_args(Normalise):
            raise ValueError(f"normalise must be one of {', '.join(get_args(Normalise))} for MGDA, not {normalise!r}")
        self.normalise = normalise
        self.no_conflict = normalise == "none"
        if normalise.startswith("loss"):
            self.lower_bound = 0.0

    def weights(self, gram: Tensor) -> Tensor:
        if self.normalise != "none":
            gram = as_double(gram.detach())
            sizes = self._sizes(gram.diagonal(dim1=-2, dim2=-1))
            gram = gram / sizes.unsqueeze(-1) / sizes.unsqueeze(-2)
        weights, self.converged = min_norm_point(gram)
        return weights

    def _sizes(self, squares: Tensor) -> Tensor:
        """What the gradients are divided by: squared norms (…, K) → (…, K)."""
        sizes = torch.ones_like(squares)
        if self.normalise != "loss":
            sizes = torch.where(squares > 0, squares.clamp(min=0).sqrt(), 1.0)
        if self.normalise != "l2":
            sizes = sizes * self.above_bound(self.observed(squares.flatten(0, -2)[0] if squares.dim() > 1 else squares))
        return sizes
