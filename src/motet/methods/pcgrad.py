"""PCGrad, gradient surgery: Yu et al., NeurIPS 2020, arXiv 2001.06782."""

import torch
from torch import Tensor

from motet.linalg import as_double
from motet.methods.base import GramMethod, register
from motet.solvers.threads import one_thread


@register("pcgrad", year=2020, cost="gram")
class PCGrad(GramMethod):
    r"""Take out of every gradient what conflicts with the others, one by one, and sum up.

    For every task i and every other task j in random order: if gᵢ·gⱼ < 0, gᵢ ← gᵢ - (gᵢ·gⱼ / |gⱼ|²) gⱼ, where
    gⱼ is the original gradient.

    Args:
        generator: What to draw the orders from. None makes an own one, seeded as torch was; its state is saved.

    Shapes:
        gram (…, K, K) → weights (…, K).

    Scale:
        All losses times c leave the weights as they are; a loss times c has about c times the say.

    Cost:
        K steps on a K×K matrix, for all tasks side by side: under one millisecond at K = 40 on one CPU thread.

    Note:
        The sum of the projected gradients, as in the paper and TorchJD. With more than two tasks the result may still
        conflict with some. Every task has an order of its own, in every matrix of a batch.
    """

    batched = True
    scale = 1.0

    def __init__(self, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.use_generator(generator)

    def weights(self, gram: Tensor) -> Tensor:
        assert self.generator is not None
        draw = torch.rand(gram.shape, generator=self.generator, device=self.generator.device)
        return surgery(gram, draw.argsort(-1).to(gram.device)).sum(-2)


@one_thread
def surgery(gram: Tensor, order: Tensor) -> Tensor:
    """Weights of every task's projected gradient: gram and order (…, K, K) → (…, K, K).

    Row i of order holds the tasks j in turn. All rows of all matrices take their turns side by side.
    """
    gram = as_double(gram.detach())
    tasks = gram.shape[-1]
    squares = gram.diagonal(dim1=-2, dim2=-1)
    # (j, k): gⱼ·gₖ / |gₖ|², so that what is taken out of a row needs no division.
    shares = (gram / torch.where(squares > 0, squares, 1.0).unsqueeze(-2)).view(-1, tasks)
    own = torch.eye(tasks, dtype=torch.bool, device=gram.device)
    products = shares.view_as(gram).masked_fill(own, torch.inf).view(-1, tasks)  # (i, k): the present gᵢ with gₖ
    order = order.to(gram.device).expand(gram.shape).reshape(-1, tasks)
    first = torch.arange(len(shares), device=gram.device) // tasks * tasks
    rows = (order + first.unsqueeze(1)).T.contiguous().unbind()
    taken = []
    for turn, row in zip(order.split(1, dim=1), rows, strict=True):
        inner = products.gather(1, turn).clamp_(max=0)
        products.addcmul_(inner, shares.index_select(0, row), value=-1)
        taken.append(inner)
    weights = own.to(gram) - torch.zeros_like(products).scatter_(1, order, torch.cat(taken, 1)).view_as(gram)
    return torch.where(gram.isfinite().flatten(-2).all(-1)[..., None, None], weights, torch.nan)
