"""EPO, exact Pareto optimal search: Mahapatra & Rajan, ICML 2020."""

from collections.abc import Sequence

import torch
from torch import Tensor

from motet.linalg import as_double
from motet.methods.base import register
from motet.methods.preferred import PreferredMethod
from motet.solvers.simplex import minimise_on_simplex


@register("epo", year=2020, cost="gram")
class EPO(PreferredMethod):
    r"""Find the Pareto-optimal point at which all rₖLₖ are equal, letting losses rise on the way where they must.

    With l̂ = rL/ΣrⱼLⱼ the non-uniformity is µ = Σ l̂ₖ log(K l̂ₖ). The anchoring direction, in the space of the losses,
    is its gradient up to a factor: aₖ = rₖ(log(K l̂ₖ) - µ). The weights, w ≥ 0 and Σw = 1, solve a linear programme.

        balance, µ > ε:    max aᵀGw    where (Gw)ⱼ ≥ 0 for the task of the largest rⱼLⱼ, and (Gw)ⱼ ≥ (Ga)ⱼ
                                       for the others with (Ga)ⱼ ≤ 0; if all of (Ga)ⱼ ≤ 0, (Gw)ⱼ ≥ 0 for all tasks
        descent, µ ≤ ε:    max 1ᵀGw    where (Gw)ⱼ ≥ 0 for all tasks

    Args:
        preference: r, one positive number a task; None: equal. Twice the preference means half the loss.
        epsilon: ε, the non-uniformity below which all losses descend together. 1e-4 is the authors'.

    Shapes:
        losses (K,), gram (K, K) → weights (K,), summing to 1.

    Scale:
        All losses times c leave the weights as they are.

    Cost:
        A linear programme by an interior-point method: about 4 ms at K = 2 and 8 at K = 40 on one CPU thread.

    Note:
        In balance a loss may rise, by at most what the anchoring direction itself would do to it. The authors' code
        adds to descent a bound on how far it may undo the balance, which not every w with Gw ≥ 0 meets; this is their
        form without that bound, "relaxed", which always has a solution. They also multiply the step by a
        multiple of max(µ, 0.1), toy problems, or max(µ, 0.2); these are the bare weights. Where several w
        are optimal theirs is a corner of that set, and this one lies inside of it.
    """

    scale = 1.0

    def __init__(self, preference: Sequence[float] | None = None, epsilon: float = 1e-4) -> None:
        super().__init__(preference)
        if not epsilon > 0:
            raise ValueError(f"epsilon is the non-uniformity at which EPO descends and must be positive, not {epsilon}")
        self.epsilon = epsilon

    def weights(self, gram: Tensor) -> Tensor:
        gram = as_double(gram.detach())
        losses = self.observed(gram[0])
        r = self.shares(losses)
        weighted = r * (losses / losses.amax())
        share = weighted / weighted.sum()
        surprise = (len(r) * share).clamp(min=torch.finfo(share.dtype).tiny).log()
        mu = (share * surprise).sum()
        # Gradients of the length of the longest one at most, and rows of unit length: what is small is not lost.
        norms = gram.diagonal().clamp(min=0).sqrt()
        longest = torch.where(norms.amax() > 0, norms.amax(), 1.0)
        rows = gram / torch.where(norms > 0, norms, 1.0)[:, None] / longest
        gram = gram / longest / longest
        anchor = r * (surprise - mu)
        gain, drop = gram @ anchor, rows @ anchor
        worst = weighted >= weighted.amax() * (1 - 1e-12)
        # A row of unit length is above -1 whatever the weights are: -2 is no bound.
        floor = torch.where(drop > 0, -2.0, drop)
        floor = torch.where(worst | (drop <= 0).all(), 0.0, floor)
        descends = mu <= self.epsilon
        linear = torch.where(descends, gram.sum(0), gain)
        floor = torch.where(descends, 0.0, floor)
        weights, self.converged = minimise_on_simplex(torch.zeros_like(gram), -linear, rows, floor)
        return weights
