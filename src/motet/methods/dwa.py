"""DWA, dynamic weight average: Liu, Johns & Davison, CVPR 2019, arXiv 1803.10704."""

import torch
from torch import Tensor

from motet.methods.base import LossMethod, register


@register("dwa", year=2019, cost="losses")
class DWA(LossMethod):
    r"""Tasks whose loss falls slowly count more: w = K softmax(r/T), with r a task's loss over what it was.

    r is the mean of a task's last ``window`` losses over that of the ``window`` before; the present loss is not
    yet among them. A task has r = 1 until both windows are full.

    Args:
        temperature: T, > 0. Larger is more even.
        window: Steps that one mean is taken over.

    Shapes:
        losses (K,) → weights (K,), summing to K.

    Scale:
        Weights do not depend on the scale of any loss.

    Cost:
        None beyond the plain step; 2·window + 1 numbers of state a task.

    Note:
        The paper and TorchJD take means over epochs, which a method that sees only steps does not know of;
        the windows of steps are those of Nash-MTL's code, which however let the present loss in and start
        from ones. The paper's weights are the same where the windows are epochs.
    """

    scale = 1.0

    lower_bound = 0.0

    def __init__(self, temperature: float = 2.0, window: int = 25) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature of DWA must be positive, not {temperature}")
        if window < 1:
            raise ValueError(f"window of DWA is a number of steps and must be at least 1, not {window}")
        self.temperature = temperature
        self.window = window

    def weights(self, losses: Tensor) -> Tensor:
        losses = self.above_bound(losses)
        history = self.recall("history", losses.new_empty(len(losses), 2 * self.window), 0.0)
        seen = self.recall("seen", losses, 0.0)
        older, newer = history[:, : self.window].mean(1), history[:, self.window :].mean(1)
        rate = torch.where(seen >= 2 * self.window, newer / older, 1.0)
        self.remember("history", torch.cat([history[:, 1:], losses[:, None]], dim=1))
        self.remember("seen", seen + 1)
        return len(losses) * torch.softmax(rate / self.temperature, 0)
