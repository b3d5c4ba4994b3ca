"""Metrics of predicted survival: the Brier score under censoring, Graf et al., Statistics in Medicine 1999."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


class CensoringCurve(NamedTuple):
    """G(t) = P(C > t), the Kaplan-Meier curve of the censoring: constant from each time to before the next."""

    times: Floats
    """(m,), increasing."""
    values: Floats
    """G at the times, (m,)."""

    def at(self, t: ArrayLike) -> Floats:
        """G(t)."""
        return np.append(1.0, self.values)[np.searchsorted(self.times, t, side="right")]

    def before(self, t: ArrayLike) -> Floats:
        """G(t-): the probability to be still observed just before t."""
        return np.append(1.0, self.values)[np.searchsorted(self.times, t, side="left")]


def censoring_curve(time: ArrayLike, event: ArrayLike, weight: ArrayLike | None = None) -> CensoringCurve:
    """Fit G to times (n,), events (n,) of 0 = censored and 1, and frequency weights (n,).

    Of those who share a time, events come first: who had one is no longer at risk of censoring.

    Raises:
        ValueError: for no rows, unequal lengths, negative or missing times, or events other than 0 and 1.
    """
    time, event, weight = _checked(time, event, weight)
    times, group = np.unique(time, return_inverse=True)
    total = np.bincount(group, weight, len(times))
    censored = np.bincount(group, weight * (1 - event), len(times))
    left = np.append(total[:0:-1].cumsum()[::-1], 0.0) + censored
    hazard = np.divide(censored, left, out=np.zeros_like(left), where=censored > 0)
    return CensoringCurve(times, np.cumprod(1 - hazard))


def brier_score(
    time: ArrayLike,
    event: ArrayLike,
    survival: ArrayLike,
    times: ArrayLike,
    weight: ArrayLike | None = None,
    censoring: CensoringCurve | None = None,
) -> Floats:
    r"""Mean squared error of predicted survival at each time, each row weighted by the inverse chance to be seen.

        BS(t) = 1/Σw Σᵢ wᵢ [ S(t|i)² 1{Tᵢ ≤ t, dᵢ = 1} / G(Tᵢ-) + (1 - S(t|i))² 1{Tᵢ > t} / G(t) ]

    Args:
        time: T, observed times (n,).
        event: d, 0 = censored, 1 = event.
        survival: S, predicted probabilities to survive each of the times: (n, T).
        times: t, (T,).
        weight: w, frequency weights (n,).
        censoring: G, for instance of the training rows. Default: of these rows.

    Shapes:
        → (T,), lower is better; ¼ for S = ½ everywhere.

    Raises:
        ValueError: for rows that do not match or are empty, probabilities outside [0, 1] or missing, and times at
            which G is zero although rows are still observed.

    >>> brier_score([1.0, 3.0], [1, 1], [[0.2], [0.9]], [2.0]).round(3)
    array([0.025])
    """
    time, event, weight = _checked(time, event, weight)
    at, predicted = np.atleast_1d(np.asarray(times, dtype=np.float64)), np.asarray(survival, dtype=np.float64)
    if predicted.shape != (len(time), len(at)):
        raise ValueError(f"survival must be of shape (rows, times) = {(len(time), len(at))}, not {predicted.shape}")
    if not ((predicted >= 0) & (predicted <= 1)).all():
        raise ValueError("survival must hold probabilities from 0 to 1")
    censoring = censoring_curve(time, event, weight) if censoring is None else censoring
    dead, alive = (time[:, None] <= at) & (event[:, None] == 1), time[:, None] > at
    seen = np.where(dead, censoring.before(time)[:, None], np.where(alive, censoring.at(at), 1.0))
    if (seen <= 0).any():
        raise ValueError(
            f"rows are observed where the censoring curve is zero: use times below {at[(seen <= 0).any(0)].min():g}"
        )
    error = np.where(dead, predicted**2, np.where(alive, (1 - predicted) ** 2, 0.0))
    return np.asarray(weight @ (error / seen) / weight.sum())


def integrated_brier_score(
    time: ArrayLike,
    event: ArrayLike,
    survival: ArrayLike,
    times: ArrayLike,
    weight: ArrayLike | None = None,
    censoring: CensoringCurve | None = None,
) -> float:
    """Mean of `brier_score` over time, by the trapezoidal rule between the first and the last of at least two times.

    Raises:
        ValueError: as `brier_score`, and if the times do not increase.
    """
    at = np.asarray(times, dtype=np.float64)
    if at.ndim != 1 or len(at) < 2 or not (np.diff(at) > 0).all():
        raise ValueError("times must be at least two and increasing")
    scores = brier_score(time, event, survival, at, weight, censoring)
    return float(np.diff(at) @ (scores[1:] + scores[:-1]) / 2 / (at[-1] - at[0]))


def _checked(time: ArrayLike, event: ArrayLike, weight: ArrayLike | None) -> tuple[Floats, Floats, Floats]:
    time, event = np.asarray(time, dtype=np.float64), np.asarray(event, dtype=np.float64)
    weight = np.ones(time.shape) if weight is None else np.asarray(weight, dtype=np.float64)
    if time.ndim != 1 or not len(time) or not time.shape == event.shape == weight.shape:
        raise ValueError("time, event and weight must be vectors of the same length, and not empty")
    if not (np.isfinite(time).all() and (time >= 0).all()):
        raise ValueError("times must be finite and not negative")
    if not np.isin(event, (0.0, 1.0)).all():
        raise ValueError("the event indicator must be 0 (censored) or 1")
    if not (np.isfinite(weight).all() and (weight >= 0).all() and weight.any()):
        raise ValueError("weights must be finite, not negative and not all zero")
    return time, event, weight
