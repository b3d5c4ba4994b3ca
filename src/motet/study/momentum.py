"""What share the current gradient has in an arm's updates, measured in a few of its steps."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from motet.optim import MomentumRecorder
from motet.optim.linear import SUPPORTED
from motet.optim.recorder import MomentumStep
from motet.routes import Exact
from motet.study.results import Momentum

_STEPS = 3
"""Measured steps of a training that goes through all its epochs; a few more where it may end much earlier."""
_AGES = 6
"""Gradients whose shares are told apart; before a measured step so many are kept."""


class Watch:
    """Measures some steps of an optimizer while it trains, and changes nothing.

    Args:
        optimizer: Any; one whose momentum is not an average of one gradient a step is left alone.
        trunk: The parameters to look at: the heads' gradients are no method's work.
        most: Batches of a training that goes through all its epochs.
        least: Batches of one that stops as early as it can: by then a step has been measured.
    """

    def __init__(self, optimizer: Optimizer, trunk: Sequence[Tensor], most: int, least: int) -> None:
        self._trunk = list(trunk)
        self._recorder: MomentumRecorder | None = None
        self._sparse = math.ceil(most / _STEPS)
        if isinstance(optimizer, SUPPORTED) and trunk:
            # Not from the very first step on: that one's memory is measured.
            every = max(_AGES + 1, min(self._sparse, least))
            self._recorder = MomentumRecorder(optimizer, _AGES, every, self._trunk)

    @property
    def measured(self) -> int:
        """Steps measured so far."""
        return len(self._recorder.steps) if self._recorder is not None else 0

    def look(self, losses: Mapping[str, Tensor | None]) -> None:
        """Take the tasks' gradients where the next step is measured; the losses' graph lives on."""
        if self._recorder is None or not torch.is_grad_enabled():
            return
        if self._recorder.steps and self._recorder.every <= min(self._recorder.count, self._sparse - 1):
            self._recorder.every *= 2  # A training that might have ended by now goes on: as long again will do.
        if not self._recorder.due:
            return
        found = {task: loss for task, loss in losses.items() if loss is not None and loss.requires_grad}
        if found:
            rows = Exact(list(found.values()), self._trunk, retain=True).rows
            self._recorder.tasks(rows, list(found))

    def found(self) -> list[Momentum]:
        """What was measured; the optimizer is left alone from now on."""
        if self._recorder is None:
            return []
        self._recorder.remove()
        return [_plain(step) for step in self._recorder.steps]


def _plain(step: MomentumStep) -> Momentum:
    def number(value: float | None) -> float:
        return math.nan if value is None else value

    return Momentum(
        step=step.step or 0,
        beta=number(step.beta),
        nominal=number(step.nominal),
        instant=number(step.instant),
        shares=list(step.shares or ()),
        cosine_gradient=number(step.cosine_gradient),
        cosine_tasks={task: number(cosine) for task, cosine in step.cosine_tasks.items()},
        counterfactual=number(step.counterfactual),
    )
