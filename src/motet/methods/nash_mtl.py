"""Nash-MTL, multi-task learning as a bargaining game: Navon et al., ICML 2022, arXiv 2202.01017."""

from torch import Tensor

from motet.linalg import as_double
from motet.methods.base import GramMethod, register
from motet.solvers import fair_fixed_point


@register("nash-mtl", year=2022, cost="gram")
class NashMTL(GramMethod):
    r"""The Nash bargaining solution: the direction in a ball that maximises Πₖ gₖ·d.

    Its weights solve G w = 1/w. They do not depend on the scale of any loss: the larger a gradient, the smaller
    its weight, and |Jᵀw| = √K always.

    Args:
        max_norm: Longest update, > 0. The authors and TorchJD cut it to 1; None leaves the equation's own √K.

    Shapes:
        gram (…, K, K) → weights (…, K).

    Scale:
        A loss times c has its weight over c: direction and length of the update stay.

    Cost:
        Under one millisecond at K = 40 on one CPU thread, about two where there is no solution.

    Note:
        The authors and TorchJD solve a sequence of convex programmes, which at K = 40 may stop far from the solution.
        A Pareto-stationary point has none: the weights are then finite and ``converged`` is False. A task with a
        zero gradient has weight 0.
    """

    batched = True
    by_products = True
    scale = 0.0
    no_conflict = True

    def __init__(self, max_norm: float | None = None) -> None:
        super().__init__()
        if max_norm is not None and not max_norm > 0:
            raise ValueError(f"max_norm is the longest update of Nash-MTL and must be positive, not {max_norm}")
        self.max_norm = max_norm

    def weights(self, gram: Tensor) -> Tensor:
        weights, self.converged = fair_fixed_point(gram, 1.0)
        if self.max_norm is None:
            return weights
        gram = as_double(gram.detach())
        length = ((weights.unsqueeze(-2) @ gram).squeeze(-2) * weights).sum(-1, keepdim=True).clamp(min=0).sqrt()
        return weights * (length.reciprocal() * self.max_norm).clamp(max=1)
