"""TCH, Tchebycheff scalarization of log-losses: baseline of Lin et al., ICML 2024, arXiv 2402.19078."""

import torch
from torch import Tensor

from motet.methods.base import LossMethod, register
from motet.methods.warmup import starting_level


@register("tch", year=2024, cost="losses")
class TCH(LossMethod):
    r"""Follow only the task that is worst off against its own starting level: K maxₖ log(Lₖ/nₖ).

    w = K/L for that task and 0 for the others; tasks that are equally bad share. The level n is a task's mean loss
    over its first ``warmup`` steps, in which it counts as in SI, w = 1/L.

    Args:
        warmup: Steps of a task before its level is fixed: that of `STCH`.

    Shapes:
        losses (K,) → weights (K,).

    Scale:
        A loss times c, from the start, leaves the update as it is.

    Cost:
        None beyond the plain step; two numbers of state a task.

    Note:
        This is STCH with µ → 0. The update jumps from task to task, which is what STCH smooths.
    """

    scale = 0.0

    lower_bound = 0.0

    def __init__(self, warmup: int = 100) -> None:
        super().__init__()
        if warmup < 1:
            raise ValueError(f"warmup of TCH is a number of steps and must be at least 1, not {warmup}")
        self.warmup = warmup

    def weights(self, losses: Tensor) -> Tensor:
        losses = self.above_bound(losses)
        level, ready = starting_level(self, losses, self.warmup)
        ratio = (losses / level).where(ready, 0.0)
        worst = (ratio == ratio.amax()).to(losses)
        return torch.where(ready, ready.sum() * worst / worst.sum(), 1.0) / losses
