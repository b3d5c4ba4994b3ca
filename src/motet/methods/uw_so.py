"""UW-SO, uncertainty weights in closed form: Kirchdorfer et al., 2024, arXiv 2408.07985."""

import torch
from torch import Tensor

from motet.methods.base import LossMethod, register


@register("uw-so", year=2024, cost="losses")
class UWSO(LossMethod):
    r"""What UW's weights would settle at, 1/L, through a softmax: w = softmax(1/(T L)).

    T → ∞ weights all tasks alike, T → 0 follows the task of the smallest loss alone.

    Args:
        temperature: T, > 0. The paper tunes it for each data set; 1 is no recommendation. 1/T is in units of the
            losses.

    Shapes:
        losses (K,) → weights (K,), summing to 1.

    Scale:
        No law: all losses times c act as T times c.

    Cost:
        None beyond the plain step.

    Note:
        A loss well below 1/T takes all the weight, so losses that end at very different heights need a T to match.
    """

    lower_bound = 0.0

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature of UW-SO must be positive, not {temperature}")
        self.temperature = temperature

    def weights(self, losses: Tensor) -> Tensor:
        logits = 1 / (self.temperature * self.above_bound(losses))
        # A softmax of infinities is no number; of equal largest numbers it is even.
        return logits.clamp(max=torch.finfo(logits.dtype).max).softmax(0)
