"""MetaBalance, auxiliary gradients brought to the main task's magnitude: He et al., WWW 2022, arXiv 2203.06801."""

import torch
from torch import Tensor

from motet.linalg import as_double
from motet.methods.base import GramMethod, register
from motet.methods.main_task import check_main, is_main


@register("meta-balance", year=2022, cost="gram")
class MetaBalance(GramMethod):
    r"""Bring every auxiliary task's gradient towards the length of the main task's.

    With mₖ the moving average of |gₖ|,

        wₖ = r m_main / mₖ + 1 - r,

    so that r = 1 makes the magnitudes equal, r = 0 leaves the plain sum, and the main task keeps its weight of 1.

    Args:
        main: Index of the main task.
        relax: r in [0, 1]. 0.7 as in the authors' code.
        beta: Smoothing of the norms over steps, in [0, 1). 0.9 as in the authors' code.

    Shapes:
        gram (K, K) → weights (K,).

    Scale:
        All losses times c leave the weights as they are. With r = 1 an auxiliary loss times c leaves the update.

    Cost:
        The diagonal of the Gram matrix, and two numbers of state a task.

    Note:
        The authors balance every parameter tensor by itself; here the shared gradient is one vector. Their averages
        start at zero, which drops out of the ratio while all tasks are in every batch; here each is corrected for
        its own number of steps. Where the main task is absent from a batch its last average counts, and before it
        was ever seen the weights are 1.
    """

    scale = 1.0
    symmetric = False

    def __init__(self, main: int = 0, relax: float = 0.7, beta: float = 0.9) -> None:
        super().__init__()
        self.main = check_main(self, main)
        if not (0 <= relax <= 1 and 0 <= beta < 1):
            raise ValueError(f"MetaBalance needs relax in [0, 1] and beta in [0, 1), not {relax} and {beta}")
        self.relax = relax
        self.beta = beta

    def weights(self, gram: Tensor) -> Tensor:
        gram = as_double(gram.detach())
        is_main(self, (self.main,), gram)  # an error where there is no such task
        norms = gram.diagonal().clamp(min=0).sqrt()
        steps = self.recall("steps", norms, 0.0)
        average = self.recall("norms", norms, 0.0)
        finite = norms.isfinite()
        steps = steps + finite
        average = torch.where(finite, average.lerp(norms, 1 - self.beta), average)
        self.remember("norms", average)
        self.remember("steps", steps)
        # The main task's row is there when the task is not.
        seen = self._state["steps"][self.main]
        target = self._unbiased(self._state["norms"][self.main], seen)
        magnitude = self._unbiased(average, steps)
        ratio = torch.where(magnitude > 0, target / magnitude, 1.0).where(seen > 0, 1.0)
        return torch.where(finite, self.relax * ratio + 1 - self.relax, torch.nan)

    def _unbiased(self, average: Tensor, steps: Tensor) -> Tensor:
        return average / torch.where(steps > 0, 1 - self.beta**steps, 1.0)
