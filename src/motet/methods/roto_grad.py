"""RotoGrad, gradient homogenisation: Javaloy & Valera, ICLR 2022, arXiv 2103.02631."""

import torch
from torch import Tensor

from motet.linalg import as_double
from motet.methods.base import GramMethod, register


@register("roto-grad", year=2022, cost="gram")
class RotoGrad(GramMethod):
    r"""Bring all gradients to a common length, set by the tasks that have converged least (RotoGrad's scaling).

    With the norms of a task's first gradient |gₖ⁰|

        αₖ = (|gₖ|/|gₖ⁰|) / Σⱼ (|gⱼ|/|gⱼ⁰|),  C = Σₖ αₖ|gₖ|,  d = Σₖ C gₖ/|gₖ|.

    Args:
        burn_in: Number of steps after which a task's reference |gₖ⁰| is taken anew; 0 for never. The authors' code
            has 20.

    Shapes:
        gram (K, K) → weights C/|gₖ| (K,).

    Scale:
        All losses times c, from the start, leave the weights as they are.

    Cost:
        Nothing beyond the diagonal of the Gram matrix; two numbers of state a task.

    Note:
        The norms only, without RotoGrad's rotations: these are modules between trunk and heads, one learned rotation
        a task, and no part of a method. The paper's gradients are those at the shared representation, which is the
        features route; here any route will do. Tasks with a zero gradient have weight 0 and no part in C.
    """

    scale = 1.0

    def __init__(self, burn_in: int = 0) -> None:
        super().__init__()
        if burn_in < 0:
            raise ValueError(f"burn_in is a number of steps of RotoGrad and must not be negative, not {burn_in}")
        self.burn_in = burn_in

    def weights(self, gram: Tensor) -> Tensor:
        norms = as_double(gram.detach()).diagonal().clamp(min=0).sqrt()
        first, steps = self.recall("first", norms, 0.0), self.recall("steps", norms, 0.0)
        live = norms > 0
        renewed = (first == 0) | ((steps == self.burn_in) if self.burn_in else torch.zeros_like(live))
        first = torch.where(renewed & live & norms.isfinite(), norms, first)
        self.remember("first", first)
        self.remember("steps", torch.where(live & norms.isfinite(), steps + 1, steps))
        left = torch.where(live, norms / torch.where(first > 0, first, 1.0), 0.0)
        length = (left @ norms) / torch.where(left.sum() > 0, left.sum(), 1.0)
        return torch.where(live, length / torch.where(live, norms, 1.0), 0.0)
