"""SAM-GS, similarity-aware momentum gradient surgery: Borsani et al., 2025, arXiv 2506.06130."""

import torch
from torch import Tensor

from motet.linalg import as_double, combine
from motet.methods.base import JacobianMethod, register

_EPS = 1e-8


@register("sam-gs", year=2025, cost="jacobian")
class SAMGS(JacobianMethod):
    r"""Equalise the gradients where their lengths differ much; else let each one's momentum modulate it.

    With s the mean over all pairs of tasks of the magnitude similarity 2|gᵢ||gⱼ| / (|gᵢ|² + |gⱼ|²),

        m ← β₁m + (1-β₁)g,  v ← β₂v + (1-β₂)(1-s)² + 1e-8,

        s < γ:  d = meanⱼ|gⱼ| Σₖ gₖ/|gₖ|;   else  d = Σₖ gₖ ∘ |m̂ₖ| / √v̂,

    parameter by parameter, with m̂ and v̂ corrected for their start at zero.

    Args:
        gamma: γ in [0, 1]: the similarity below which gradients are equalised. 0.1 in the authors' code, where the
            experiments set their own.
        beta1: β₁ in [0, 1), smoothing of the gradients.
        beta2: β₂ in [0, 1), smoothing of the dissimilarity.

    Shapes:
        jacobian (K, P) → direction (P,).

    Scale:
        No law: d grows as the losses do where gradients are equalised, and as their square where they are modulated.

    Cost:
        The whole Jacobian at every step and as much again in state.

    Note:
        Reconstruction from the authors' code, whose reinforcement-learning version equalises as soon as one pair is
        below γ. Where lengths agree, v̂ is tiny and d long: the code clips it at length 1, and an optimizer that is free
        of the scale, such as Adam, or clipping belongs to this method. Tasks with a zero gradient are left out of the
        similarity; with less than two others there is none, and the gradient is taken as it is. v is kept for each
        task over the steps in which it is present.
    """

    same_rows = True

    def __init__(self, gamma: float = 0.1, beta1: float = 0.9, beta2: float = 0.99) -> None:
        super().__init__()
        if not 0 <= gamma <= 1:
            raise ValueError(f"gamma is a similarity of SAM-GS and must be in [0, 1], not {gamma}")
        if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
            raise ValueError(f"beta1 and beta2 of SAM-GS must be at least 0 and below 1, not {beta1} and {beta2}")
        self.gamma = gamma
        self.beta1 = beta1
        self.beta2 = beta2

    def direction(self, jacobian: Tensor) -> Tensor:
        jacobian = jacobian.detach()
        rows = jacobian if jacobian.dtype == torch.float64 else jacobian.float()
        norms = as_double(torch.linalg.vector_norm(rows, dim=1))
        live = norms > 0
        count, similarity = live.sum(), _similarity(norms, live)
        alone = count < 2

        momentum = self.recall("momentum", rows, 0.0).lerp(rows, 1 - self.beta1)
        former = self.recall("dissimilarity", norms, 0.0)
        spread = self.beta2 * former + (1 - self.beta2) * (1 - similarity) ** 2 + _EPS
        steps, pairs = self.recall("steps", norms, 0.0) + 1, self.recall("pairs", norms, 0.0) + 1
        scale = (spread / (1 - self.beta2**pairs)).rsqrt() / (1 - self.beta1**steps)
        modulated = (rows * momentum.abs() * scale.to(rows)[:, None]).sum(0).to(jacobian.dtype)
        length = norms.sum() / count.clamp(min=1)
        equalised = combine(torch.where(live, length / torch.where(live, norms, 1.0), 0.0), jacobian)
        direction = torch.where(alone | (similarity < self.gamma), equalised, modulated)
        # One gradient that is not finite shows in every entry; kept, it would in every later step.
        if rows.isfinite().all():
            self.remember("momentum", momentum)
            self.remember("steps", steps)
            self.remember("dissimilarity", torch.where(alone, former, spread))
            self.remember("pairs", torch.where(alone, pairs - 1, pairs))
        return direction


def _similarity(norms: Tensor, live: Tensor) -> Tensor:
    """The mean magnitude similarity over all pairs of tasks that have a gradient: (K,), (K,) → ()."""
    ratio = norms / torch.where(live, norms, 1.0)[:, None]
    alike = torch.where(live & live[:, None], 2 / (ratio + 1 / torch.where(ratio > 0, ratio, 1.0)), 0.0)
    pairs = live.sum() * (live.sum() - 1)
    return (alike.sum() - live.sum()) / pairs.clamp(min=1)
