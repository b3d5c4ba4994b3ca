"""AdaLoss, the inverse of the average loss: Hu et al., AAAI 2019, arXiv 1708.06832."""

from torch import Tensor

from motet.methods.base import LossMethod, register


@register("ada-loss", year=2019, cost="losses")
class AdaLoss(LossMethod):
    r"""Bring all losses to one scale by their moving average: w = 1/L̄.

    It descends Σₖ log E[Lₖ], where SI descends Σₖ E[log Lₖ]: a batch of a small loss does not get a larger weight
    for it.

    Args:
        beta: Share of the past in the average L̄, in [0, 1). 0 is SI.

    Shapes:
        losses (K,) → weights (K,).

    Scale:
        A loss times c, from the start, has the same say as before; the update stays.

    Cost:
        None beyond the plain step; two numbers of state a task.

    Note:
        Reconstruction in its details: the paper gives weights in inverse proportion to each loss's mean. That the
        average is exponential, its default of 0.9, that it includes the present loss and is corrected for its start
        at zero, and that weights are not brought to a fixed sum, are choices here.
    """

    scale = 0.0

    lower_bound = 0.0

    def __init__(self, beta: float = 0.9) -> None:
        super().__init__()
        if not 0 <= beta < 1:
            raise ValueError(f"beta is AdaLoss's share of the past and must be at least 0 and below 1, not {beta}")
        self.beta = beta

    def weights(self, losses: Tensor) -> Tensor:
        losses = self.above_bound(losses)
        average = self.recall("average", losses, 0.0).lerp(losses, 1 - self.beta)
        steps = self.recall("steps", losses, 0.0) + 1
        self.remember("average", average)
        self.remember("steps", steps)
        return (1 - self.beta**steps) / average
