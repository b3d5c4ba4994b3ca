"""STCH, smooth Tchebycheff scalarization: Lin et al., ICML 2024, arXiv 2402.19078."""

import math
from collections.abc import Sequence

from torch import Tensor

from motet.methods.base import LossMethod, register
from motet.methods.preferred import read_preference, shares, uneven
from motet.methods.warmup import shares as shares_of_ready
from motet.methods.warmup import starting_level


@register("stch", year=2024, cost="losses")
class STCH(LossMethod):
    r"""Descend a smooth maximum of the log-losses, each against its own starting level.

        K μ log Σₖ exp(log(rₖLₖ/nₖ)/μ),  so  w = K softmax(log(r L/n)/μ) / L.

    The level n is a task's mean loss over its first ``warmup`` steps, in which it counts as in SI, w = 1/L. With
    small μ the end is where all rₖLₖ/nₖ are equal.

    Args:
        mu: Smoothness μ, > 0. Towards 0 only the task that is worst off counts; large μ gives SI.
        warmup: Steps of a task before its level is fixed.
        preference: r, one positive number a task; None: equal. Towards μ = 0 twice the preference means half the loss.

    Shapes:
        losses (K,) → weights (K,).

    Scale:
        A loss times c, from the start, leaves the update as it is.

    Cost:
        None beyond the plain step; two numbers of state a task.

    Note:
        The authors' code warms up for 4 epochs. TorchJD's STCH is the general form Σ exp(λₖ(Lₖ - zₖ)/μ) on
        the losses themselves with a preference λ, so the two agree only on losses already put in logarithms, and
        without a preference: λ would multiply logarithms, which are negative once a loss is below its level, and so
        turn the preference round. Here r multiplies the losses inside of the logarithm.
    """

    scale = 0.0

    lower_bound = 0.0

    def __init__(self, mu: float = 1.0, warmup: int = 100, preference: Sequence[float] | None = None) -> None:
        super().__init__()
        if not 0 < mu < math.inf:
            raise ValueError(f"mu is the smoothness of STCH and must be positive and finite, not {mu}")
        if warmup < 1:
            raise ValueError(f"warmup of STCH is a number of steps and must be at least 1, not {warmup}")
        self.mu = mu
        self.warmup = warmup
        self._preference = read_preference(self, preference)
        self.preference = None if self._preference is None else self._preference.tolist()
        self.symmetric = not uneven(self._preference)

    def weights(self, losses: Tensor) -> Tensor:
        losses = self.above_bound(losses)
        level, ready = starting_level(self, losses, self.warmup)
        r = shares(self, self._preference, losses)
        return shares_of_ready((r * losses / level).log() / self.mu, ready) / losses
