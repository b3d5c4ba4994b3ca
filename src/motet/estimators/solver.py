"""Spectral proximal gradient: Wright, Nowak & Figueiredo (SpaRSA), IEEE Trans. Signal Processing 2009."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from motet.estimators.network import Activations, Layout, backward, clip, forward
from motet.estimators.proximal import Penalty
from motet.estimators.tables import Tables
from motet.losses.rank import Pairs

CHECK = 5  # steps between two looks at the residuals
ROUNDS = 5  # times that features may come back at one λ
SHORTER = 12  # times that a step may be quartered
NOISE = 1e-7  # of the objective in float32: differences below it are no reason to shorten a step


def probe(strength: Tensor) -> float:
    """A step η short enough for λη to be far below the length of a row that lives."""
    finite = strength[strength.isfinite()]
    return 0.01 / (1 + float(finite.amax())) if len(finite) else 0.01


class Criterion(Protocol):
    """What is asked of an outcome's pairs."""

    total: float

    def loss(self, scores: Tensor, kind: str = ..., bandwidth: float = ...) -> Tensor:
        """A differentiable 0-dim loss of scores (n,)."""

    def concordance(self, scores: Tensor) -> float:
        """The share of pairs in order."""


@dataclass
class Objective:
    """Σ_k w_k L_k(f_k), the smooth part."""

    pairs: Sequence[Criterion]
    weights: Tensor  # (K,) float64
    kind: str = "logistic"
    bandwidth: float = 1.0
    dtype: torch.dtype = torch.float64  # of the tables of pairs, where there are few enough

    def __post_init__(self) -> None:
        exact = [pairs for pairs in self.pairs if isinstance(pairs, Pairs)]
        serve = Tables.serve(self.pairs, self.kind)
        self._tables = Tables(exact, self.bandwidth, self.dtype) if serve else None

    def losses(self, scores: Tensor, value: bool = True) -> tuple[Tensor, Tensor]:
        """L_k (K,) in float64 and Σ w_k ∂L_k/∂f (n, K); without ``value`` L may be NaN, which is less work."""
        if self._tables is not None and (found := self._tables.losses(scores.detach(), value)) is not None:
            return found[0], (found[1] * self.weights).to(scores.dtype)
        columns = [column.double().requires_grad_() for column in scores.detach().unbind(1)]
        with torch.enable_grad():
            losses = [pairs.loss(f, self.kind, self.bandwidth) for pairs, f in zip(self.pairs, columns, strict=True)]
            slopes = torch.autograd.grad(losses, columns, list(self.weights.unbind()))
        return torch.stack(losses).detach(), torch.stack(slopes, 1).to(scores.dtype)


class Point(NamedTuple):
    """A network, its losses and its objective."""

    flat: Tensor
    passed: Activations
    losses: Tensor
    slope: Tensor
    value: float


class Solution(NamedTuple):
    """Where the solver stopped: live columns only."""

    flat: Tensor
    features: Tensor  # (a,) the feature of each row of the first layer
    losses: Tensor  # (K,)
    scores: Tensor  # (n, K) on the training rows
    kkt: float
    steps: int
    step_size: float


@dataclass
class Solver:
    """Minimise Σ w_k L_k + λ Σ a_q‖W_q‖ over the norm balls at one λ, from a warm start.

    A step is θ ← Π_B prox(θ - η∇) with the Barzilai–Borwein η, shortened until the objective lies below the largest of
    the last few. Zero columns leave the matrix products; when the rest is solved their gradients are looked at, and
    those that violate ‖∇_q‖ ≤ λa_q come back.

    Args:
        layout: Of the network over all p features.
        objective: The smooth part.
        X: (n, p) in the network's dtype.
        penalty: Of the first layer's rows.
        bound: B of the heads.
        steps: At most so many steps per λ.
        tol: Residual over λ that counts as solved.
        memory: Objectives that the line search compares with.
    """

    layout: Layout
    objective: Objective
    X: Tensor
    penalty: Penalty
    bound: float
    steps: int = 100
    tol: float = 0.02
    memory: int = 5

    def point(self, layout: Layout, X: Tensor, flat: Tensor, strength: Tensor) -> Point:
        """The network with its objective."""
        passed = forward(layout, flat, X)
        losses, slope = self.objective.losses(passed.scores)
        value = float(losses @ self.objective.weights) + self.penalty.value(layout.split(flat).first, strength)
        return Point(flat, passed, losses, slope, value)

    def moved(self, layout: Layout, flat: Tensor, gradient: Tensor, step: float, strength: Tensor) -> Tensor:
        """One projected proximal step."""
        new = torch.sub(flat, gradient, alpha=step)
        first = layout.split(new).first
        first.copy_(self.penalty.prox(first, strength, step))
        return clip(layout, new, self.bound)

    def residual(self, layout: Layout, flat: Tensor, gradient: Tensor, strength: Tensor) -> float:
        """‖θ - Π_B prox(θ - η∇)‖/η over λ for a small η: the worst live row, or the heads as a whole."""
        if not len(strength):
            return 0.0
        flat, strength, step = flat.double(), strength.double(), probe(strength)
        apart = (flat - self.moved(layout, flat, gradient.double(), step, strength)) / step
        rows = (layout.split(apart).first.norm(dim=1) / strength).amax()
        heads = apart[layout.sizes[0] :].norm() / strength.amin()
        return float(torch.maximum(rows, heads))

    def solve(self, flat: Tensor, features: Tensor, strength: Tensor, step_size: float = 1.0) -> Solution:
        """From a network over the columns `features`; λa (p,) is of all columns, infinite where one may not enter."""
        taken = 0
        for _ in range(ROUNDS):
            flat, features, passed, taken, step_size, kkt, delta = self._descend(
                flat, features, strength, taken, step_size
            )
            full = self.X.T @ delta
            full[features] = 0
            outside = self.penalty.residual(torch.zeros_like(full), full, strength, probe(strength)) / strength
            entering = (outside > self.tol).nonzero().squeeze(1)
            kkt = max(kkt, float(outside.amax())) if len(outside) else kkt
            if not len(entering) or taken >= self.steps:
                break
            flat, features = self._joined(flat, features, entering)
        return Solution(flat, features, passed.losses, passed.passed.scores, kkt, taken, step_size)

    def _descend(
        self, flat: Tensor, features: Tensor, strength: Tensor, taken: int, step_size: float
    ) -> tuple[Tensor, Tensor, Point, int, float, float, Tensor]:
        """Spectral steps over `features` until solved or out of steps; columns that become zero are dropped."""
        layout, X, own = self.layout.restricted(len(features)), self.X[:, features].contiguous(), strength[features]
        now = self.point(layout, X, flat, own)
        gradient, delta = backward(layout, flat, X, now.passed, now.slope)
        recent = deque([now.value], self.memory)
        kkt = self.residual(layout, flat, gradient, own)
        while kkt > self.tol and taken < self.steps:
            after, step_size = self._search(layout, X, now, gradient, own, step_size, max(recent))
            if after is None:
                kkt = self.residual(layout, now.flat, gradient, own)
                break
            taken += 1
            before, (gradient, delta) = gradient, backward(layout, after.flat, X, after.passed, after.slope)
            step_size = self._length(after.flat - now.flat, gradient - before, step_size, taken)
            now = after
            recent.append(now.value)
            look = taken >= self.steps or taken % CHECK == 0
            if look:
                kkt = self.residual(layout, now.flat, gradient, own)
            alive = layout.split(now.flat).first.any(1)
            dead = len(alive) - int(alive.sum())
            if dead and (look or dead > 0.2 * len(alive)):
                gradient = self._kept(layout, gradient, alive)
                now = now._replace(flat=self._kept(layout, now.flat, alive))
                features, own, X = features[alive], own[alive], X[:, alive].contiguous()
                layout = layout.restricted(len(features))
        return now.flat, features, now, taken, step_size, kkt, delta

    def _search(
        self, layout: Layout, X: Tensor, now: Point, gradient: Tensor, strength: Tensor, step: float, ceiling: float
    ) -> tuple[Point | None, float]:
        """The first of the steps η, η/4, η/16 … that ends below the ceiling; None where rounding lets none."""
        for _ in range(SHORTER):
            new = self.moved(layout, now.flat, gradient, step, strength)
            distance = float((new - now.flat).square().sum())
            try:
                after = self.point(layout, X, new, strength)
            except ValueError:  # the step was so long that the loss overflows; `now` itself has passed this check
                after = now._replace(value=torch.inf)
            if after.value <= ceiling - 1e-4 * distance / (2 * step) + NOISE * abs(now.value):
                return after, step
            step /= 4
        return None, step

    @staticmethod
    def _length(apart: Tensor, bend: Tensor, step: float, count: int) -> float:
        """The two Barzilai–Borwein lengths in turn; along negative curvature twice the last one."""
        along = float(apart @ bend)
        if along > 0:
            step = float(apart @ apart) / along if count % 2 else along / float(bend @ bend)
        else:
            step *= 2
        return min(max(step, 1e-4), 1e4)

    @staticmethod
    def _kept(layout: Layout, flat: Tensor, alive: Tensor) -> Tensor:
        rows = layout.split(flat).first[alive]
        return torch.cat([rows.reshape(-1), flat[layout.sizes[0] :]])

    def _joined(self, flat: Tensor, features: Tensor, entering: Tensor) -> tuple[Tensor, Tensor]:
        layout = self.layout.restricted(len(features))
        rows = layout.split(flat).first
        rows = torch.cat([rows, rows.new_zeros(len(entering), layout.width)])
        features, order = torch.cat([features, entering]).sort()
        return torch.cat([rows[order].reshape(-1), flat[layout.sizes[0] :]]), features
