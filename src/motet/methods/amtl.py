"""AMTL, achievement-based multi-task loss: Yun & Cho, ICCV 2023."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from motet.methods.base import register
from motet.methods.reported import ReportedMethod


@register("amtl", year=2023, cost="losses")
class AMTL(ReportedMethod):
    r"""A geometric mean of the losses, in which tasks far from their single-task accuracy count more.

    The loss is G = Πₖ Lₖ^vₖ, so w = v G/L. v is the softmax of (1 - κ/((1 + m) κ*))^γ, with κ a moving average of
    the task's accuracy, κ* that of a model for this task alone, and m a margin by which it may be exceeded.
    ``method.report([0.8, 0.55])`` hands over accuracies, in the order of the tasks; until a task's first
    report e^(-L) stands in, step by step.

    Args:
        single: κ*, in the unit of what is reported, > 0: one number for all tasks, or one a task.
        margin: m, ≥ 0: that of the authors' code.
        gamma: Focus γ, ≥ 0: that of the authors' code.
        normalise: How v is made to sum to 1: ``softmax``, or ``sum``, which divides by the sum.
        alpha: Weight of a new accuracy in the average, in (0, 1]: that of the authors' code.

    Shapes:
        losses (K,) → weights (K,), with Σ wₖLₖ = G.

    Scale:
        No law with e^(-L). With reported accuracies one loss times c makes the update longer by c^v, and its
        direction stays.

    Cost:
        None beyond the plain step; three numbers of state a task.

    Note:
        Reconstruction in two points: the authors' code has both ways to normalise, and which one the paper's tables
        have is open; accuracies from losses are not the paper's. Where a task has reached (1 + m) κ*, its term is 0;
        with ``sum`` it has no weight then, unless all have.
    """

    lower_bound = 0.0

    def __init__(
        self,
        single: float | Sequence[float] = 1.0,
        margin: float = 0.05,
        gamma: float = 2.0,
        normalise: Literal["softmax", "sum"] = "softmax",
        alpha: float = 0.1,
    ) -> None:
        super().__init__(alpha)
        self._single = torch.as_tensor(single, dtype=torch.float64)
        if self._single.dim() > 1 or not (self._single.isfinite() & (self._single > 0)).all():
            raise ValueError(f"single of AMTL is an accuracy, or one a task, and must be positive, not {single}")
        if not (margin >= 0 and gamma >= 0):
            raise ValueError(f"margin and gamma of AMTL must not be negative, not {margin} and {gamma}")
        if normalise not in ("softmax", "sum"):
            raise ValueError(f"normalise of AMTL is 'softmax' or 'sum', not {normalise!r}")
        self.single = single
        self.margin = margin
        self.gamma = gamma
        self.normalise = normalise
        self.symmetric = self._single.dim() == 0

    def weights(self, losses: Tensor) -> Tensor:
        losses = self.above_bound(losses)
        single = self.chosen(self._single, losses) if self._single.dim() else self._single.to(losses)
        left = (1 - self.kpi(losses) / ((1 + self.margin) * single)).clamp(min=0) ** self.gamma
        if self.normalise == "softmax":
            share = left.softmax(0)
        else:
            share = torch.where(left.sum() > 0, left / left.sum(), 1 / len(losses))
        return share * (share @ losses.log()).exp() / losses
