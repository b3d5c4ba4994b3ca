"""RLW, random loss weighting: Lin et al., TMLR 2022, arXiv 2111.10603."""

import torch
from torch import Tensor

from motet.linalg import as_double
from motet.methods.base import LossMethod, register


@register("rlw", year=2022, cost="losses")
class RLW(LossMethod):
    r"""New random weights every step: w = softmax(ξ), ξ ~ N(0, 1).

    A litmus test: where it does as well as a method, that method's weights do not matter.

    Args:
        generator: What to draw from. None makes an own one, seeded as torch was; its state is saved.

    Shapes:
        losses (K,) → weights (K,), summing to 1.

    Scale:
        A loss times c has c times the say. The mean update is that of the plain sum over K.

    Cost:
        None beyond the plain step.
    """

    scale = 1.0

    def __init__(self, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.use_generator(generator)

    def weights(self, losses: Tensor) -> Tensor:
        assert self.generator is not None
        draw = torch.randn(len(losses), generator=self.generator, device=self.generator.device)
        return as_double(draw.to(losses.device)).softmax(0)
