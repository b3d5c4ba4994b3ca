"""Plain sum, linear scalarization with equal weights: Kurin et al., NeurIPS 2022, arXiv 2201.04122."""

import torch
from torch import Tensor

from motet.methods.base import LossMethod, register


@register("sum", year=2022, cost="losses")
class Sum(LossMethod):
    r"""Every loss counts once: w = 1.

    The baseline that a method must beat. With tuned regularisation and learning rate it often wins.

    Shapes:
        losses (K,) → weights (K,).

    Scale:
        A loss times c has c times the say.

    Cost:
        None beyond the plain step.
    """

    scale = 1.0

    def weights(self, losses: Tensor) -> Tensor:
        return torch.ones_like(losses)
