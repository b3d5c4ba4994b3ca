"""OL-AUX, auxiliary weights by online learning: Lin et al., NeurIPS 2019."""

import torch
from torch import Tensor

from motet.linalg import as_double
from motet.methods.base import GramMethod, register
from motet.methods.main_task import check_main, is_main


@register("ol-aux", year=2019, cost="gram")
class OLAUX(GramMethod):
    r"""Weight auxiliary tasks by how much their gradients lower the main loss over several steps.

    To first order the steps t … t+N-1 lower the main loss by α Σⱼ g_main·(g_main + Σₖ wₖgₖ), so every N steps

        wₖ ← wₖ + lr Σⱼ g_main·gₖ,

    from w = 1. The main task's weight stays 1.

    Args:
        main: Index of the main task.
        steps: N ≥ 1, the steps between changes of the weights.
        lr: Learning rate of the weights, > 0, times that of the model.

    Shapes:
        gram (K, K) → weights (K,).

    Scale:
        The first weights are 1; all losses times c act as lr times c² afterwards.

    Cost:
        One row of the Gram matrix, and three numbers of state a task.

    Note:
        Reconstruction from the first-order formula: lr is chosen here, and whether the authors bound the weights,
        which may become negative, is open. They take the losses' logarithms, which takes the scale out of the products:
        ``LogLosses(OLAUX())``. Every auxiliary task counts its own steps with the main task, and learns nothing in one
        without it.
    """

    scale = 1.0
    symmetric = False

    def __init__(self, main: int = 0, steps: int = 5, lr: float = 1e-3) -> None:
        super().__init__()
        self.main = check_main(self, main)
        if not (steps >= 1 and lr > 0):
            raise ValueError(f"OL-AUX needs steps of at least 1 and lr above 0, not {steps} and {lr}")
        self.steps = steps
        self.lr = lr

    def weights(self, gram: Tensor) -> Tensor:
        gram = as_double(gram.detach())
        main = is_main(self, (self.main,), gram)
        gains = gram @ main
        weights = self.recall("weights", gains, 1.0)
        learns = gains.isfinite() & (main == 0) & (main.sum() > 0)
        gained = self.recall("gained", gains, 0.0) + torch.where(learns, gains, 0.0)
        count = self.recall("count", gains, 0.0) + learns
        due = count >= self.steps
        self.remember("weights", torch.where(due, weights + self.lr * gained, weights))
        self.remember("gained", torch.where(due, 0.0, gained))
        self.remember("count", torch.where(due, 0.0, count))
        return weights
