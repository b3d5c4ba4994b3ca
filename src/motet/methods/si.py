"""SI, the scale-invariant sum of log-losses: baseline of Navon et al., ICML 2022, arXiv 2202.01017."""

from torch import Tensor

from motet.methods.base import LossMethod, register


@register("si", year=2022, cost="losses")
class SI(LossMethod):
    r"""Every loss counts by its relative change: Σₖ log Lₖ, so w = 1/L.

    Shapes:
        losses (K,) → weights (K,).

    Scale:
        A loss times c has the same say as before; the update stays.

    Cost:
        None beyond the plain step.

    Note:
        The weight grows without bound as a loss tends to 0.
    """

    scale = 0.0

    lower_bound = 0.0

    def weights(self, losses: Tensor) -> Tensor:
        return 1 / self.above_bound(losses)
