"""DTP, dynamic task prioritisation: Guo et al., ECCV 2018."""

from typing import ClassVar

from torch import Tensor

from motet.linalg import as_double
from motet.methods.base import register
from motet.methods.reported import ReportedMethod

_EDGE = 1e-6


@register("dtp", year=2018, cost="losses")
class DTP(ReportedMethod):
    r"""Tasks that are far from solved count more: w = -(1 - κ)^γ log κ, with κ a moving average of the task's KPI.

    The KPI is in [0, 1], an accuracy, say. ``method.report([0.8, 0.55])`` hands over new ones, in the order of the
    tasks; until a task's first report e^(-L) stands in, step by step.

    Args:
        gamma: Focus γ, ≥ 0. Larger takes more from tasks that are nearly solved.
        alpha: Weight of a new KPI in the average, in (0, 1]. 1 forgets the past.

    Shapes:
        losses (K,) → weights (K,).

    Scale:
        No law with e^(-L). With reported KPIs, a loss times c has c times the say.

    Cost:
        None beyond the plain step; three numbers of state a task.

    Note:
        Reconstruction in what the paper leaves open: γ = 1 and α = 0.1 are the defaults of AMTL's code, which has
        DTP too; κ is kept 1e-6 away from 0 and 1; KPIs from losses are not the paper's. Another would be
        min(L̄, L′)/L′, with the last loss L′ and an average L̄: free of scale, but 1 as soon as a loss rises. A loss
        at or below 0 counts as solved.
    """

    highest: ClassVar[float] = 1.0

    def __init__(self, gamma: float = 1.0, alpha: float = 0.1) -> None:
        super().__init__(alpha)
        if not gamma >= 0:
            raise ValueError(f"gamma is the focus of DTP and must not be negative, not {gamma}")
        self.gamma = gamma

    def weights(self, losses: Tensor) -> Tensor:
        kpi = self.kpi(as_double(losses.detach())).clamp(_EDGE, 1 - _EDGE)
        return -((1 - kpi) ** self.gamma) * kpi.log()
