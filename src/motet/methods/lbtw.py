"""LBTW, loss-balanced task weighting: Liu, Liang & Gitter, AAAI 2019."""

import torch
from torch import Tensor

from motet.methods.base import LossMethod, register


@register("lbtw", year=2019, cost="losses")
class LBTW(LossMethod):
    r"""Tasks that have made less progress count more: w = (L/L₀)^α, with L₀ the task's first loss.

    Args:
        alpha: α, ≥ 0. 0 is the plain sum; larger turns more towards the tasks that lag.
        period: Steps after which L₀ is taken anew, as the authors' code does with every epoch. None takes it once.

    Shapes:
        losses (K,) → weights (K,).

    Scale:
        Weights do not depend on the scale of any loss.

    Cost:
        None beyond the plain step; two numbers of state a task.

    Note:
        The authors' code also scales the weights to the sum K, which keeps the step's length as losses fall;
        α is a setting there, ½ is a choice here.
    """

    scale = 1.0

    lower_bound = 0.0

    def __init__(self, alpha: float = 0.5, period: int | None = None) -> None:
        super().__init__()
        if not alpha >= 0:
            raise ValueError(f"alpha is the exponent of LBTW and must not be negative, not {alpha}")
        if period is not None and period < 1:
            raise ValueError(f"period of LBTW is a number of steps and must be at least 1, or None, not {period}")
        self.alpha = alpha
        self.period = period

    def weights(self, losses: Tensor) -> Tensor:
        losses = self.above_bound(losses)
        first, seen = self.recall("first", losses, 0.0), self.recall("seen", losses, 0.0)
        starts = seen == 0 if self.period is None else seen % self.period == 0
        first = torch.where(starts, losses, first)
        self.remember("first", first)
        self.remember("seen", seen + 1)
        return (losses / first) ** self.alpha
