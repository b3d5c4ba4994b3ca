"""LDC-MTL, loss discrepancy control: Xiao et al., 2025, arXiv 2502.08585."""

import torch
from torch import Tensor

from motet.methods.adam import adam_step
from motet.methods.base import LossMethod, register


@register("ldc-mtl", year=2025, cost="losses")
class LDCMTL(LossMethod):
    r"""Learned weights, and a penalty on the differences between the weighted losses.

    With ℓₖ = Lₖ minⱼL⁰ⱼ / L⁰ₖ, which are equal at a task's first step, σ = softmax(z) and uₖ = σₖℓₖ, model and z
    descend the same objective, one step each a batch:

        Σₖ uₖ + λ Σₖ |uₖ - uₖ₊₁|,  so  w = σ (1 + λ (sₖ - sₖ₋₁)) ℓ/L,  sₖ = sign(uₖ - uₖ₊₁),  s₀ = s_K = 0.

    The bilevel problem behind it controls the differences (upper level) at a minimum of the weighted sum (lower
    level).

    Args:
        lam: λ, ≥ 0: that of the authors' runs on NYUv2. Weights can be negative above ½.
        lr: Learning rate of z, by Adam, ≥ 0.

    Shapes:
        losses (K,) → weights (K,). The tasks' order counts for K > 2: only neighbours are compared.

    Scale:
        A loss times c, from the start, has the same say as before in direction; all times c make the update longer
        by c.

    Cost:
        None beyond the plain step; five numbers of state a task.

    Note:
        Reconstruction: the authors' router is a layer on the features, and gives σ from the batch; a method sees no
        features, so that z is one number a task here. lr belongs to it and has no counterpart. As in
        their code, the lower level's optimal value is left out of the objective, so that z slowly turns to the tasks
        of small ℓ; how fast depends on lr.
    """

    scale = 1.0

    lower_bound = 0.0

    symmetric = False

    def __init__(self, lam: float = 0.05, lr: float = 1e-3) -> None:
        super().__init__()
        if not (lam >= 0 and lr >= 0):
            raise ValueError(f"lam and lr of LDC-MTL must not be negative, not {lam} and {lr}")
        self.lam = lam
        self.lr = lr

    def weights(self, losses: Tensor) -> Tensor:
        losses = self.above_bound(losses)
        first = self.recall("first", losses, 0.0)
        first = torch.where(first > 0, first, losses)
        self.remember("first", first)
        # ℓ without its common unit minⱼL⁰ⱼ: exactly 1 in the first step, so that the signs are 0, not rounding errors'.
        scaled = losses / first
        sigma = self.recall("logits", losses, 0.0).softmax(0)
        sign = torch.sign(-(sigma * scaled).diff())
        factor = 1 + self.lam * (torch.cat([sign, sign.new_zeros(1)]) - torch.cat([sign.new_zeros(1), sign]))
        slope = factor * scaled
        adam_step(self, "logits", sigma * (slope - sigma @ slope), self.lr)
        return sigma * factor * (first.amin() / first)
