"""SLAW, scaled loss approximate weighting: Crawshaw & Košecká, 2021, arXiv 2109.08218."""

import torch
from torch import Tensor

from motet.linalg import as_double
from motet.methods.base import LossMethod, register
from motet.methods.warmup import shares


@register("slaw", year=2021, cost="losses")
class SLAW(LossMethod):
    r"""Equal gradient norms without gradients: w = K (1/s) / Σ(1/s), with s the standard deviation of a loss.

    s = √(mean(L²) - mean(L)²), which on steps of one length grows with the length of the gradient. The means are over
    all steps up to 1/(1 - β) and exponential from then on, as in the authors' code.

    Args:
        beta: Share of the past in the means, in (0, 1). 0.99 is that of the authors' code.

    Shapes:
        losses (K,) → weights (K,), summing to K.

    Scale:
        All losses times c leave the weights as they are. One loss times c, from the start, has from the second step
        on the weight it had over c, before the sum is made K again.

    Cost:
        None beyond the plain step; three numbers of state a task.

    Note:
        A task's first weight is 1. The authors' code keeps s above 1e-5; here s is kept above 1e-5 of the
        mean's size, so that the unit of a loss does not matter. A loss that has always been 0 keeps weight 1.
    """

    scale = 1.0

    def __init__(self, beta: float = 0.99) -> None:
        super().__init__()
        if not 0 < beta < 1:
            raise ValueError(f"beta is SLAW's share of the past and must be above 0 and below 1, not {beta}")
        self.beta = beta

    def weights(self, losses: Tensor) -> Tensor:
        losses = as_double(losses.detach())
        mean, variance = self.recall("mean", losses, 0.0), self.recall("variance", losses, 0.0)
        seen = self.recall("seen", losses, 0.0)
        counts = losses.isfinite()
        rate = (1 / (seen + 1)).clamp(min=1 - self.beta)
        # As mean(L²) - mean(L)² moves, without the difference of two large numbers.
        moved = losses - mean
        variance = torch.where(counts, (1 - rate) * (variance + rate * moved**2), variance)
        mean = torch.where(counts, mean + rate * moved, mean)
        seen = seen + counts
        for name, values in (("mean", mean), ("variance", variance), ("seen", seen)):
            self.remember(name, values)
        deviation = variance.sqrt().maximum(1e-5 * mean.abs())
        return shares(-deviation.log(), (seen >= 2) & (deviation > 0))
