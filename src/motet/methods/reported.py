"""Loss weightings that follow a figure of merit of each task, which the user reports."""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from motet.linalg import as_double
from motet.methods.base import LossMethod


class ReportedMethod(LossMethod):
    """Keeps a moving average κ of each task's key performance indicator (KPI): larger is better.

    A method sees losses only. Whoever measures accuracies hands them over with `report`, after each validation, say.
    Until a task's first report e^(-L) stands in, step by step: for a cross-entropy that is the geometric mean of
    the probabilities given to the right answers.
    """

    highest: ClassVar[float] = math.inf
    """The largest KPI that `report` takes."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        if not 0 < alpha <= 1:
            raise ValueError(f"alpha is the weight of a new KPI in its average and must be above 0 to 1, not {alpha}")
        self.alpha = alpha

    def report(self, kpis: Sequence[float] | Tensor) -> None:
        """Take new KPIs, one a task in the order of the tasks, ``nan`` for a task that was not measured: (K,).

        The first of a task replaces what came from its losses, which play no part in its KPI from then on.

        Raises:
            ValueError: for a number below 0 or above `highest`, or for fewer numbers than there are tasks.
        """
        values = as_double(torch.as_tensor(kpis, dtype=None if isinstance(kpis, Tensor) else torch.float64).detach())
        known = len(self._state.get("kpi", ()))
        if values.dim() != 1 or len(values) < known:
            raise ValueError(f"report one KPI for each of the {known} tasks, nan for those not measured, not {kpis}")
        measured = ~values.isnan()
        if not ((values >= 0) & (values <= self.highest) & values.isfinite())[measured].all():
            raise ValueError(f"a KPI of {type(self).__name__} is a number from 0 to {self.highest:g}, not {kpis}")
        with self.on_tasks(torch.arange(len(values)), len(values)):
            kpi, reports = self.recall("kpi", values, 0.0), self.recall("reports", values, 0.0)
            average = torch.where(reports > 0, kpi.lerp(values, self.alpha), values)
            self.remember("kpi", torch.where(measured, average, kpi))
            self.remember("reports", reports + measured)

    def kpi(self, losses: Tensor) -> Tensor:
        """κ of the present tasks, after this step's losses have been counted where there is no report: (K,) → (K,)."""
        kpi, steps = self.recall("kpi", losses, 0.0), self.recall("steps", losses, 0.0)
        likelihood = (-losses.clamp(min=0)).exp()
        counts = losses.isfinite() & (self.recall("reports", losses, 0.0) == 0)
        average = torch.where(steps > 0, kpi.lerp(likelihood, self.alpha), likelihood)
        kpi = torch.where(counts, average, kpi)
        self.remember("kpi", kpi)
        self.remember("steps", steps + counts)
        return kpi
