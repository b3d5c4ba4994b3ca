"""MoDo, multi-objective descent with double sampling: Chen et al., NeurIPS 2023, arXiv 2305.20057."""

import torch
from torch import Tensor

from motet.linalg import as_double
from motet.methods.base import TwoSampleMethod, register
from motet.methods.simplex import project_on_simplex, recall_weights


@register("modo", year=2023, cost="gram")
class MoDo(TwoSampleMethod):
    r"""MGDA's weights by one projected gradient step a batch, from two samples, so that the step has no bias.

        λ ← Π(λ - γ (G₁G₂ᵀ + ρI) λ),

    with the gradients G₁ and G₂ (K, P) on two independent batches and Π the projection on the simplex. The update is
    G₁ᵀλ. With one batch in place of both, noise adds to the diagonal and the weights lean away from noisy tasks.

    Args:
        gamma: Step size γ of the weights, > 0. 1e-3 is LibMTL's default.
        rho: ρ, which draws the weights together, ≥ 0. 0.1 is LibMTL's default.

    Shapes:
        joint (2K, 2K) → weights (2K,), summing to 1; those of the second batch are 0.

    Scale:
        None: all losses times c act as γ times c² and ρ over c².

    Cost:
        The gradients of a second batch, and one product with their cross Gram matrix.

    Note:
        The authors update θ by λ on both batches' mean, or on a third batch; here on the first one alone, so that a
        second batch of validation data is not trained on. The weights are TorchJD's given the same matrix. When
        tasks are absent, those present share the weight in the proportions that they had.
    """

    def __init__(self, gamma: float = 1e-3, rho: float = 0.1) -> None:
        super().__init__()
        if not (gamma > 0 and rho >= 0):
            raise ValueError(f"gamma of MoDo must be positive and rho not negative, not {gamma} and {rho}")
        self.gamma = gamma
        self.rho = rho

    def pair_weights(self, joint: Tensor) -> Tensor:
        joint = as_double(joint.detach())
        tasks = len(joint) // 2
        cross = joint[:tasks, tasks:]
        weights = recall_weights(self.recall("lambda", cross[0], 1 / tasks))
        moved = project_on_simplex(weights - self.gamma * (cross @ weights + self.rho * weights))
        self.remember("lambda", torch.where(moved.isfinite().all(), moved, weights))
        return torch.cat([moved, torch.zeros_like(moved)])
