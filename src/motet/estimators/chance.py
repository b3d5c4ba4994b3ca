"""Whether held-out rows are ordered better than chance would: a permutation test of the best λ."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from motet.estimators.outcomes import Encoded

Floats = NDArray[np.float64]

ROWS = 300
"""Rows of a fold that are looked at. More would find effects that no one can use."""


class LeftOut(NamedTuple):
    """Rows that a path did not see.

    Attributes:
        tasks: Their outcomes.
        weight: (m,).
        scores: (L, m, K) by the networks of the path.
        groups: (m,) rows that belong together and are not exchangeable one by one, such as those of a patient.
    """

    tasks: list[Encoded]
    weight: Floats
    scores: Floats
    groups: NDArray[Any] | None = None


def p_value(folds: Sequence[LeftOut], share: Sequence[float], permutations: int = 199, seed: int = 0) -> float:
    r"""How often permuted outcomes are ordered as well as the real ones, (1 + #{T_b ≥ T}) / (1 + B).

    T = max_λ of the mean held-out concordance over outcomes and folds, by which λ is chosen, so that looking at many λ
    is accounted for. T_b is the same with the outcomes' rows, all outcomes together, permuted within each fold; of
    groups whole ones change places with others that have as many rows.

    Args:
        folds: The parts that were left out.
        share: Weights of the tasks.
        permutations: B.
        seed: Of the permutations.

    Note:
        Approximate: rows of one fold were trained on in others, which makes the test conservative.

    Cost:
        B·L·K·m² per fold, m ≤ 300 rows.
    """
    rng = np.random.default_rng(seed)
    total = np.zeros((1 + permutations, len(folds[0].scores)))
    counted = 0
    for fold in folds:
        rows = np.arange(len(fold.weight))
        if len(rows) > ROWS:
            rows = rng.choice(rows, ROWS, replace=False)
        groups = None if fold.groups is None else fold.groups[rows]
        orders = [np.arange(len(rows)), *(_order(len(rows), groups, rng) for _ in range(permutations))]
        value, weight = np.zeros_like(total), 0.0
        for k, task in enumerate(fold.tasks):
            better = _better(task.at(rows), fold.weight[rows])
            if not better.any():
                continue
            s = fold.scores[:, rows, k].astype(np.float32)
            ordered = (np.sign(s[:, :, None] - s[:, None, :]) + 1).reshape(len(s), -1) / 2
            permuted = np.stack([better[np.ix_(order, order)].reshape(-1) for order in orders])
            value += share[k] * (permuted @ ordered.T) / better.sum()
            weight += share[k]
        if weight > 0:
            total += value / weight
            counted += 1
    if not counted:
        return 1.0
    best = total.max(axis=1)
    return float((1 + (best[1:] >= best[0] - 1e-9).sum()) / (1 + permutations))


def _order(m: int, groups: NDArray[Any] | None, rng: np.random.Generator) -> NDArray[np.int64]:
    """A permutation of m rows, of whole groups where there are any."""
    if groups is None:
        return rng.permutation(m)
    code = np.unique(groups, return_inverse=True)[1].reshape(-1)
    size, order = np.bincount(code), np.arange(m)
    for many in np.unique(size):
        rows = np.stack([np.flatnonzero(code == group) for group in np.flatnonzero(size == many)])
        order[rows] = rows[rng.permutation(len(rows))]
    return order


def _better(task: Encoded, weight: Floats) -> NDArray[np.float32]:
    """(m, m) weights of the pairs whose first row is known to be the larger."""
    y = task.y
    larger = y[:, None] > y[None, :]
    if task.event is not None:
        seen = task.event == 1
        larger = (larger & seen[None, :]) | ((y[:, None] == y[None, :]) & seen[None, :] & ~seen[:, None])
    larger &= task.observed[:, None] & task.observed[None, :]
    return np.asarray(larger * np.outer(weight, weight), dtype=np.float32)
