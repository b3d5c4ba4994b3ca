"""PCGrad, gradient surgery: Yu et al., NeurIPS 2020, arXiv 2001.06782."""

import torch
from torch import Tensor

from motet.linalg import as_double
from motet.methods.base import GramMethod, register


@register("pcgrad", year=2020, cost="gram")
class PCGrad(GramMethod):
    r"""Take out of every gradient what conflicts with the others, one by one, and sum up.

    For every task i and every other task j in random order: if gᵢ·gⱼ < 0, gᵢ ← gᵢ - (gᵢ·gⱼ / |gⱼ|²) gⱼ, where
    gⱼ is the original gradient.

    Args:
        generator: What to draw the orders from. None makes an own one, seeded as torch was; its state is saved.

    Shapes:
        gram (K, K) → weights (K,).

    Scale:
        All losses times c leave the weights as they are; a loss times c has about c times the say.

    Cost:
        K steps on a K×K matrix, for all tasks side by side.

    Note:
        The sum of the projected gradients, as in the paper and TorchJD. With more than two tasks the result may still
        conflict with some. Every task has an order of its own.
    """

    scale = 1.0

    def __init__(self, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.use_generator(generator)

    def weights(self, gram: Tensor) -> Tensor:
        assert self.generator is not None
        draw = torch.rand(len(gram), len(gram), generator=self.generator, device=self.generator.device)
        return surgery(gram, draw.argsort(1).to(gram.device)).sum(0)


def surgery(gram: Tensor, order: Tensor) -> Tensor:
    """Weights of every task's projected gradient: gram (K, K), row i of order (K, K) the tasks j in turn → (K, K)."""
    gram = as_double(gram.detach())
    task = torch.arange(len(gram), device=gram.device)
    weights = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    products = gram.clone()  # (i, j): the present gᵢ with the original gⱼ
    squares = gram.diagonal()
    squares = torch.where(squares > 0, squares, 1.0)
    for j in order.T.unbind():
        inner = products[task, j].clamp(max=0).masked_fill(j == task, 0.0)
        removed = -inner / squares[j]
        weights[task, j] += removed
        products += removed[:, None] * gram[j]
    return weights
