"""Revised UW, learned uncertainty that never pays below zero: Liebel & Körner, 2018, arXiv 1805.06334."""

from torch import Tensor

from motet.linalg import as_double
from motet.methods.adam import adam_step
from motet.methods.base import LossMethod, register


@register("revised-uw", year=2018, cost="losses")
class RevisedUW(LossMethod):
    r"""Learn a variance σ² per task as UW does, with a price log(1 + σ²) that stays positive.

    The objective is Σₖ Lₖ/(2σₖ²) + log(1 + σₖ²), so w = 1/(2σ²). s = log σ² starts at 0 and takes one step of Adam a
    batch, inside the method, along σ²/(1 + σ²) - L/(2σ²). It settles where σ² = (L + √(L² + 8L))/4: w is 1/L
    for a large loss and grows as 1/√(2L) only for a small one.

    Args:
        lr: Learning rate of s, ≥ 0: that of UW here.

    Shapes:
        losses (K,) → weights (K,).

    Scale:
        The first weights are ½ whatever the losses.

    Cost:
        None beyond the plain step; four numbers of state a task.

    Note:
        The paper learns with the model's optimizer. A loss that stays at or below 0 lets s fall, and its weight
        grow, without bound.
    """

    scale = 1.0

    def __init__(self, lr: float = 0.025) -> None:
        super().__init__()
        if not lr >= 0:
            raise ValueError(f"lr is the learning rate of RevisedUW's log-variances and must not be negative, not {lr}")
        self.lr = lr

    def weights(self, losses: Tensor) -> Tensor:
        losses = as_double(losses.detach())
        log_variance = self.recall("log_variance", losses, 0.0)
        weights = (-log_variance).exp() / 2
        adam_step(self, "log_variance", log_variance.sigmoid() - weights * losses, self.lr)
        return weights
