"""Self-guided learning: Mahmood et al., Scientific Reports 2026, DOI 10.1038/s41598-026-36622-y."""

import math
from typing import Literal

import torch
from torch import Tensor

from motet.linalg import as_double
from motet.methods.base import SampleMethod, register
from motet.solvers.floored import minimise_above_floor

_LEAST = 1e-30
"""Least variance of a task in "invvar", over the largest: below it, weights would overflow."""


@register("self-guided", year=2026, cost="gram")
class SelfGuided(SampleMethod):
    r"""Less noise in the trunk's gradient, from how much the tasks' gradients differ between a batch's samples.

    With signal M̂ and noise Ĉ of the tasks' batch-mean gradients as moving averages, vₖ = Ĉₖₖ and
    mₖ = √(max(M̂ₖₖ, 0) + vₖ), the weights w ≥ f, Σw = K, are

        "progress":   argmin wᵀĈw with wᵀM̂1 ≥ 1ᵀM̂1, and uniform where 1ᵀM̂1 ≤ 0,
        "simplex":    argmin wᵀĈw,
        "invvar":     f + (1 - f) K vₖ^(-τ) / Σⱼ vⱼ^(-τ),
        "magnitude":  f + (1 - f) K mₖ⁻¹ / Σⱼ mⱼ⁻¹.

    For the true moments "progress" is never above uniform weights in variance, since they are allowed too, nor in
    variance over the squared mean, since the mean gradient is no shorter. "simplex" is not above them in variance
    alone; "invvar" neither, where the tasks' noise is uncorrelated.

    Args:
        mode: How the weights follow from the moments, see above.
        tau: τ in [0, 1] of "invvar": 0 is uniform, 1 the least variance of uncorrelated noise.
        floor: f, the least weight, in [0, 1].
        beta: Share of the former moments in the averages, in [0, 1). Their start at zero is corrected for.
        warmup: Steps in which a task's moments are collected and its weight is 1, ≥ 0. The others share the rest.

    Shapes:
        signal (K, K), noise (K, K) → weights (K,), summing to K.

    Scale:
        All losses times c leave the weights as they are. With "magnitude" and floor = 0 a factor on one loss alone
        leaves the direction, once all averages know it.

    Cost:
        One look at K rows of the features' size for the products between tasks, about 33 multiply-adds a number for the
        last layer's, and a few solves of K + 2 equations; 3·K² numbers of state. One backward pass of the trunk.

    Note:
        Reconstruction: the paper's equations are not public, only that gradient magnitudes adjust task-specific
        learning rates and that weighted gradients are combined to reduce variance. All formulas here and all
        defaults are ours; `learning_rates` is the first mechanism, the weights are the second.

        The moments are those of the trunk's last layer where it is linear with one row a sample, else those at the
        features, so the bounds hold for the trunk as far as the layers below are alike over the samples, and for
        estimates about. With moments at the features "progress" had up to four times the noise of uniform weights in an
        untrained network. With those of the last layer its variance was between -61 % and +2 % of theirs, and the
        variance over the squared mean between -76 % and +6 %, at three stages of two problems with three seeds each;
        the other modes' was up to seven times theirs (``benchmarks/self_guided.py``). In the warm-up the averages
        settle; whether it helps training is not measured. Samples must not be coupled: use LayerNorm, not BatchNorm.
        The newest batch is part of the averages, so its weights are not independent of its gradients. A task without
        a known, non-zero gradient keeps its averages. From a Gram matrix alone noise is taken as none: `weights` is
        exact for "magnitude", and uniform for the other modes.

        With bounded weights that are constant within a step, SGD's usual bound holds for Σ wₖLₖ, plus a term for how
        fast the weights drift; nothing is claimed of the unweighted sum's stationary points.
    """

    scale = 1.0

    def __init__(
        self,
        mode: Literal["progress", "magnitude", "invvar", "simplex"] = "progress",
        tau: float = 1.0,
        floor: float = 0.1,
        beta: float = 0.9,
        warmup: int = 50,
    ) -> None:
        super().__init__()
        if mode not in ("progress", "magnitude", "invvar", "simplex"):
            raise ValueError(f"mode must be 'progress', 'magnitude', 'invvar' or 'simplex', not {mode!r}")
        if not 0 <= tau <= 1:
            raise ValueError(f"tau is the exponent of mode 'invvar' and must be in [0, 1], not {tau}")
        if not 0 <= floor <= 1:
            raise ValueError(f"floor is the least weight and must be in [0, 1], not {floor}")
        if not 0 <= beta < 1:
            raise ValueError(f"beta is the share of the former moments and must be at least 0 and below 1, not {beta}")
        if isinstance(warmup, bool) or not isinstance(warmup, int) or warmup < 0:
            raise ValueError(f"warmup must be a whole number of steps of at least 0, not {warmup!r}")
        self.mode = mode
        self.tau = tau
        self.floor = floor
        self.beta = beta
        self.warmup = warmup

    def sample_weights(self, signal: Tensor, noise: Tensor) -> Tensor:
        signal, noise, seen = self._average(as_double(signal.detach()), as_double(noise.detach()))
        self.converged = True
        ready = (seen > self.warmup) & (_magnitudes(signal, noise) > 0)
        if ready.all():
            return self._weigh(signal, noise)
        weights = torch.ones_like(seen)
        chosen = ready.nonzero().squeeze(1)
        weights[chosen] = self._weigh(signal[chosen][:, chosen], noise[chosen][:, chosen])
        return weights

    def _weigh(self, signal: Tensor, noise: Tensor) -> Tensor:
        """Weights from the moments of tasks that are ready, with their number as sum."""
        tasks = len(signal)
        if self.mode == "magnitude":
            logs = -_magnitudes(signal, noise).log()
        elif self.mode == "invvar":
            variances = noise.diagonal()
            # No noise at all would have an infinite weight, and where none has any all have the same.
            logs = -self.tau * variances.clamp(min=_LEAST * float(variances.amax()) if tasks else 0).log()
            logs = torch.where(logs.isfinite(), logs, 0.0)
        elif self.mode == "progress" and not signal.sum() > 0:
            return torch.ones_like(signal[0]) if tasks else signal.new_zeros(0)
        else:
            row = signal.sum(1) if self.mode == "progress" else None
            weights, self.converged = minimise_above_floor(noise, self.floor, row)
            return weights
        return self.floor + (1 - self.floor) * tasks * logs.softmax(0)

    @property
    def learning_rates(self) -> Tensor:
        """Factors on the learning rates of the tasks' own parameters, for `motet.optim.TaskRates`: (K,).

        rₖ = (geometric mean of m / mₖ)^½, brought into [⅓, 3] and then to a sum of K: tasks with small gradients learn
        faster. Under Adam a factor on the loss would do nothing there. Of all tasks that are known, in the order of
        `motet.Balancer.tasks`; 1 for those that are warming up.
        """
        if "moments" not in self._state:
            return torch.ones(0)
        stored = self._state["moments"]
        task = torch.arange(math.isqrt(len(stored)), device=stored.device)
        signal, noise, seen = self._corrected(stored[task * task + 2 * task]).unbind(1)
        m = (signal.clamp(min=0) + noise).sqrt()
        ready = (seen > self.warmup) & (m > 0)
        logs = torch.where(ready, torch.where(ready, m, 1.0).log(), 0.0)
        count = ready.sum().clamp(min=1)
        rates = ((logs.sum() / count - logs) / 2).exp().clamp(1 / 3, 3)
        return torch.where(ready, rates * count / torch.where(ready, rates, 0.0).sum(), 1.0)

    def _average(self, signal: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Moments averaged up to this step, (K, K) each, and how many steps know each task: (K,)."""
        tasks = len(signal)
        new = torch.stack([signal, noise, torch.ones_like(signal)], 2).view(-1, 3)
        sizes = _magnitudes(signal, noise)
        known = (sizes > 0) & sizes.isfinite()
        pairs = (known[:, None] & known).flatten() & new.isfinite().all(1)
        with self.on_pairs("moments", tasks):
            old = self.recall("moments", new, 0.0)
            moved = torch.lerp(new, old, self.beta)
            moved[:, 2] = old[:, 2] + 1
            kept = torch.where(pairs[:, None], moved, old)
            self.remember("moments", kept)
        signal, noise, seen = self._corrected(kept).view(tasks, tasks, 3).unbind(2)
        return signal, noise, seen.diagonal()

    def _corrected(self, moments: Tensor) -> Tensor:
        """Sums that start at zero as averages: (N, 3) → (N, 3), the last column being the number of steps."""
        share = 1 - self.beta ** moments[:, 2:]
        return torch.cat([moments[:, :2] / torch.where(share > 0, share, 1.0), moments[:, 2:]], 1)


def _magnitudes(signal: Tensor, noise: Tensor) -> Tensor:
    """√(max(M̂ₖₖ, 0) + vₖ): (K, K), (K, K) → (K,)."""
    return (signal.diagonal().clamp(min=0) + noise.diagonal().clamp(min=0)).sqrt()
