"""Random weights of gradients: Lin et al., TMLR 2022, arXiv 2111.10603."""

import torch
from torch import Tensor

from motet.linalg import as_double
from motet.methods.base import GramMethod, register


@register("random", year=2022, cost="gram")
class Random(GramMethod):
    r"""New random weights of the trunk's gradients every step: w = softmax(ξ), ξ ~ N(0, 1).

    RLW's twin: heads learn unscaled, so that what differs from it is the heads alone.

    Args:
        generator: What to draw from. None makes an own one, seeded as torch was; its state is saved.

    Shapes:
        gram (K, K) → weights (K,), summing to 1; only its size is read.

    Scale:
        A loss times c has c times the say. The mean update is that of the plain sum over K.

    Cost:
        That of the plain step: the weights are known before any gradient.

    Note:
        The paper's random gradient weighting, RGW. TorchJD draws in the gradients' dtype, from torch's own generator.
    """

    scale = 1.0

    def __init__(self, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.use_generator(generator)

    def known_weights(self, losses: Tensor) -> Tensor:
        return self._draw(losses)

    def weights(self, gram: Tensor) -> Tensor:
        return self._draw(gram[0])

    def _draw(self, like: Tensor) -> Tensor:
        assert self.generator is not None
        draw = torch.randn(len(like), generator=self.generator, device=self.generator.device)
        return as_double(draw.to(like.device)).softmax(0)
