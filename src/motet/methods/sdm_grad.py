"""SDMGrad, stochastic direction-oriented gradients: Xiao, Ban & Ji, NeurIPS 2023, arXiv 2305.18409."""

import torch
from torch import Tensor

from motet.linalg import as_double
from motet.methods.auto_lambda import mean_norm
from motet.methods.base import TwoSampleMethod, register
from motet.methods.simplex import project_on_simplex, recall_weights


@register("sdm-grad", year=2023, cost="gram")
class SDMGrad(TwoSampleMethod):
    r"""A common descent direction held near the mean gradient, with weights from two samples, so without bias.

        w = argmin ½|g_w + λg₀|² over the simplex,  d = (g_w + λg₀) / (1 + λ),

    g_w = Σᵢ wᵢgᵢ, g₀ the mean gradient. λ = 0 is MGDA, λ → ∞ the mean gradient. The weights take ``iterations``
    steps of projected gradient descent with momentum a batch, from where the last batch left them, along
    G₁G₂ᵀ(w + λ/K) with the gradients G₁ and G₂ (K, P) on two independent batches.

    Args:
        lambda_: λ ≥ 0. 0.3 is that of the authors' experiments.
        lr: Step size of the weights, > 0, for gradients of mean length 1. 10 is TorchJD's default.
        momentum: In [0, 1). 0.5 is TorchJD's default.
        iterations: Steps of the weights a batch, ≥ 1. 20 as in the authors' experiments.

    Shapes:
        joint (2K, 2K) → weights (2K,), summing to 1; those of the second batch are 0.

    Scale:
        All losses times c leave the weights as they are.

    Cost:
        The gradients of a second batch, and ``iterations`` projections on the simplex: about two milliseconds.

    Note:
        The authors' third batch, on which θ is updated, is the first one here. Their code and TorchJD divide the
        matrix by the squared mean of the roots of its diagonal, which noise can make small; here by the product of
        the mean gradient lengths in the two batches, which is the same where both batches are. With an lr of 10 the
        weights jump between corners of the simplex more than they settle in the minimum; an lr of 1/K settles.
        When tasks are absent, those present share the weight in the proportions that they had.
    """

    scale = 1.0

    def __init__(self, lambda_: float = 0.3, lr: float = 10.0, momentum: float = 0.5, iterations: int = 20) -> None:
        super().__init__()
        if not 0 <= lambda_ < float("inf"):
            raise ValueError(f"lambda_ of SDMGrad must be finite and not negative, not {lambda_}")
        if not (lr > 0 and 0 <= momentum < 1 and iterations >= 1):
            raise ValueError(
                "SDMGrad needs lr above 0, momentum in [0, 1) and iterations of at least 1, "
                f"not {lr}, {momentum} and {iterations}"
            )
        self.lambda_ = lambda_
        self.lr = lr
        self.momentum = momentum
        self.iterations = iterations

    def pair_weights(self, joint: Tensor) -> Tensor:
        joint = as_double(joint.detach())
        tasks = len(joint) // 2
        own, cross, second = joint[:tasks, :tasks], joint[:tasks, tasks:], joint[tasks:, tasks:]
        size = mean_norm(own) * mean_norm(second)
        matrix = torch.where(size > 0, cross / torch.where(size > 0, size, 1.0), 0.0)
        start = w = recall_weights(self.recall("w", cross[0], 1 / tasks))
        velocity = torch.zeros_like(w)
        for _ in range(self.iterations):
            velocity = self.momentum * velocity + matrix @ (w + self.lambda_ / tasks)
            w = project_on_simplex(w - self.lr * velocity)
        self.remember("w", torch.where(w.isfinite().all(), w, start))
        weights = (w + self.lambda_ / tasks) / (1 + self.lambda_)
        return torch.cat([weights, torch.zeros_like(w)])
