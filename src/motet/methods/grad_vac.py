"""GradVac, gradient vaccine: Wang et al., ICLR 2021, arXiv 2010.05874."""

import torch
from torch import Tensor

from motet.linalg import as_double
from motet.methods.base import GramMethod, register
from motet.solvers.threads import one_thread
from motet.solvers.unit_diagonal import ROUNDING


@register("grad-vac", year=2021, cost="gram")
class GradVac(GramMethod):
    r"""Turn every gradient towards those that it usually agrees with more, one by one, and sum up.

    For every task i and every other task j in random order, with φ the cosine between the present gᵢ and the original
    gⱼ, and φ̂ᵢⱼ its moving average over the steps: if φ < φ̂, gᵢ is given the cosine φ̂ by

        gᵢ ← gᵢ + |gᵢ| (φ̂√(1-φ²) - φ√(1-φ̂²)) / (|gⱼ|√(1-φ̂²)) gⱼ;  then  φ̂ ← (1-β)φ̂ + βφ.

    Args:
        beta: β in [0, 1]. 0.01 is the paper's; LibMTL and TorchJD have 0.5. 0 is PCGrad.
        generator: What to draw the orders from. None makes an own one, seeded as torch was; its state is saved.

    Shapes:
        gram (…, K, K) → weights (…, K): per layer with targets of its own for each, all in the same order.

    Scale:
        All losses times c leave the weights as they are; a loss times c has about c times the say.

    Cost:
        K steps on a K×K matrix, for all tasks and layers side by side; two to three milliseconds at K = 40 on one CPU
        thread. K² numbers of state a layer.

    Note:
        Targets start at 0, so the first step is PCGrad's. The average takes in every φ, as in TorchJD; LibMTL's only
        those below their target. Cosines within 1.2e-7 of the target are left alone: float32 gradients leave that much
        uncertain. A pair without a cosine, as with a zero gradient, is passed over and keeps its target.
    """

    scale = 1.0
    batched = True

    def __init__(self, beta: float = 0.01, generator: torch.Generator | None = None) -> None:
        super().__init__()
        if not 0 <= beta <= 1:
            raise ValueError(f"beta of GradVac is the share of the newest cosine and must be in [0, 1], not {beta}")
        self.beta = beta
        self.use_generator(generator)

    def weights(self, gram: Tensor) -> Tensor:
        assert self.generator is not None
        gram = as_double(gram.detach())
        tasks = gram.shape[-1]
        draw = torch.rand(tasks, tasks, generator=self.generator, device=self.generator.device)
        layers = gram.reshape(-1, tasks, tasks)
        with self.on_pairs("target", tasks):
            targets = self.recall("target", layers.new_zeros(tasks * tasks, len(layers)), 0.0)
            shaped = targets.T.reshape(layers.shape)
            weights, shaped = vaccinate(layers, shaped, self.beta, draw.argsort(1).to(gram.device))
            self.remember("target", shaped.reshape(len(layers), -1).T)
        return weights.sum(1).reshape(gram.shape[:-1])


@one_thread
def vaccinate(gram: Tensor, targets: Tensor, beta: float, order: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of every task's turned gradient, and the new targets.

    Shapes:
        gram (N, K, K), targets (N, K, K), row i of order (K, K) the tasks j in turn → both (N, K, K).
    """
    task = torch.arange(gram.shape[-1], device=gram.device)
    squares = gram.diagonal(dim1=1, dim2=2)
    live = (squares >= torch.finfo(gram.dtype).tiny) & squares.isfinite()
    norms = torch.where(live, squares, 1.0).sqrt()
    both = live[:, :, None] & live[:, None, :]
    # All in multiples of unit gradients: row i starts as gᵢ/|gᵢ|, whatever the tasks' scales.
    unit = torch.where(both, gram / norms[:, :, None] / norms[:, None, :], 0.0).clamp(-1, 1)
    counts = both & (task[:, None] != task)
    places = order.expand_as(gram)
    wanted = targets.gather(2, places)
    tangents = (wanted / (1 - wanted**2).clamp(min=2 * ROUNDING).sqrt()).unbind(2)
    thresholds = torch.where(counts.gather(2, places), wanted - ROUNDING, -torch.inf).unbind(2)
    products, squared = unit, torch.ones_like(squares)  # the present gᵢ with the original gⱼ, and with itself
    seen, added = [], []
    for j, place, tangent, threshold in zip(order.T.unbind(), places.split(1, 2), tangents, thresholds, strict=True):
        inner = products.gather(2, place).squeeze(2)
        cosine = inner * squared.clamp(min=ROUNDING).rsqrt()  # towards 0 for what is left of a gradient taken away
        across = torch.addcmul(squared, inner, inner, value=-1).clamp_(min=0).sqrt_()
        share = torch.where(cosine < threshold, torch.addcmul(-inner, tangent, across), 0.0)
        products = torch.addcmul(products, share.unsqueeze(2), unit.index_select(1, j))
        squared = torch.addcmul(squared, share, torch.add(share, inner, alpha=2))
        seen.append(cosine)
        added.append(share)
    blank = torch.zeros_like(gram)
    cosines, shares = (blank.scatter(2, places, torch.stack(parts, 2)) for parts in (seen, added))
    weights = torch.where(task[:, None] == task, 1.0, norms[:, :, None] * shares / norms[:, None, :])
    return weights, torch.where(counts, targets + beta * (cosines - targets), targets)
