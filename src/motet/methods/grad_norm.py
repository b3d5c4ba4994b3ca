"""GradNorm, gradient normalisation: Chen et al., ICML 2018, arXiv 1711.02257."""

import torch
from torch import Tensor

from motet.linalg import as_double
from motet.methods.adam import adam_step
from motet.methods.base import GramMethod, register

_LEAST = 1e-3
"""Adam may carry a weight past zero; the norms that the method balances say nothing of signs."""


@register("grad-norm", year=2018, cost="gram")
class GradNorm(GramMethod):
    r"""Learn weights under which all gradients have the same length, and tasks that lag behind a longer one.

    With rₖ = (Lₖ/Lₖ(0)) / meanⱼ(Lⱼ/Lⱼ(0)), the relative inverse training rate, Adam descends

        Σₖ | wₖ|gₖ| - meanⱼ(wⱼ|gⱼ|) rₖ^α |

    in w with the means and r held fixed. After each step w is brought back to Σw = K.

    Args:
        alpha: α, ≥ 0: how strongly tasks are pulled to a common training rate. 1.5 is the paper's for NYUv2.
        lr: Learning rate of w.

    Shapes:
        gram (K, K) → weights (K,), summing to K. They come before the step's own learning.

    Scale:
        All losses times c leave the weights as they are.

    Cost:
        Nothing beyond the diagonal of the Gram matrix; five numbers of state a task.

    Note:
        The paper takes the gradients of the last shared layer, as the last-layer route does; here any route will do.
        There w weights the losses, so that it scales the heads as well; here heads get their own gradient, unscaled.
        The descent is divided by the mean norm, so that Adam's ε means the same for gradients of any size, and no
        weight falls below 1e-3 before the sum is restored. LibMTL learns a softmax instead, by the model's optimizer.
        Adam moves w by about lr a step however small the imbalance is, so w swings by that much about its goal.
        A method that is not told the losses takes r = 1.
    """

    scale = 1.0
    lower_bound = 0.0

    def __init__(self, alpha: float = 1.5, lr: float = 0.025) -> None:
        super().__init__()
        if not (alpha >= 0 and lr >= 0):
            raise ValueError(f"alpha and lr of GradNorm must not be negative, not {alpha} and {lr}")
        self.alpha = alpha
        self.lr = lr

    def weights(self, gram: Tensor) -> Tensor:
        norms = as_double(gram.detach()).diagonal().clamp(min=0).sqrt()
        losses = self.above_bound(self.observed(norms))
        first = self.recall("first", norms, 0.0)
        first = torch.where(first > 0, first, losses)
        weights = self._normalised(norms)
        lengths = weights * norms
        rate = losses / first
        goal = lengths.mean() * (rate / rate.mean()) ** self.alpha
        slope = norms / torch.where(lengths.mean() > 0, lengths.mean(), 1.0) * (lengths - goal).sign()
        self.remember("first", first)
        adam_step(self, "shift", slope, self.lr)
        self.remember("shift", self._normalised(norms) - 1)
        return weights

    def _normalised(self, like: Tensor) -> Tensor:
        weights = (1 + self.recall("shift", like, 0.0)).clamp(min=_LEAST)
        return len(weights) * weights / weights.sum()
