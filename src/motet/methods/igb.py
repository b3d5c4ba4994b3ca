"""IGB, improvable gap balancing: Dai, Fei & Lu, UAI 2023, arXiv 2307.15429."""

from collections.abc import Sequence

import torch
from torch import Tensor

from motet.methods.base import LossMethod, register
from motet.methods.warmup import shares, starting_level


@register("igb", year=2023, cost="losses")
class IGB(LossMethod):
    r"""Log-losses, weighted by how much there is left to gain: Σₖ λₖ log Lₖ, λ = K softmax((L - L*)⁺/L₀), w = λ/L.

    The level L₀ is a task's mean loss over its first ``warmup`` steps, in which λ = 1 as in SI.

    Args:
        target: L*, the loss that a task can reach: one number for all, or one a task. The paper takes 0.
        warmup: Steps of a task before its level is fixed.

    Shapes:
        losses (K,) → weights (K,).

    Scale:
        A loss times c, from the start and with its target, leaves the update as it is.

    Cost:
        None beyond the plain step; two numbers of state a task.

    Note:
        This is the paper's IGBv1. IGBv2 learns λ by deep reinforcement learning and is not here. The authors' code
        takes L₀ from the mean of one early epoch, which a method that sees only steps does not know of.
    """

    scale = 0.0

    lower_bound = 0.0

    def __init__(self, target: float | Sequence[float] = 0.0, warmup: int = 100) -> None:
        super().__init__()
        self._target = torch.as_tensor(target, dtype=torch.float64)
        if self._target.dim() > 1 or not (self._target.isfinite() & (self._target >= 0)).all():
            raise ValueError(f"target of IGB is a loss, or one a task, and must not be negative, not {target}")
        if warmup < 1:
            raise ValueError(f"warmup of IGB is a number of steps and must be at least 1, not {warmup}")
        self.target = target
        self.warmup = warmup
        self.symmetric = self._target.dim() == 0

    def weights(self, losses: Tensor) -> Tensor:
        losses = self.above_bound(losses)
        target = self.chosen(self._target, losses) if self._target.dim() else self._target.to(losses)
        level, ready = starting_level(self, losses, self.warmup)
        return shares((losses - target).clamp(min=0) / level, ready) / losses
