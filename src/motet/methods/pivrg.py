"""PIVRG, performance-informed variance reduction: Qin et al., CVPR 2025."""

from collections.abc import Sequence

import torch
from torch import Tensor

from motet.linalg import as_double
from motet.methods.base import GramMethod, register
from motet.solvers import fair_fixed_point


@register("pivrg", year=2025, cost="gram")
class PIVRG(GramMethod):
    r"""FairGrad's direction, in which tasks that are worse off than others count for more.

    With a score sₖ, the per cent by which a task is behind its reference, the weights solve

        G w = (ω/w)^(1/2),  ω = K softmax(s/T),  T = max((max s - min s) / log(bound), temperature),

    so that no two ω differ by more than the factor ``bound``. Equal scores give FairGrad with α = 2.

    Args:
        baseline: The losses that single-task models reach, one a task, all positive: s = 100 (L/baseline - 1). None
            takes each task's first loss, so that s is the per cent of it that is left, but for a constant.
        bound: Largest ratio of two ω, > 1. 2 is the authors' default.
        temperature: Least T, > 0, in per cent points. 10 is the authors' default.
        beta: Smoothing of the losses over steps, in [0, 1).

    Shapes:
        gram (K, K) → weights (K,).

    Scale:
        All losses times c, from the start, give weights times c^(-4/3) where there is no baseline.

    Cost:
        As FairGrad; two numbers of state a task.

    Note:
        Reconstruction as to the scores. The authors compute them once an epoch from the metrics, against those of
        single-task models; a method sees losses, so here the smoothed training losses stand in. Their code
        solves the same equation by least squares and multiplies the update by K. At a Pareto-stationary point
        the weights are the best iterate, finite, and ``converged`` is False. A task with a zero gradient has weight 0.
    """

    no_conflict = True
    lower_bound = 0.0

    def __init__(
        self,
        baseline: Sequence[float] | Tensor | None = None,
        bound: float = 2.0,
        temperature: float = 10.0,
        beta: float = 0.9,
    ) -> None:
        super().__init__()
        if not (bound > 1 and temperature > 0):
            raise ValueError(f"bound of PIVRG must exceed 1 and temperature 0, not {bound} and {temperature}")
        if not 0 <= beta < 1:
            raise ValueError(f"beta is PIVRG's smoothing and must be at least 0 and below 1, not {beta}")
        self.baseline = None if baseline is None else as_double(torch.as_tensor(baseline))
        if self.baseline is not None and self.baseline.dim() != 1:
            raise ValueError(f"baseline of PIVRG is one loss a task, not {baseline}")
        if self.baseline is not None and not (self.baseline.isfinite() & (self.baseline > 0)).all():
            raise ValueError(f"baseline of PIVRG holds losses, which must be positive and finite, not {baseline}")
        self.bound = bound
        self.temperature = temperature
        self.beta = beta
        self.scale = -1 / 3 if baseline is None else None
        self.symmetric = baseline is None

    def weights(self, gram: Tensor) -> Tensor:
        losses = self.above_bound(self.observed(as_double(gram.detach()).diagonal()))
        first, average = self.recall("first", losses, 0.0), self.recall("average", losses, 0.0)
        new = first == 0
        first, average = torch.where(new, losses, first), torch.where(new, losses, average.lerp(losses, 1 - self.beta))
        self.remember("first", first)
        self.remember("average", average)
        reference = first if self.baseline is None else self.chosen(self.baseline, losses)
        scores = 100 * average / reference
        spread = (scores.amax() - scores.amin()) / torch.tensor(self.bound).log()
        weights = len(scores) * (scores / spread.clamp(min=self.temperature)).softmax(0)
        # With w = y/ω the equation is FairGrad's: (G/ωωᵀ) y = y^(-1/2).
        solution, self.converged = fair_fixed_point(gram.to(weights) / weights / weights[:, None], 2.0)
        return solution / weights
