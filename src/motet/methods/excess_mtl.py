"""ExcessMTL, robust multi-task learning with excess risks: He et al., ICML 2024."""

import torch
from torch import Tensor

from motet.linalg import as_double, combine
from motet.methods.base import JacobianMethod, register


@register("excess-mtl", year=2024, cost="jacobian")
class ExcessMTL(JacobianMethod):
    r"""Weigh the tasks by how far they still are from their own optimum, and not by their losses.

    The excess risk is estimated from the gradient g and the squares of all gradients so far, parameter by parameter:

        eₖ = gₖᵀ diag(Σ gₖ²)^(-1/2) gₖ,  wₖ ← wₖ exp(η eₖ/eₖ⁰) / Σⱼ wⱼ exp(η eⱼ/eⱼ⁰),

    with eₖ⁰ a task's mean excess over its first ``warmup`` steps, in which it counts as if e/e⁰ were 1.

    Args:
        eta: η, the step of the weights, > 0.
        warmup: Number of a task's steps that make up its reference, ≥ 1. 1 is the authors' code; on noisy batches
            a reference of several epochs is steadier.

    Shapes:
        jacobian (K, P) → direction Jᵀw (P,), Σw = 1.

    Scale:
        All losses times c, from the start, leave the weights as they are; so does one loss.

    Cost:
        The whole Jacobian at every step and as much again in state: the squares are kept for each parameter.

    Note:
        The authors' code and LibMTL have weights that sum to K, and add 1e-7 to the sums of squares. TorchJD's are
        these with ``n_warmup_steps = warmup``; with 0 it takes the first excess as it is. The weights scale the
        losses, heads included, in the paper; here heads get their own gradient, unscaled. Present tasks share among
        them the weight that they have.
    """

    scale = 1.0
    same_rows = True

    def __init__(self, eta: float = 1.0, warmup: int = 1) -> None:
        super().__init__()
        if not eta > 0:
            raise ValueError(f"eta is the step of ExcessMTL's weights and must be positive, not {eta}")
        if warmup < 1:
            raise ValueError(f"warmup of ExcessMTL is a number of steps and must be at least 1, not {warmup}")
        self.eta = eta
        self.warmup = warmup

    def direction(self, jacobian: Tensor) -> Tensor:
        jacobian = jacobian.detach()
        rows = jacobian if jacobian.dtype == torch.float64 else jacobian.float()
        squares = self.recall("squares", rows, 0.0) + rows**2
        tiny = torch.finfo(rows.dtype).tiny
        excess = as_double((rows**2 / squares.clamp(min=tiny).sqrt()).sum(1))
        seen, first = self.recall("seen", excess, 0.0), self.recall("first", excess, 0.0)
        learns = seen >= self.warmup
        ratio = torch.where(learns, excess / torch.where(learns, first, 1.0), 1.0)
        logits = self.recall("logits", excess, 0.0)
        moved = logits + self.eta * ratio
        # A part of the tasks keeps the weight that it has together, so that absent ones lose none to it.
        moved = moved.log_softmax(0) + logits.logsumexp(0)
        # A task without a gradient has no excess to be measured by yet.
        counts = (excess > 0) & ~learns
        if excess.isfinite().all():
            self.remember("squares", squares)
            self.remember("first", torch.where(counts, first + (excess - first) / (seen + 1), first))
            self.remember("seen", torch.where(counts, seen + 1, seen))
            self.remember("logits", moved)
        return combine(moved.softmax(0), jacobian)
