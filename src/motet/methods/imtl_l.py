"""IMTL-L, learned scales that make all losses alike: Liu et al., ICLR 2021."""

from torch import Tensor

from motet.linalg import as_double
from motet.methods.adam import adam_step
from motet.methods.base import LossMethod, register


@register("imtl-l", year=2021, cost="losses")
class IMTLL(LossMethod):
    r"""Learn a log-scale s per task with the model: Σₖ e^(sₖ) Lₖ - sₖ, so w = e^s.

    s starts at 0 and takes one step of Adam a batch, inside the method, along e^s L - 1. This is twice UW
    with the sign of s turned: Adam takes the same steps, and the weights are double.

    Args:
        lr: Learning rate of s.

    Shapes:
        losses (K,) → weights (K,).

    Scale:
        The first weights are 1 whatever the losses; in the long run a loss times c has the weight it had over c.

    Cost:
        None beyond the plain step; four numbers of state a task.

    Note:
        The paper learns s with the model's optimizer. A loss that stays at or below 0 lets s, and its
        weight, grow without bound.
    """

    scale = 1.0

    def __init__(self, lr: float = 0.025) -> None:
        super().__init__()
        if not lr >= 0:
            raise ValueError(f"lr is the learning rate of IMTL-L's log-scales and must not be negative, not {lr}")
        self.lr = lr

    def weights(self, losses: Tensor) -> Tensor:
        losses = as_double(losses.detach())
        scale = self.recall("log_scale", losses, 0.0).exp()
        adam_step(self, "log_scale", scale * losses - 1, self.lr)
        return scale
