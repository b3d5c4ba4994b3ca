"""The rows of one outcome that a calibration may use: observed, weighted, and checked once."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
KINDS = ("continuous", "binary", "ordinal", "count", "survival")


class Rows(NamedTuple):
    """Scores u, outcomes y (times of survival), events (1 where the kind has none) and frequency weights: (n,) each."""

    u: Floats
    y: Floats
    event: Floats
    weight: Floats


def vector(values: ArrayLike, name: str, n: int | None = None) -> Floats:
    """As float64 (n,).

    Raises:
        ValueError: if it is no vector, or not of n numbers.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or (n is not None and len(array) != n):
        raise ValueError(f"{name} must be of shape ({'n' if n is None else n},), not {array.shape}")
    return array


def scores(u: ArrayLike) -> Floats:
    """Finite scores (n,).

    Raises:
        ValueError: if they are no vector, or one is NaN or infinite.
    """
    array = vector(u, "the scores")
    if not np.isfinite(array).all():
        raise ValueError("a score is NaN or infinite")
    return array


def calibration_rows(
    kind: str, u: ArrayLike, y: ArrayLike, event: ArrayLike | None = None, weight: ArrayLike | None = None
) -> Rows:
    """Check the rows and drop those whose outcome is missing (NaN) or whose weight is zero.

    Raises:
        ValueError: for unequal lengths, a score that is not finite, an outcome that its kind cannot have, events
            other than 0 and 1, negative weights, or no row that is left.
    """
    y = vector(y, "the outcome")
    u, n = vector(u, "the scores", len(y)), len(y)
    if (event is not None) != (kind == "survival"):
        raise ValueError(f"a {kind} outcome {'needs an' if event is None else 'has no'} event indicator")
    event = np.ones(n) if event is None else vector(event, "the event indicator", n)
    weight = np.ones(n) if weight is None else vector(weight, "the weights", n)
    if not (np.isfinite(weight).all() and (weight >= 0).all()):
        raise ValueError("weights must be finite and not negative")
    kept = ~np.isnan(y) & ~np.isnan(event) & (weight > 0)
    if not kept.any():
        raise ValueError("no row has both an observed outcome and a positive weight")
    u, y, event, weight = u[kept], y[kept], event[kept], weight[kept]
    scores(u)
    if np.isinf(y).any():
        raise ValueError(f"a {kind} outcome is infinite")
    if kind in ("survival", "count") and (y < 0).any():
        raise ValueError(f"{'times' if kind == 'survival' else 'counts'} must not be negative")
    if kind == "count" and (y != np.rint(y)).any():
        raise ValueError("counts must be whole numbers")
    if not np.isin(event, (0.0, 1.0)).all():
        raise ValueError("the event indicator must be 0 (censored) or 1")
    return Rows(u, y, event, weight)
