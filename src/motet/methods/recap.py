"""RECAP, weights from convergence and instability: Phan et al., 2025, arXiv 2510.21978."""

import torch
from torch import Tensor

from motet.methods.base import LossMethod, register


@register("recap", year=2025, cost="losses")
class RECAP(LossMethod):
    r"""Away from tasks that improve steadily, towards those that lag or swing: w = K softmax((a c + (1 - a) i)/T).

    Over a task's last ``window`` losses, this one among them, c = L/µ says how it converges (below 1 where the loss
    falls) and i = σ/µ, the inverse signal-to-noise ratio, how it swings. Before the window is full, c = 1 and i = 0.

    Args:
        window: Losses that c and i are taken over, ≥ 2.
        temperature: T, > 0. Larger is more even.
        balance: a, the share of c, in [0, 1].

    Shapes:
        losses (K,) → weights (K,), summing to K.

    Scale:
        Weights do not depend on the scale of any loss.

    Cost:
        None beyond the plain step; window + 1 numbers of state a task.

    Note:
        Reconstruction: the method is known here by its ingredients (convergence rate, inverse signal-to-noise ratio,
        a window of 10, T = 5, a = ½), not by its formulas. Open are what c relates to what (the window's mean here;
        its oldest loss, or a fitted slope, would do as well), whether T divides, as here, or multiplies, and whether
        it was meant for steps or longer spans. The paper reweights objectives of reinforcement learning.
    """

    scale = 1.0

    lower_bound = 0.0

    def __init__(self, window: int = 10, temperature: float = 5.0, balance: float = 0.5) -> None:
        super().__init__()
        if window < 2:
            raise ValueError(f"window of RECAP is a number of losses and must be at least 2, not {window}")
        if not temperature > 0:
            raise ValueError(f"temperature of RECAP must be positive, not {temperature}")
        if not 0 <= balance <= 1:
            raise ValueError(f"balance is the share of convergence in RECAP and must be from 0 to 1, not {balance}")
        self.window = window
        self.temperature = temperature
        self.balance = balance

    def weights(self, losses: Tensor) -> Tensor:
        losses = self.above_bound(losses)
        history = self.recall("history", losses.new_empty(len(losses), self.window), 0.0)
        history = torch.cat([history[:, 1:], losses[:, None]], dim=1)
        seen = self.recall("seen", losses, 0.0) + 1
        self.remember("history", history)
        self.remember("seen", seen)
        mean, full = history.mean(1), seen >= self.window
        converges = torch.where(full, losses / mean, 1.0)
        swings = torch.where(full, history.std(1, correction=0) / mean, 0.0)
        score = self.balance * converges + (1 - self.balance) * swings
        return len(losses) * (score / self.temperature).softmax(0)
