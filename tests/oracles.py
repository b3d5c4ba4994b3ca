"""Methods by definition, solved slowly and in another way than motet does: for `motet.testing.check_method`.

No oracle knows motet's solvers. Projections and minima over a simplex try every set of active constraints, equations
and cones go to scipy, and everything is written in the space of the gradients rather than on their Gram
matrix. An oracle answers None where its definition has no unique answer, or where it is too inaccurate to judge. The
first line of its docstring says how it works.
"""

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from scipy.optimize import least_squares, minimize
from torch import Tensor

ORACLES: dict[str, Callable[..., Any]] = {}
"""By the method's name, with its default options."""


def oracle(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter an oracle for a method of the registry."""

    def enter(function: Callable[..., Any]) -> Callable[..., Any]:
        assert name not in ORACLES, name
        ORACLES[name] = function
        return function

    return enter


# What several of them use.


def units(rows: ndarray) -> ndarray:
    """Rows of unit length, and zero rows as they are."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1)


def independent(rows: ndarray) -> bool:
    """Whether the gradients are linearly independent beyond doubt, whatever their lengths."""
    return len(rows) > 0 and len(rows) <= rows.shape[1] and np.linalg.svd(units(rows))[1][-1] > 1e-4


def comparable(rows: ndarray, ratio: float = 1e5) -> bool:
    """Whether the lengths of the gradients that are not zero let float64 weigh them against each other."""
    norms = np.linalg.norm(rows, axis=1)
    norms = norms[norms > 0]
    return len(norms) > 0 and norms.max() <= ratio * norms.min()


def alive(rows: ndarray) -> ndarray:
    """The gradients that are not zero."""
    return rows[np.linalg.norm(rows, axis=1) > 0]


def subsets(count: int) -> list[list[int]]:
    return [list(chosen) for size in range(count + 1) for chosen in combinations(range(count), size)]


def shortest_in_hull(rows: ndarray) -> ndarray:
    """The point of the convex hull nearest to 0: the best of those of all faces."""
    best = rows[0]
    for chosen in subsets(len(rows)):
        if not chosen:
            continue
        face = rows[chosen]
        # Stationary on the affine hull: all its points have the same product with it.
        origin, spans = face[0], face[1:] - face[0]
        share = np.linalg.lstsq(spans.T, -origin, rcond=1e-10)[0] if len(spans) else np.zeros(0)
        weights = np.concatenate([[1 - share.sum()], share])
        point = weights @ face
        if weights.min() >= -1e-9 and np.linalg.norm(point) < np.linalg.norm(best):
            best = point
    return best


def project_on_cone(vectors: ndarray, rows: ndarray) -> ndarray:
    """The nearest directions that hurt no task, {d : rows d ≥ 0}: the best over all sets of tight constraints."""
    normals = units(alive(rows))
    lengths = np.linalg.norm(vectors, axis=1)
    best, distance = np.zeros_like(vectors), lengths.copy()  # 0 hurts nobody
    for chosen in subsets(len(normals)):
        kept = vectors
        if chosen:
            _, sizes, basis = np.linalg.svd(normals[chosen], full_matrices=False)
            basis = basis[sizes > 1e-9]
            kept = vectors - (vectors @ basis.T) @ basis
        allowed = ((kept @ normals.T) >= -1e-10 * lengths[:, None]).all(1)
        away = np.linalg.norm(kept - vectors, axis=1)
        better = allowed & (away < distance)
        best[better], distance[better] = kept[better], away[better]
    return best


def max_min(rows: ndarray, within: list[Callable[[ndarray], float]], start: ndarray) -> ndarray | None:
    """The direction d that does most for the worst of the rows where all ``within`` are ≥ 0, or None if none helps."""
    # Smooth in (d, t): the largest t that all products reach.
    constraints = [{"type": "ineq", "fun": lambda x: rows @ x[:-1] - x[-1]}]
    constraints += [{"type": "ineq", "fun": lambda x, holds=holds: holds(x[:-1])} for holds in within]
    begin = np.append(start, (rows @ start).min())
    options = {"ftol": 1e-15, "maxiter": 1000}
    found = minimize(lambda x: -x[-1], begin, constraints=constraints, method="SLSQP", options=options).x
    # Where no task gains, every direction may be the best one.
    return found[:-1] if found[-1] > 1e-6 else None


def gradient_of(function: Callable[[Tensor], Tensor], losses: Tensor) -> Tensor:
    values = losses.clone().requires_grad_()
    return torch.autograd.grad(function(values), values)[0]


# Weights from losses.


@oracle("sum")
@oracle("constant")
def plain_sum(jacobian: Tensor) -> Tensor:
    """The gradients added up."""
    return sum(jacobian)


@oracle("si")
@oracle("stch")
def log_sum(losses: Tensor) -> Tensor:
    """Derivative of Σ log L by autograd."""
    return gradient_of(lambda values: values.log().sum(), losses)


@oracle("gls")
def geometric_mean(losses: Tensor) -> Tensor:
    """Derivative of the geometric mean by autograd."""
    return gradient_of(lambda values: (values ** (1 / len(values))).prod(), losses)


@oracle("uw")
def uncertainty(losses: Tensor) -> Tensor:
    """Derivative of Σ ½(e⁻ˢL + s) at s = 0 by autograd."""
    return gradient_of(lambda values: (values * torch.zeros_like(values).exp()).sum() / 2, losses)


@oracle("dwa")
@oracle("imtl-l")
def even(losses: Tensor) -> list[float]:
    """All weights are 1 until something has been learned."""
    return [1.0] * len(losses)


@oracle("rlw")
def softmax_of_normal(losses: Tensor, generator: torch.Generator) -> list[float]:
    """Softmax of the same draws, one exponential at a time."""
    draws = [np.exp(float(draw)) for draw in torch.randn(len(losses), generator=generator)]
    return [draw / sum(draws) for draw in draws]


@oracle("famo")
def even_log_rates(losses: Tensor) -> Tensor:
    """Derivative of c Σ log L, with c such that the weights sum to one, by autograd."""
    weights = gradient_of(lambda values: values.log().mean(), losses)
    return weights / weights.sum()


# Directions from gradients.


@oracle("mgda")
def minimum_norm(jacobian: Tensor) -> ndarray | None:
    """Shortest point of the convex hull, over all its faces."""
    rows = jacobian.numpy()
    if not rows.any(1).all():
        return np.zeros(rows.shape[1])
    return shortest_in_hull(rows) if comparable(rows) else None


@oracle("pcgrad")
def surgery(jacobian: Tensor, generator: torch.Generator) -> ndarray | None:
    """The paper's loops over gradients, with the same draws."""
    rows = jacobian.numpy()
    orders = torch.rand(len(rows), len(rows), generator=generator).argsort(1).tolist()
    if not comparable(rows):
        return None if rows.any() else rows.sum(0)
    total = np.zeros(rows.shape[1])
    for task, order in enumerate(orders):
        mine = rows[task].copy()
        for other in order:
            inner = mine @ rows[other]
            # Gradients that are one are not made orthogonal to each other by rounding.
            if other != task and inner < -1e-12 * np.linalg.norm(rows[task]) * np.linalg.norm(rows[other]):
                mine -= inner / (rows[other] @ rows[other]) * rows[other]
        total += mine
    return total


@oracle("cagrad")
def conflict_averse(jacobian: Tensor) -> ndarray | None:
    """The paper's primal problem in the gradients' space, by scipy's SLSQP."""
    return conflict_averse_within(0.4)(jacobian)


def conflict_averse_within(c: float) -> Callable[[Tensor], ndarray | None]:
    def solve(jacobian: Tensor) -> ndarray | None:
        rows = jacobian.numpy()
        mean = rows.mean(0)
        size = np.linalg.norm(mean)
        if size <= 1e-9 * np.linalg.norm(rows) or not comparable(rows, 1e4):
            return None
        mean = mean / size
        found = max_min(alive(rows) / size, [lambda d: c**2 - (d - mean) @ (d - mean)], mean)
        return None if found is None else found * size

    return solve


@oracle("imtl-g")
def equal_projections(jacobian: Tensor) -> ndarray | None:
    """One linear system: equal products with all unit gradients, weights that sum to one."""
    rows = alive(jacobian.numpy())
    if not independent(rows) or not comparable(rows):
        return None
    tasks, normals, norms = len(rows), units(rows), np.linalg.norm(rows, axis=1)
    system = np.zeros((tasks + 1, tasks + 1))
    system[:tasks, :tasks], system[:tasks, tasks] = normals @ normals.T, -1
    system[tasks, :tasks] = norms.min() / norms
    lengths = np.linalg.solve(system, np.eye(tasks + 1)[tasks])[:tasks] * norms.min()
    return lengths @ normals


def fair(alpha: float) -> Callable[[Tensor], ndarray | None]:
    """Root of G w = w^(-1/α) by scipy's least squares, in the logarithm of the weights times the norms."""

    def solve(jacobian: Tensor) -> ndarray | None:
        rows = alive(jacobian.numpy())
        if not independent(rows) or not (alpha == 1 or comparable(rows)):
            return None
        normals, norms = units(rows), np.linalg.norm(rows, axis=1)
        cosines = normals @ normals.T

        def residual(logs: ndarray) -> ndarray:
            return cosines @ np.exp(logs) * np.exp(logs / alpha) * norms ** (1 - 1 / alpha) - 1

        start = -alpha / (alpha + 1) * np.log(norms ** (1 - 1 / alpha))
        found = least_squares(residual, start, xtol=1e-15, ftol=1e-15, gtol=1e-15, max_nfev=2000)
        return np.exp(found.x) @ normals if np.abs(found.fun).max() < 1e-8 else None

    return solve


@oracle("nash-mtl")
def bargain(jacobian: Tensor) -> ndarray | None:
    """Root of G w = 1/w by scipy's least squares, on unit gradients."""
    return fair(1.0)(jacobian)


@oracle("fair-grad")
def two_fair(jacobian: Tensor) -> ndarray | None:
    """Root of G w = 1/√w by scipy's least squares, on unit gradients."""
    return fair(2.0)(jacobian)


@oracle("aligned-mtl")
def aligned(jacobian: Tensor) -> ndarray | None:
    """Singular value decomposition of the Jacobian itself."""
    rows = jacobian.numpy()
    if not comparable(rows):
        return None
    left, sizes, right = np.linalg.svd(rows, full_matrices=False)
    rank = int((sizes > 1e-9 * sizes[0]).sum())
    return sizes[rank - 1] * left[:, :rank].mean(0) @ right[:rank]


@oracle("upgrad")
def mean_of_projections(jacobian: Tensor) -> ndarray:
    """Projections of every gradient on the dual cone, over all sets of tight constraints."""
    rows = jacobian.numpy()
    return project_on_cone(rows, rows).mean(0)


@oracle("dual-proj")
def projection_of_mean(jacobian: Tensor) -> ndarray:
    """Projection of the mean gradient on the dual cone, over all sets of tight constraints."""
    rows = jacobian.numpy()
    return project_on_cone(rows.mean(0, keepdims=True), rows)[0]


@oracle("db-mtl")
def equal_lengths(losses: Tensor, jacobian: Tensor) -> ndarray:
    """Log-losses' gradients brought to the longest's length, one by one."""
    rows = [row / loss for row, loss in zip(jacobian.numpy(), losses.numpy(), strict=True)]
    longest = max(np.linalg.norm(row) for row in rows)
    return sum(row * (longest / (np.linalg.norm(row) or np.inf)) for row in rows)


@oracle("grad-drop")
def one_sign(jacobian: Tensor, generator: torch.Generator) -> list[float]:
    """The paper's rule, coordinate by coordinate, with the same draws."""
    direction = []
    for column, draw in zip(jacobian.T.tolist(), torch.rand(jacobian.shape[1], generator=generator), strict=True):
        mass = sum(map(abs, column))
        purity = (1 + sum(column) / mass) / 2 if mass else 0.5
        direction.append(sum(x for x in column if (x > 0) == (purity > float(draw))))
    return direction


# Relatives of the above, and what others say in their first step.


@oracle("random")
def random_weights(jacobian: Tensor, generator: torch.Generator) -> Tensor:
    """Softmax of the same draws, one exponential at a time."""
    return torch.tensor(softmax_of_normal(jacobian[:, 0], generator), dtype=jacobian.dtype) @ jacobian


@oracle("grad-norm")
@oracle("ol-aux")
def first_sum(jacobian: Tensor) -> Tensor:
    """The first update is the plain sum."""
    return sum(jacobian)


@oracle("excess-mtl")
def first_mean(jacobian: Tensor) -> Tensor:
    """The first update is the mean gradient."""
    return sum(jacobian) / len(jacobian)


@oracle("imtl")
def equal_projections_of_unscaled(jacobian: Tensor) -> ndarray | None:
    """The first update is IMTL-G's: one linear system."""
    return equal_projections(jacobian)


@oracle("grad-vac")
def first_surgery(jacobian: Tensor, generator: torch.Generator) -> ndarray | None:
    """The first update is PCGrad's, by the paper's loops over gradients with the same draws."""
    return surgery(jacobian, generator)


@oracle("config")
def conflict_free(jacobian: Tensor) -> ndarray | None:
    """Pseudo-inverse of the unit gradients in their own space."""
    rows = alive(jacobian.numpy())
    if not independent(rows):
        return None
    common = np.linalg.pinv(units(rows)) @ np.ones(len(rows))
    common /= np.linalg.norm(common)
    return (rows @ common).sum() * common


@oracle("conic-grad")
def best_in_cone(jacobian: Tensor) -> ndarray | None:
    """The max-min over a cone and a ball, in the gradients' space by scipy's SLSQP."""
    rows = jacobian.numpy()
    mean = rows.mean(0)
    size = np.linalg.norm(mean)
    if size <= 1e-9 * np.linalg.norm(rows) or not comparable(rows, 1e3):
        return None
    mean = mean / size
    within = [lambda d: 1 - d @ d, lambda d: mean @ d - 0.25 * np.sqrt(d @ d)]
    return None if (found := max_min(alive(rows) / size, within, mean)) is None else size * found


@oracle("im-grad")
def imbalance_averse(jacobian: Tensor) -> ndarray | None:
    """The smaller of CAGrad's balls by scipy's SLSQP, and the change stretched to the full radius."""
    rows = jacobian.numpy()
    if not comparable(rows, 1e4) or not independent(rows):
        return None
    mean, shortest = rows.mean(0), shortest_in_hull(rows)
    q = mean @ shortest / np.linalg.norm(mean) / np.linalg.norm(shortest)
    inner = conflict_averse_within(0.8 * q / (1.5 - q))(jacobian)
    if inner is None or q < 0.05:
        return None
    change = inner - mean
    return mean + 0.8 * np.linalg.norm(mean) * change / np.linalg.norm(change)


@oracle("krum")
def nearest(jacobian: Tensor) -> list[float] | None:
    """Squared distances one by one; no answer where the least score is nobody's alone."""
    rows = jacobian.numpy()
    if len(rows) < 3 or not comparable(rows):
        return None
    scores = []
    for task, row in enumerate(rows):
        away = sorted(((row - other) ** 2).sum() for index, other in enumerate(rows) if index != task)
        scores.append(sum(away[: len(rows) - 2]))
    ordered = sorted(scores)
    return rows[scores.index(ordered[0])] if ordered[1] - ordered[0] > 1e-6 * ordered[0] else None


@oracle("trimmed-mean")
def without_extremes(jacobian: Tensor) -> list[float] | None:
    """Coordinate by coordinate, without the largest and the smallest."""
    if len(jacobian) < 3:
        return None
    return [sum(sorted(column)[1:-1]) / (len(column) - 2) for column in jacobian.T.tolist()]


@oracle("grad-sim")
def those_that_agree(jacobian: Tensor) -> Tensor | None:
    """Task by task, those at no more than a right angle to the first."""
    main = jacobian[0]
    if not comparable(jacobian.numpy()):
        return None
    return sum((row for row in jacobian[1:] if row @ main >= 0), start=main)


@oracle("meta-balance")
def brought_to_the_mains_length(jacobian: Tensor) -> Tensor:
    """Task by task, 0.7 of the way from its own to the first one's length."""
    main = jacobian[0].norm()
    return sum(row * (0.7 * (main / row.norm() if row.any() else 1) + 0.3) for row in jacobian)


@oracle("ntk-mtl")
def over_root_of_trace(jacobian: Tensor) -> Tensor:
    """Task by task, the root of all squared lengths over its own length."""
    total = jacobian.square().sum().sqrt()
    return sum((row * total / row.norm() for row in jacobian if row.any()), start=torch.zeros_like(jacobian[0]))


@oracle("modo")
def one_projected_step(jacobian: Tensor) -> ndarray:
    """One projected gradient step from even weights, with the projection on the simplex by bisection."""
    rows = jacobian.numpy()
    even_ones = np.full(len(rows), 1 / len(rows))
    return on_simplex(even_ones - 1e-3 * (rows @ (rows.T @ even_ones) + 0.1 * even_ones)) @ rows


def on_simplex(point: ndarray) -> ndarray:
    """The nearest weights that are not negative and sum to one: bisection of what is taken off all."""
    low, high = point.min() - 1.0, point.max()
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(point - middle, 0).sum() > 1 else (low, middle)
    return np.maximum(point - high, 0)


@oracle("sdm-grad")
def twenty_projected_steps(jacobian: Tensor) -> ndarray | None:
    """Twenty projected gradient steps with momentum on the gradients brought to a mean length of one."""
    rows = jacobian.numpy()
    size = np.linalg.norm(rows, axis=1).mean()
    # Steps this long may blow up: where gradients cancel, what they blow up is rounding.
    if not comparable(rows) or not independent(rows):
        return None
    unit, even_ones = rows / size, np.full(len(rows), 1 / len(rows))
    weights, velocity = even_ones, 0.0
    for _ in range(20):
        velocity = 0.5 * velocity + unit @ (unit.T @ (weights + 0.3 * even_ones))
        weights = on_simplex(weights - 10 * velocity)
    return (weights + 0.3 * even_ones) / 1.3 @ rows


@oracle("revised-uw")
def revised_uncertainty(losses: Tensor) -> Tensor:
    """Derivative of Σ L/(2σ²) + log(1 + σ²) at σ = 1 by autograd."""
    sigma = torch.ones_like(losses)
    return gradient_of(lambda values: (values / (2 * sigma**2) + (1 + sigma**2).log()).sum(), losses)


@oracle("ada-loss")
@oracle("tch")
def first_inverse(losses: Tensor) -> list[float]:
    """The first weights are one over each loss."""
    return [1 / loss for loss in losses.tolist()]


@oracle("lbtw")
@oracle("slaw")
def first_ones(losses: Tensor) -> list[float]:
    """The first weights are all 1."""
    return [1.0] * len(losses)


@oracle("cov-weighting")
def first_even(losses: Tensor) -> list[float]:
    """The first weights are even and sum to one."""
    return [1 / len(losses)] * len(losses)


@oracle("uw-so")
def softmax_of_inverse(losses: Tensor) -> list[float] | None:
    """Softmax of 1/L, one exponential at a time."""
    inverse = [1 / loss for loss in losses.tolist()]
    powers = [np.exp(value - max(inverse)) for value in inverse]
    return [power / sum(powers) for power in powers]


@oracle("cosmos")
def sum_and_cosine(losses: Tensor) -> Tensor | None:
    """Derivative of the mean less the cosine to equal losses by autograd."""
    ones = torch.ones_like(losses)
    if losses.max() > 1e6 * losses.min():
        return None
    return gradient_of(lambda values: values.mean() - torch.cosine_similarity(values, ones, dim=0), losses)
