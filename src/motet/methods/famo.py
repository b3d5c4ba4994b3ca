"""FAMO, fast adaptive multitask optimization: Liu et al., NeurIPS 2023, arXiv 2306.03792."""

import logging

import torch
from torch import Tensor

from motet.methods.adam import adam_step
from motet.methods.base import LossMethod, register

logger = logging.getLogger("motet")


@register("famo", year=2023, cost="extra-forward")
class FAMO(LossMethod):
    r"""Make all losses fall at the same relative rate, without looking at any gradient.

    With z = softmax(ξ) the update descends c Σₖ zₖ log(Lₖ - b), c = 1 / Σₖ zₖ/(Lₖ - b), that is

        w = c z / (L - b),  Σw = 1.

    ξ is learned by Adam from what the step did to the losses on the same batch, δ = log(L - b) - log(L' - b):
    along diag(z)δ - z(z·δ) + γξ, so that a task that gained much counts less the next time.

    Args:
        gamma: γ, the decay of ξ towards equal weights.
        lr: Learning rate of ξ.
        lower_bound: b, which all losses must exceed.

    Shapes:
        losses (K,) → weights (K,), summing to 1.

    Scale:
        All losses times c leave the weights as they are; one loss times c has the weight it had over c.

    Cost:
        A second forward pass of the batch after the optimizer's step, for `update`. Without it the next batch's
        losses stand in for L': no cost, but the difference between the batches is noise in δ.

    Note:
        gamma is the paper's and its run scripts' for most data sets; the default in its code is 1e-5. Its code adds
        1e-8 to L - b, this does not: a loss that reaches its bound is an error.
    """

    scale = 1.0

    wants_feedback = True

    def __init__(self, gamma: float = 1e-3, lr: float = 0.025, lower_bound: float = 0.0) -> None:
        super().__init__()
        if not (gamma >= 0 and lr >= 0):
            raise ValueError(f"gamma and lr of FAMO must not be negative, not {gamma} and {lr}")
        self.gamma = gamma
        self.lr = lr
        self.lower_bound = lower_bound
        self._told = False

    def weights(self, losses: Tensor) -> Tensor:
        excess = self.above_bound(losses)
        if self._learn(excess) and not self._told:
            self._told = True
            logger.warning(
                "FAMO was not given the losses after the optimizer's step, so the next batch's stand in for them, "
                "which is noisier: compute the losses on the same batch again and pass them to update()"
            )
        ratio = self.recall("logits", excess, 0.0).softmax(0) / excess
        self.recall("before", excess, 1.0)
        self.remember("before", excess)
        self.remember("waiting", torch.ones_like(excess))
        return ratio / ratio.sum()

    def update(self, losses: Tensor) -> None:
        """Learn from the losses on the same batch after the step: (K,). Tasks with no weights since are left out."""
        self._learn(self.above_bound(losses))

    def _learn(self, after: Tensor) -> bool:
        """Take the feedback for all present tasks that wait for it; False if none does."""
        waits = self.recall("waiting", after, 0.0) > 0
        if not waits.any():
            return False
        delta = torch.where(waits, self.recall("before", after, 1.0).log() - after.log(), 0.0)
        z = self.recall("logits", after, 0.0).where(waits, -torch.inf).softmax(0)
        adam_step(self, "logits", z * (delta - z @ delta), self.lr, self.gamma, waits)
        self.remember("waiting", torch.zeros_like(after))
        return True
