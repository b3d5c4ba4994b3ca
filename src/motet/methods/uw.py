"""UW, weights from learned uncertainty: Kendall, Gal & Cipolla, CVPR 2018, arXiv 1705.07115."""

from torch import Tensor

from motet.linalg import as_double
from motet.methods.adam import adam_step
from motet.methods.base import LossMethod, register


@register("uw", year=2018, cost="losses")
class UW(LossMethod):
    r"""Learn a log-variance s per task with the model: Σₖ ½(e^(-sₖ) Lₖ + sₖ), so w = ½e^(-s).

    s starts at 0 and takes one step of Adam a batch, inside the method, along ½(1 - e^(-s) L). Where it
    settles, e^s = L and the update is half that of SI.

    Args:
        lr: Learning rate of s.

    Shapes:
        losses (K,) → weights (K,).

    Scale:
        The first weights are ½ whatever the losses; in the long run a loss times c has the weight it had over c.

    Cost:
        None beyond the plain step; four numbers of state a task.

    Note:
        The paper learns s with the model's optimizer. A loss that stays at or below 0 lets s fall, and its
        weight grow, without bound.
    """

    scale = 1.0

    def __init__(self, lr: float = 0.025) -> None:
        super().__init__()
        if not lr >= 0:
            raise ValueError(f"lr is the learning rate of UW's log-variances and must not be negative, not {lr}")
        self.lr = lr

    def weights(self, losses: Tensor) -> Tensor:
        losses = as_double(losses.detach())
        precision = (-self.recall("log_variance", losses, 0.0)).exp()
        adam_step(self, "log_variance", (1 - precision * losses) / 2, self.lr)
        return precision / 2
