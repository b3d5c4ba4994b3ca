"""The direction near the mean gradient that does most for the task that gains least (CAGrad)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from motet.solvers.complementarity import GradientSteps
from motet.solvers.path import Path
from motet.solvers.threads import one_thread
from motet.solvers.unit_diagonal import ROUNDING, lifted, unit_diagonal

TOLERANCE = 1e-6
STEPS = 50
"""Values of t that are tried, of which two to four are the rule."""
GUESSES = 3
"""Values of t that are guessed before, each from ten more gradient steps."""


@one_thread
def conflict_averse(gram: Tensor, c: float) -> tuple[Tensor, Tensor]:
    """max over d of minₖ gₖ·d subject to |d - g₀| ≤ c|g₀|, with g₀ the mean gradient.

    The least progress t is the unknown: x(t) ≥ 0 with G(1/K + x) ≥ t, complementary, gives the shortest
    change Jᵀx that lets every task reach t, and its length is a convex, increasing function of t. Its square is
    quadratic as long as the support of x stays: the t at which that is c²|g₀|² is tried next, kept in brackets. One
    table (`Path`) serves all t.

    At a Pareto-stationary point no direction has t > 0. If c is large enough to reach t = 0 there, the
    answer is the shortest change that does so, the projection of g₀ on the dual cone.

    Shapes:
        gram (…, K, K) → weights (…, K), converged (…).

    Returns:
        The weights 1/K + x, and whether the optimality conditions and the length hold to 1e-6. Rows of zero
        norm are left out of the minimum and have weight 1/K.

    Cost:
        Two to four t and as many pivots as the support changes; the host looks at each.
    """
    unit = unit_diagonal(gram)
    shape, tasks = unit.norms.shape, unit.norms.shape[-1]
    cosines = unit.measured.reshape(-1, tasks, tasks)
    norms, live = unit.norms.view(-1, 1, tasks), unit.live.view(-1, 1, tasks)
    matrix, lift = lifted(cosines)
    # Lengths are in units of the largest norm, and t in units that keep the shares of it within 1.
    largest = norms.amax(2, keepdim=True)
    share = live * torch.where(live, norms, torch.inf).amin(2, keepdim=True).clamp(max=largest) / norms
    mean = norms * live / (tasks * largest)
    progress = torch.bmm(mean, cosines)
    bound = c**2 * (mean * progress).sum(2, keepdim=True).clamp(min=0)
    # The mean alone reaches the one, and no change of that length that suits one task best takes it beyond the other.
    low, high = (
        torch.where(live, value / share, torch.inf).amin(2, keepdim=True).nan_to_num(posinf=0)
        for value in (progress, progress + 1.01 * bound.sqrt())
    )
    ball = _Ball(cosines, matrix, progress, share, bound, low, high)
    x, target = ball.guess()
    path = Path(matrix, torch.arange(len(matrix), device=matrix.device), ball.columns, x.squeeze(1) > 0)
    path, x, target, met = ball.search(path, target)
    if not met.all():
        # Shares far below 1e-16 of others are lost in a table that the others have been through.
        path, other_x, other_target, other_met = ball.search(path, target, renew=True)
        x, target = torch.where(met, x, other_x), torch.where(met, target, other_target)
        met = met | other_met
    if (lift > 0).any():
        x = ball.nearer(x, path.refined(x.squeeze(1), lift).unsqueeze(1), target)
    weights = 1 / tasks + torch.where(bound > 0, x, 0.0) * largest / norms
    return unit.finish(weights.view(shape), met.view(shape[:-1]))


@dataclass(frozen=True)
class _Ball:
    """The problem in units, all in rows: x ≥ 0, progress + Cx ≥ t·share, complementary, xᵀCx = bound."""

    cosines: Tensor
    """(B, K, K)"""
    matrix: Tensor
    """C + δI: (B, K, K)"""
    progress: Tensor
    """With the mean gradient: (B, 1, K)."""
    share: Tensor
    """(B, 1, K)"""
    bound: Tensor
    """(B, 1, 1)"""
    low: Tensor
    high: Tensor
    """Between these is t: (B, 1, 1)."""

    @property
    def columns(self) -> Tensor:
        return torch.cat([self.progress, self.share], 1).mT

    def inner(self, one: Tensor, other: Tensor) -> Tensor:
        return (torch.bmm(one, self.cosines) * other).sum(2, keepdim=True)

    def guess(self) -> tuple[Tensor, Tensor]:
        """x and t by gradient steps for x and Newton's steps for t."""
        target, x, steps = self.high, torch.zeros_like(self.progress), GradientSteps(self.matrix)
        for _ in range(GUESSES):
            x = steps(self.progress - target * self.share, x, 10)
            square = self.inner(x, x).clamp(min=0)
            after = target - (square - (self.bound * square).sqrt()) / (self.share * x).sum(2, keepdim=True)
            target = torch.where((after > self.low) & (after < self.high), after, self.high)
        return x, target

    def search(self, path: Path, target: Tensor, *, renew: bool = False) -> tuple[Path, Tensor, Tensor, Tensor]:
        """x and t from a first t, and whether they meet the conditions; with ``renew`` in a new table for each t."""
        low, high, capped = self.low, self.high, torch.zeros_like(target, dtype=torch.bool)
        still, rounding = self.bound == 0, 1e-9 * self.bound
        for _ in range(STEPS):
            mix = torch.cat([torch.ones_like(target), -target], 2).squeeze(1)
            x = path.settle(mix).unsqueeze(1)
            if renew:
                path = path.renewed(self.matrix, self.columns)
                x = path.settle(mix).unsqueeze(1)
            square, size = self.inner(x, x).clamp(min=0), (x * x).sum(2, keepdim=True)
            excess = square - self.bound
            # The change is lost in the rounding of vectors that cancel: 0 is in the hull and t cannot exceed 0.
            lost = (target > 0) & (size > 0) & (square <= 2 * ROUNDING * size)
            capped = capped | lost
            stationary = capped & (target == 0) & (excess <= rounding)
            done = stationary | (excess.abs() <= rounding) | still
            if done.all():
                break
            low = torch.where((excess < 0) & ~lost, target, low)
            high = torch.where(lost, 0.0, torch.where(excess > 0, target, high))
            move = path.along(1).unsqueeze(1)
            tilt = self.inner(x, move)
            after = target - excess / (tilt + (tilt**2 - self.inner(move, move) * excess).clamp(min=0).sqrt())
            after = torch.where((after > low) & (after < high), after, (low + high) / 2)
            target = torch.where(done, target, torch.where(lost, 0.0, after))
        off = torch.minimum(x, self.progress - target * self.share + torch.bmm(x, self.matrix)).abs()
        terms = torch.cat([x, self.progress.abs(), self.bound.sqrt()], 2).amax(2, keepdim=True)
        met = (off.amax(2, keepdim=True) <= TOLERANCE * terms) & (stationary | (excess.abs() <= TOLERANCE * self.bound))
        return path, x, target, met | still

    def nearer(self, x: Tensor, refined: Tensor, target: Tensor) -> Tensor:
        """Of two x for the same t the one that is nearer to the conditions with C itself, if it is as long."""
        both = torch.cat([x, refined], 1)
        slack = self.progress - target * self.share + torch.bmm(both, self.cosines)
        now, then = torch.minimum(both, slack).abs().amax(2, keepdim=True).split(1, 1)
        square = self.inner(refined, refined)
        allowed = ((square - self.bound).abs() <= TOLERANCE * self.bound) | ((target == 0) & (square <= self.bound))
        return torch.where(allowed & (then < now), refined, x)
