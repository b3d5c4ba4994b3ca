"""FORUM, first-order multi-gradient bilevel optimization: Ye et al., ECAI 2024, arXiv 2401.09257."""

import torch
from torch import Tensor

from motet.linalg import as_double
from motet.methods.adam import adam_step
from motet.methods.base import TwoSampleMethod, register
from motet.solvers import unit_diagonal
from motet.solvers.simplex import minimise_on_simplex


@register("forum", year=2024, cost="gram")
class FORUM(TwoSampleMethod):
    r"""Descend all validation losses together while the training loss nears its value function, first order only.

    The upper variables are the loss weights w = softmax(α), the lower one is θ. The bilevel problem is
    min over (α, θ) of the validation losses F subject to q = f(α, θ) - f(α, θ̃) ≤ 0 with f = Σᵢ wᵢLᵢ on the training
    batch and θ̃ = θ - η∇f the inner solution. With the gradients g on the training batch and v on the second,

        ∇q = (S δ, g_w),  g_w = Σᵢ wᵢgᵢ,  δᵢ = Lᵢ(θ) - Lᵢ(θ̃) ≈ η gᵢ·g_w,  S = diag(w) - wwᵀ,
        ∇Fᵢ = (0, uᵢ),  uᵢ = vᵢ / |vᵢ|.

    The direction d maximises minᵢ ∇Fᵢ·d - ½|d|² subject to ∇q·d ≥ ρ|∇q|², whose dual over the simplex gives λ and

        d = Σᵢ λᵢ∇Fᵢ + ν∇q,  ν = max(0, ρ - Σᵢ λᵢ ∇Fᵢ·∇q / |∇q|²).

    Its part for θ is the update, with weights on the second batch; Adam moves α along the other.

    Args:
        rho: ρ > 0: how fast the training loss is to fall beside the validation losses.
        eta: η > 0, the inner step: the learning rate of θ, more or less.
        lr: Learning rate of α. 1e-3 is that of the authors' code.

    Shapes:
        joint (2K, 2K) → weights (2K,).

    Scale:
        None: validation gradients are brought to unit length, training gradients are not.

    Cost:
        The gradients of a second batch, and one or two quadratic programmes: some 15 milliseconds at K = 40 on one CPU
        thread.

    Note:
        Reconstruction in what the Gram matrix cannot hold: δ is the first-order value of one inner step, where the
        authors' code takes several, with losses evaluated anew. ρ and η are arguments without default there, and 0.1
        is chosen here. There λ is averaged over epochs, here it is that of the batch. The update trains on the second
        batch, as the authors' does. A task without gradient there takes part in q alone.
    """

    def __init__(self, rho: float = 0.1, eta: float = 0.1, lr: float = 1e-3) -> None:
        super().__init__()
        if not (rho > 0 and eta > 0 and lr >= 0):
            raise ValueError(f"FORUM needs rho and eta above 0 and lr not negative, not {rho}, {eta} and {lr}")
        self.rho = rho
        self.eta = eta
        self.lr = lr

    def pair_weights(self, joint: Tensor) -> Tensor:
        joint = as_double(joint.detach())
        tasks = len(joint) // 2
        own, cross = joint[:tasks, :tasks], joint[:tasks, tasks:]
        second = unit_diagonal(joint[tasks:, tasks:])
        w = self.recall("alpha", own[0], 0.0).softmax(0)
        progress = own @ w
        slope = self.eta * w * (progress - w @ progress)  # ∇q with respect to α
        square = (w @ progress).clamp(min=0) + slope @ slope
        along = (w @ cross) / second.norms  # ∇Fᵢ·∇q
        share = torch.where(square > 0, along / torch.where(square > 0, square, 1.0), 0.0)
        weights = torch.zeros_like(w)
        self.converged = second.finite
        if len(rows := second.live.nonzero().squeeze(1)):
            weights[rows], self.converged = self._dual(second.cosines[rows][:, rows], along[rows], share[rows])
        nu = (self.rho - weights @ share).clamp(min=0)
        adam_step(self, "alpha", nu * slope, self.lr)
        return torch.where(second.finite, torch.cat([nu * w, weights / second.norms]), torch.nan)

    def _dual(self, unit: Tensor, along: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """λ of the live tasks, from the Gram matrix of ∇F, ∇F·∇q and that over |∇q|²."""
        weights, converged = minimise_on_simplex(unit, torch.zeros_like(along))
        if weights @ share >= self.rho:  # fast enough without ∇q: ν is 0
            return weights, converged
        # With the best ν for each λ: ½|Σλᵢ∇Fᵢ|² - ½|∇q|² (ρ - Σλᵢ∇Fᵢ·∇q/|∇q|²)², up to a constant.
        return minimise_on_simplex(unit - torch.outer(along, share), self.rho * along)
