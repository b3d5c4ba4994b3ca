"""CoV-Weighting, the coefficient of variation of loss ratios: Groenendijk et al., WACV 2021, arXiv 2009.01717."""

import torch
from torch import Tensor

from motet.methods.base import LossMethod, register
from motet.methods.warmup import shares


@register("cov-weighting", year=2021, cost="losses")
class CoVWeighting(LossMethod):
    r"""Losses that still move count, relative to their size: w ∝ σ(ℓ)/µ(ℓ), ℓ a loss over its mean so far.

    ℓₜ = Lₜ / mean(L₁ … Lₜ₋₁), and σ and µ are the standard deviation and mean of all ℓ before this step, kept by
    Welford's recurrence. In its first two steps a task has an even share.

    Shapes:
        losses (K,) → weights (K,), summing to 1.

    Scale:
        Weights do not depend on the scale of any loss.

    Cost:
        None beyond the plain step; four numbers of state a task.

    Note:
        σ² is increased by 1e-8, as in the authors' code, so that losses that all stand still share evenly. The code
        also has a decaying mean in place of the full one.
    """

    scale = 1.0

    lower_bound = 0.0

    def weights(self, losses: Tensor) -> Tensor:
        losses = self.above_bound(losses)
        seen, level, mean, square = (self.recall(name, losses, 0.0) for name in ("seen", "level", "mean", "square"))
        variation = (square / seen.clamp(min=1) + 1e-8).sqrt() / mean
        weights = shares(variation.log(), seen >= 2) / len(losses)
        ratio = torch.where(seen > 0, losses / level, 1.0)
        moved = mean + (ratio - mean) / (seen + 1)
        self.remember("square", square + (ratio - mean) * (ratio - moved))
        self.remember("mean", moved)
        self.remember("level", level + (losses - level) / (seen + 1))
        self.remember("seen", seen + 1)
        return weights
