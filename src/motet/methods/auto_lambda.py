"""Auto-λ, task weights learned on validation losses: Liu et al., TMLR 2022, arXiv 2202.03091."""

import torch
from torch import Tensor

from motet.linalg import as_double
from motet.methods.adam import adam_step
from motet.methods.base import TwoSampleMethod, register
from motet.methods.main_task import check_main, is_main


@register("auto-lambda", year=2022, cost="gram")
class AutoLambda(TwoSampleMethod):
    r"""Learn the weights with which a training step lowers the validation losses of the primary tasks most.

    After a step θ' = θ - η Σᵢ λᵢgᵢ on the training batch, the primary tasks' validation loss changes with λᵢ by

        dL_val/dλᵢ = -η gᵢ·g_val,  g_val = Σ_{i in main} vᵢ,

    with the gradients g on the training batch and v on the second one. Adam moves λ along it, then the update is
    Σᵢ λᵢgᵢ.

    Args:
        lr: Learning rate of λ. The authors' code has 1e-4.
        init: λ at the start. The authors' code has 0.1.
        main: Indices of the primary tasks; None for all, which is multi-task learning in place of auxiliary learning.

    Shapes:
        joint (2K, 2K) → weights (2K,); those of the second batch are 0.

    Scale:
        All losses times c leave the weights as they are. The update is about ``init`` times the plain sum's.

    Cost:
        The gradients of a second batch.

    Note:
        Paper and code take g_val at θ', and gᵢ·g_val by finite differences, in two more passes; here it is the exact
        product at θ, which is the same to first order in η. η is common to all λ, and Adam takes no notice of common
        factors but for its ε of 1e-8: products are divided by the mean norms in both batches, so that λ
        learns where gradients are small, too. In the authors' code λ weights the losses, heads included. There as
        here nothing keeps λ positive: the gradient of a task that harms the primary ones is climbed in the end.
    """

    scale = 1.0

    def __init__(self, lr: float = 1e-4, init: float = 0.1, main: tuple[int, ...] | None = None) -> None:
        super().__init__()
        if not lr >= 0:
            raise ValueError(f"lr is the learning rate of Auto-λ's weights and must not be negative, not {lr}")
        if not 0 < init < float("inf"):
            raise ValueError(f"init is where Auto-λ's weights start and must be positive and finite, not {init}")
        if main is not None and len(main) == 0:
            raise ValueError("main must name at least one primary task of Auto-λ, or be None for all")
        self.lr = lr
        self.init = init
        self.main = None if main is None else tuple(check_main(self, task) for task in main)
        self.symmetric = main is None

    def pair_weights(self, joint: Tensor) -> Tensor:
        joint = as_double(joint.detach())
        tasks = len(joint) // 2
        own, cross, second = joint[:tasks, :tasks], joint[:tasks, tasks:], joint[tasks:, tasks:]
        primary = torch.ones_like(own[0]) if self.main is None else is_main(self, self.main, own)
        size = mean_norm(own) * mean_norm(second)
        gain = torch.where(size > 0, cross @ primary / torch.where(size > 0, size, 1.0), 0.0)
        self.recall("lambda", gain, self.init)
        adam_step(self, "lambda", -gain, self.lr)
        return torch.cat([self.recall("lambda", gain, self.init), torch.zeros_like(gain)])


def mean_norm(gram: Tensor) -> Tensor:
    """The mean length of the gradients: (K, K) → ()."""
    return gram.diagonal().clamp(min=0).sqrt().mean()
