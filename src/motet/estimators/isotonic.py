"""Isotonic fits on scores with ties, and their interpolation."""

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import isotonic_regression

from motet.estimators.calibration_rows import Floats

FUZZ = 1e-12
"""Cumulated weights within this share of a level have reached it: sums of decimals are rarely exact."""


def by_score(u: Floats, weight: Floats) -> tuple[Floats, NDArray[np.intp], Floats]:
    """The distinct scores (g,), the one of each row (n,), and the weight at each (g,)."""
    knots, group = np.unique(u, return_inverse=True)
    return knots, group, summed(group, weight, len(knots))


def summed(group: NDArray[np.intp], weight: Floats, groups: int) -> Floats:
    """The weight of each group: (n,), (n,) → (groups,)."""
    return np.asarray(np.bincount(group, weight, groups), dtype=np.float64)


def isotonic(values: Floats, weight: Floats, increasing: bool = True) -> Floats:
    """Least squares among the monotone sequences, each row of (m, g) by itself; weights (g,). O(m g)."""
    fit = np.stack([isotonic_regression(row, sample_weight=weight, increasing=increasing) for row in values])
    accumulate = np.maximum.accumulate if increasing else np.minimum.accumulate
    return accumulate(fit, axis=1)  # against rounding alone


def thinned(knots: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Without the inner knots of a constant stretch, which interpolation does not need: (g,), (g, m)."""
    same = (values[1:] == values[:-1]).all(1)
    kept = ~(np.append(False, same) & np.append(same, False))
    return knots[kept], values[kept]


def interpolated(u: Floats, knots: Floats, values: Floats) -> Floats:
    """Linear between knots (g,) with values (g, m), constant outside: (N,) → (N, m).

    Keeps the order of the columns exactly, and of the rows to one rounding.
    """
    if len(knots) == 1:
        return np.repeat(values, len(u), axis=0)
    left = np.clip(np.searchsorted(knots, u, side="right") - 1, 0, len(knots) - 2)
    share = np.clip((u - knots[left]) / (knots[left + 1] - knots[left]), 0.0, 1.0)[:, None]
    a, b = values[left], values[left + 1]
    return np.clip((1 - share) * a + share * b, np.minimum(a, b), np.maximum(a, b))


def weighted_quantiles(y: Floats, weight: Floats, q: Floats) -> Floats:
    """inf{y : the share of weight at or below y is at least q}: (n,), (n,), (Q,) → (Q,)."""
    order = np.argsort(y, kind="stable")
    reached = np.cumsum(weight[order])
    place = np.searchsorted(reached, q * reached[-1] * (1 - FUZZ))
    return np.asarray(y[order][place.clip(max=len(y) - 1)])


def thresholds_of(y: Floats, weight: Floats, at_most: int) -> Floats:
    """The distinct values, or where there are more than ``at_most`` that many of their quantiles, with the largest."""
    distinct = np.unique(y)
    if len(distinct) <= at_most:
        return distinct
    return np.unique(weighted_quantiles(y, weight, np.arange(1, at_most + 1) / at_most))
