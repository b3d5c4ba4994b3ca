"""What LibMTL computes, written from its formulas in float64; as released it can't be imported to be compared with.

A run is a list of steps (losses (K,), gradients (K, P)); a definition returns the update of every step. An epoch is
the given number of steps. Constants that LibMTL adds against division by zero are kept where they are part of the
result to 1e-3, and left out elsewhere. The defaults are LibMTL's.
"""

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
from numpy import ndarray
from scipy.optimize import least_squares

Run = Sequence[tuple[ndarray, ndarray]]


def softmax(x: ndarray) -> ndarray:
    powers = np.exp(x - x.max())
    return powers / powers.sum()


class Adam:
    """Kingma & Ba's rule, as any optimizer of the model's would move learned weights."""

    def __init__(self, start: ndarray, lr: float, decay: float = 0.0) -> None:
        self.x, self.lr, self.decay = start.astype(float), lr, decay
        self.mean, self.square, self.steps = np.zeros_like(self.x), np.zeros_like(self.x), 0

    def step(self, slope: ndarray) -> None:
        slope = slope + self.decay * self.x
        self.steps += 1
        self.mean = 0.9 * self.mean + 0.1 * slope
        self.square = 0.999 * self.square + 0.001 * slope**2
        mean, square = self.mean / (1 - 0.9**self.steps), self.square / (1 - 0.999**self.steps)
        self.x = self.x - self.lr * mean / (np.sqrt(square) + 1e-8)


def ew(run: Run) -> list[ndarray]:
    return [rows.sum(0) for _, rows in run]


def uw(run: Run, start: float = -0.5, lr: float = 0.025) -> list[ndarray]:
    """Σ L/(2eˢ) + s/2, where s starts at -0.5."""
    scale, updates = Adam(np.full(len(run[0][0]), start), lr), []
    for losses, rows in run:
        updates.append(rows.T @ (0.5 * np.exp(-scale.x)))
        scale.step(0.5 - losses * np.exp(-scale.x) / 2)
    return updates


def dwa(run: Run, epoch: int, temperature: float = 2.0) -> list[ndarray]:
    """Ratios of the mean losses of the last two epochs; ones in the first two."""
    means, updates = [], []
    for step, (losses, rows) in enumerate(run):
        if step and step % epoch == 0:
            means.append(np.mean([past for past, _ in run[step - epoch : step]], axis=0))
        weights = np.ones_like(losses)
        if len(means) >= 2:
            weights = len(losses) * softmax(means[-1] / means[-2] / temperature)
        updates.append(rows.T @ weights)
    return updates


def rlw(run: Run, draws: Sequence[ndarray]) -> list[ndarray]:
    return [rows.T @ softmax(draw) for (_, rows), draw in zip(run, draws, strict=True)]


def gls(run: Run) -> list[ndarray]:
    return [rows.T @ (losses.prod() ** (1 / len(losses)) / (len(losses) * losses)) for losses, rows in run]


def grad_norm_objective(weights: ndarray, norms: ndarray, rates: ndarray, alpha: float = 1.5) -> float:
    """What the weights, K times a softmax, are to minimise."""
    lengths = weights * norms
    return float(np.abs(lengths - lengths.mean() * (rates / rates.mean()) ** alpha).sum())


def mgda_of_two(run: Run) -> list[ndarray]:
    """The shorter end of two gradients never gets more than 0.999 of the weight."""
    updates = []
    for _, (one, other) in run:
        difference = one - other
        share = -(other @ difference) / (difference @ difference)
        share = 0.999 if one @ other >= one @ one else 0.001 if one @ other >= other @ other else share
        updates.append(share * one + (1 - share) * other)
    return updates


def pcgrad(run: Run, orders: Sequence[ndarray]) -> list[ndarray]:
    updates = []
    for (_, rows), order in zip(run, orders, strict=True):
        turned = rows.copy()
        for i in range(len(rows)):
            for j in order[i]:
                turned[i] -= min(turned[i] @ rows[j], 0) * rows[j] / (rows[j] @ rows[j])
        updates.append(turned.sum(0))
    return updates


def grad_vac(run: Run, orders: Sequence[ndarray], beta: float = 0.5) -> list[ndarray]:
    """Targets learn only from cosines that are below them."""
    targets, updates = np.zeros((len(run[0][1]),) * 2), []
    for (_, rows), order in zip(run, orders, strict=True):
        turned, lengths = rows.copy(), np.linalg.norm(rows, axis=1)
        for i in range(len(rows)):
            for j in order[i]:
                size = np.linalg.norm(turned[i])
                cosine, target = turned[i] @ rows[j] / size / lengths[j], targets[i, j]
                if i == j or cosine >= target:
                    continue
                sine, wanted = np.sqrt(1 - cosine**2), np.sqrt(1 - target**2)
                turned[i] = turned[i] + size * (target * sine - cosine * wanted) / (lengths[j] * wanted) * rows[j]
                targets[i, j] = (1 - beta) * target + beta * cosine
        updates.append(turned.sum(0))
    return updates


def grad_drop(run: Run, draws: Sequence[ndarray]) -> list[ndarray]:
    """On features that are positive, where their sign changes nothing."""
    updates = []
    for (_, rows), draw in zip(run, draws, strict=True):
        purity = 0.5 * (1 + rows.sum(0) / np.abs(rows).sum(0))
        updates.append(np.where(rows > 0, rows * (purity > draw), rows * (purity < draw)).sum(0))
    return updates


def imtl(run: Run, lr: float = 0.025) -> list[ndarray]:
    """Gradients of eˢL - s, combined by α = g₁Uᵀ(DUᵀ)⁻¹; on the shared parameters."""
    scale, updates = Adam(np.zeros(len(run[0][0])), lr), []
    for losses, rows in run:
        scaled = np.exp(scale.x)[:, None] * rows
        unit = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
        apart, turned = scaled[0] - scaled[1:], unit[0] - unit[1:]
        alpha = scaled[0] @ turned.T @ np.linalg.inv(apart @ turned.T)
        updates.append(np.append(1 - alpha.sum(), alpha) @ scaled)
        scale.step(np.exp(scale.x) * losses - 1)
    return updates


def cagrad(run: Run, c: float = 0.5) -> list[ndarray]:
    """With rescale=1: (g₀ + c|g₀|/|g_w| g_w) / (1 + c²), w from the dual problem on a fine grid of the simplex."""
    updates = []
    for _, rows in run:
        mean = rows.mean(0)
        radius = c * np.linalg.norm(mean)
        best = _least(lambda w, rows=rows, mean=mean, r=radius: w @ rows @ mean + r * np.linalg.norm(w @ rows), rows)
        updates.append((mean + radius * best @ rows / np.linalg.norm(best @ rows)) / (1 + c**2))
    return updates


def _least(objective: Callable[[ndarray], float], rows: ndarray) -> ndarray:
    """The minimum of a convex function on the simplex of three tasks, on grids that close in on it."""
    centre, width = np.full(3, 1 / 3), 1.0
    for _ in range(30):
        grid = [centre[:2] + width * np.array(shift) for shift in product(np.linspace(-1, 1, 13), repeat=2)]
        points = [np.append(point, 1 - point.sum()) for point in grid]
        centre = min((point for point in points if point.min() >= 0), key=objective, default=centre)
        width /= 2
    return centre


def nash(run: Run, max_norm: float = 1.0) -> list[ndarray]:
    """Weights α = 1/(Ĝα) for Ĝ = G/‖G‖, and the update cut to ``max_norm``."""
    updates = []
    for _, rows in run:
        scaled = rows @ rows.T / np.linalg.norm(rows @ rows.T)
        root = least_squares(lambda x, g=scaled: g @ np.exp(x) * np.exp(x) - 1, np.zeros(len(rows)), xtol=1e-14)
        update = np.exp(root.x) @ rows
        updates.append(update * min(1, max_norm / np.linalg.norm(update)))
    return updates


def fair_grad(run: Run, alpha: float = 1.0) -> list[ndarray]:
    """Gx = x^(-1/α) by least squares; the update of the shared parameters."""
    updates = []
    for _, rows in run:
        gram = rows @ rows.T
        root = least_squares(
            lambda x, g=gram: g @ x - x ** (-1 / alpha),
            np.full(len(rows), 1 / len(rows)),
            bounds=(1e-12, np.inf),
            xtol=1e-14,
            ftol=1e-14,
            gtol=1e-14,
        )
        updates.append(root.x @ rows)
    return updates


def aligned(run: Run) -> list[ndarray]:
    """√λ_min VΛ^(-1/2)Vᵀ, summed over tasks and not averaged."""
    updates = []
    for _, rows in run:
        values, vectors = np.linalg.eigh(rows @ rows.T)
        updates.append((np.sqrt(values[0]) * vectors / np.sqrt(values) @ vectors.T).sum(0) @ rows)
    return updates


def moco(
    run: Run, beta: float = 0.5, gamma: float = 0.1, sigma: float = 0.5, scale: bool = True, soft: bool = True
) -> list[ndarray]:
    """Tracked gradients, each first brought to the length of its loss, and a softmax step of the weights."""
    tracked, weights, updates = 0.0, np.full(len(run[0][0]), 1 / len(run[0][0])), []
    for step, (losses, rows) in enumerate(run, start=1):
        lengths = losses / np.linalg.norm(rows, axis=1) if scale else np.ones_like(losses)
        tracked = tracked - beta / step**sigma * (tracked - rows * lengths[:, None])
        moved = weights - gamma / step**sigma * tracked @ (tracked.T @ weights)
        weights = softmax(moved) if soft else _project(moved)
        updates.append(weights @ tracked)
    return updates


def _project(point: ndarray) -> ndarray:
    """The nearest point of the simplex, by the sorted rule."""
    ordered = np.sort(point)[::-1]
    levels = (np.cumsum(ordered) - 1) / np.arange(1, len(point) + 1)
    return np.maximum(point - levels[ordered > levels][-1], 0)


def modo(run: Run, gamma: float = 1e-3, rho: float = 0.1) -> list[ndarray]:
    """With the same batch three times."""
    weights, updates = np.full(len(run[0][0]), 1 / len(run[0][0])), []
    for _, rows in run:
        weights = _project(weights - gamma * (rows @ (rows.T @ weights) + rho * weights))
        updates.append(weights @ rows)
    return updates


def sdm_grad(run: Run, lambda_: float = 0.3, iterations: int = 20, lr: float = 5.0) -> list[ndarray]:
    """With the same batch three times."""
    weights, updates = np.full(len(run[0][0]), 1 / len(run[0][0])), []
    for _, rows in run:
        gram = rows @ rows.T
        gram = gram / np.sqrt(gram.diagonal()).mean() ** 2
        velocity = 0.0
        for _ in range(iterations):
            velocity = 0.5 * velocity + gram @ weights + lambda_ * gram.mean(1)
            weights = _project(weights - lr * velocity)
        updates.append((weights @ rows + lambda_ * rows.mean(0)) / (1 + lambda_))
    return updates


def stch(run: Run, epoch: int, mu: float = 1.0) -> list[ndarray]:
    """With a warm-up of 0 epochs, so that the first one is both log-losses and the level."""
    level, updates = np.mean([losses for losses, _ in run[:epoch]], axis=0), []
    for step, (losses, rows) in enumerate(run):
        weights = 1 / losses
        if step >= epoch:
            weights = len(losses) * softmax(np.log(losses / level) / mu) / losses
        updates.append(rows.T @ weights)
    return updates


def db_mtl(run: Run, beta: float = 0.9, sigma: float = 0.5) -> list[ndarray]:
    """Log-losses' gradients, averaged with a share of the past β/t^σ from zero, brought to the longest's length."""
    average, updates = 0.0, []
    for step, (losses, rows) in enumerate(run, start=1):
        fresh = rows / losses[:, None]
        average = fresh + beta / step**sigma * (average - fresh)
        lengths = np.linalg.norm(average, axis=1)
        updates.append(lengths.max() / lengths @ average)
    return updates


def excess_mtl(run: Run, eta: float = 1.0) -> list[ndarray]:
    """Weights that sum to K, on the shared parameters."""
    squares, first, weights, updates = 0.0, None, np.ones(len(run[0][0])), []
    for _, rows in run:
        squares = squares + rows**2
        excess = (rows**2 / np.sqrt(squares + 1e-7)).sum(1)
        if first is None:
            first = excess
        else:
            weights = weights * np.exp(eta * excess / first)
            weights = weights / weights.sum() * len(weights)
        updates.append(weights @ rows)
    return updates


def famo(run: Run, after: Sequence[ndarray], lr: float = 0.025, gamma: float = 1e-3) -> list[ndarray]:
    """Logits by Adam from the log-losses on the same batch before and after the step."""
    logits, updates = Adam(np.zeros(len(run[0][0])), lr, gamma), []
    for (losses, rows), then in zip(run, after, strict=True):
        z = softmax(logits.x)
        updates.append((z / losses / (z / losses).sum()) @ rows)
        delta = np.log(losses + 1e-8) - np.log(then + 1e-8)
        logits.step(z * (delta - z @ delta))
    return updates


def upgrad(run: Run, reg: float = 1e-4) -> list[ndarray]:
    """Projections on the dual cone for G/tr(G) + 1e-4 I, by trying all sets of weights that stay at their bound."""
    updates = []
    for _, rows in run:
        gram = rows @ rows.T
        gram = gram / gram.trace() + reg * np.eye(len(rows))
        updates.append(sum(_above(gram, bound) for bound in np.eye(len(rows)) / len(rows)) @ rows)
    return updates


def _above(gram: ndarray, bound: ndarray) -> ndarray:
    """The v ≥ bound of least vᵀGv."""
    best = None
    for choice in product([False, True], repeat=len(bound)):
        free, v = np.array(choice), bound.copy()
        if free.any():
            v[free] = -np.linalg.solve(gram[free][:, free], gram[free][:, ~free] @ bound[~free])
        if (v >= bound - 1e-12).all() and (best is None or v @ gram @ v < best @ gram @ best):
            best = v
    return best
