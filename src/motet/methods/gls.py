"""GLS, the geometric mean of the losses: Chennupati et al., CVPR Workshops 2019, arXiv 1904.08492."""

from torch import Tensor

from motet.methods.base import LossMethod, register


@register("gls", year=2019, cost="losses")
class GLS(LossMethod):
    r"""Descend (Πₖ Lₖ)^(1/K): its gradient has the weights w = (Πₖ Lₖ)^(1/K) / (K L).

    Shapes:
        losses (K,) → weights (K,).

    Scale:
        One loss times c makes the update longer by c^(1/K), all of them by c; its direction, that of SI, stays.

    Cost:
        None beyond the plain step.
    """

    scale = 1.0

    lower_bound = 0.0

    def weights(self, losses: Tensor) -> Tensor:
        losses = self.above_bound(losses)
        return losses.log().mean().exp() / (len(losses) * losses)
