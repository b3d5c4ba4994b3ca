"""MOML, multi-objective meta-learning: Ye et al., NeurIPS 2021, arXiv 2102.07121."""

import torch
from torch import Tensor

from motet.linalg import as_double
from motet.methods.adam import adam_step
from motet.methods.auto_lambda import mean_norm
from motet.methods.base import TwoSampleMethod, register
from motet.solvers import min_norm_point


@register("moml", year=2021, cost="gram")
class MOML(TwoSampleMethod):
    r"""Learn the loss weights by MGDA on the validation losses, none of which may rise with them.

    The lower level trains θ on Σⱼ wⱼLⱼ, w = softmax(α). One of its steps, θ' = θ - η Σⱼ wⱼgⱼ, gives the validation
    loss of task i the hypergradient

        dFᵢ/dwⱼ = -η vᵢ·gⱼ,  dFᵢ/dα = S dFᵢ/dw,  S = diag(w) - wwᵀ,

    from the gradients g on the training batch and v on the second: a column of the cross Gram matrix. The
    upper level takes their shortest convex combination Σᵢ γᵢ dFᵢ/dα, and Adam moves α along it.

    Args:
        lr: Learning rate of α. 1e-3 is that of the later code by the same authors, for FORUM's comparison.

    Shapes:
        joint (2K, 2K) → weights (2K,), summing to 1; those of the second batch are 0.

    Scale:
        All losses times c leave the weights as they are.

    Cost:
        The gradients of a second batch, and one MGDA: about two milliseconds at K = 40 on one CPU thread.

    Note:
        Hypergradients are taken at θ, the authors' at θ', through the lower step: the same to first order in η, which
        drops out. They are divided by the mean norms in both batches, so that Adam's ε of 1e-8 does not stop α where
        gradients are small. The authors' first code divides them by the validation losses before MGDA; the later one
        has the softmax, as here. Theirs weights heads, too. A task absent from the second batch has no say in MGDA.
    """

    scale = 1.0

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__()
        if not lr >= 0:
            raise ValueError(f"lr is the learning rate of MOML's loss weights and must not be negative, not {lr}")
        self.lr = lr

    def pair_weights(self, joint: Tensor) -> Tensor:
        joint = as_double(joint.detach())
        tasks = len(joint) // 2
        own, cross, second = joint[:tasks, :tasks], joint[:tasks, tasks:], joint[tasks:, tasks:]
        size = mean_norm(own) * mean_norm(second)
        w = self.recall("alpha", own[0], 0.0).softmax(0)
        gains = cross / torch.where(size > 0, size, 1.0)
        hyper = -w[:, None] * (gains - w @ gains)  # column i: dFᵢ/dα over η
        products = hyper.T @ hyper
        # A task without gradient on the second batch has no say, where its zero would have the only one.
        absent = torch.diag_embed((second.diagonal() <= 0) * (1e12 * products.diagonal().amax() + 1))
        common, self.converged = min_norm_point(products + absent)
        adam_step(self, "alpha", hyper @ common, self.lr)
        w = self.recall("alpha", w, 0.0).softmax(0)
        return torch.cat([w, torch.zeros_like(w)])
