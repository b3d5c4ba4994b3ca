"""Split conformal intervals and sets: Vovk et al. 2005; Chernozhukov, Wüthrich & Zhu, PNAS 2021."""

import math
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import NotFittedError

from motet.estimators.calibration_rows import Floats, calibration_rows, scores
from motet.estimators.conformity import (
    Random,
    band,
    conformal_quantile,
    misfits,
    miss_of,
    only,
    unbounded,
    unlikely,
    warn_too_few,
)
from motet.estimators.outcome_scale import OutcomeScale
from motet.metrics.survival import censoring_curve


class SplitConformal:
    r"""Intervals and sets that hold an outcome with a given probability, whatever its law.

        {y : V(y|u) ≤ Q},   Q = the ⌈level (n+1)⌉-th smallest of V(yᵢ|uᵢ) of n rows that the scale was not fitted to

    with V of `off_centre` for intervals and `unlikely` for sets of classes. If the calibration rows and the new row
    are exchangeable, P(y in it) ≥ level over all of these rows; not separately for each score.

    Args:
        scale: A fitted `OutcomeScale`; law="kernel" gives the narrower intervals.

    Shapes:
        u (N,) → `interval` (N, 2), `sets` bool (N, C), `lower_bound` (N,).

    Note:
        The guarantee is exact where one model scored the calibration rows and the new ones without having seen
        either. With out-of-fold scores brought to `ScoreScale` it is approximate. Weights are frequencies. For too
        few rows, n < level / (1 - level), an interval is infinite and a set holds every class, with a warning.
    """

    def __init__(self, scale: OutcomeScale) -> None:
        self.scale = scale
        self._values: Floats = np.zeros(0)
        self._weight: Floats = np.zeros(0)
        self._mass: Floats = np.zeros(0)

    def calibrate(
        self,
        u: ArrayLike,
        y: ArrayLike,
        event: ArrayLike | None = None,
        weight: ArrayLike | None = None,
        random_state: Random = None,
    ) -> Self:
        """Take V of the rows: scores, outcomes or times, events, weights (n,); a seed or generator for ξ.

        Raises:
            ValueError: for values that the kind can't have, or where no row is left.
        """
        kind = self.scale.kind
        rows = calibration_rows(kind, u, y, event, weight)
        self._weight, self._mass = rows.weight, rows.weight
        if kind == "survival":
            below, upto = self.scale.law.limits(rows.u, rows.y)
            self._values = below + np.random.default_rng(random_state).random(len(below)) * (upto - below)
            seen = censoring_curve(rows.y, rows.event, rows.weight).before(rows.y)
            self._mass = rows.weight * rows.event / seen
        else:
            self._values = misfits(self.scale, rows, random_state)
        return self

    def interval(self, u: ArrayLike, level: float = 0.9, outcomes: int = 1) -> Floats:
        """Lower and upper ends for a continuous outcome or a count.

        ``outcomes`` intervals, each asked for with this number, hold all at once with probability ``level``.
        """
        only(self.scale, "interval", "continuous", "count")
        radius = self._radius(level, outcomes)
        new = scores(u)
        if math.isinf(radius):
            return unbounded(self.scale, len(new))
        return np.concatenate(band(self.scale, new, np.array([radius])), axis=1)

    def sets(self, u: ArrayLike, level: float = 0.9, outcomes: int = 1) -> NDArray[np.bool_]:
        """Which classes of a binary or ordinal outcome are in its set; without a gap, and never empty."""
        only(self.scale, "set", "binary", "ordinal")
        radius = self._radius(level, outcomes)
        values = unlikely(self.scale, scores(u))
        return np.asarray(values <= np.maximum(radius, values.min(axis=1, keepdims=True)))

    def lower_bound(self, u: ArrayLike, level: float = 0.9, outcomes: int = 1) -> Floats:
        r"""A time that is survived with the given probability. Experimental: no exact guarantee under censoring.

            inf{t : F(t|u) ≥ q},   q the largest with (Σᵢ wᵢ dᵢ 1{Vᵢ < q} / G(Tᵢ-) + 1) / (W + 1) ≤ 1 - level,

        Vᵢ = F(Tᵢ|uᵢ), randomised in jumps, G the Kaplan-Meier curve of the calibration rows' censoring, which must
        not depend on time or score. At most the end of the follow-up that the scale was fitted to.
        """
        only(self.scale, "lower bound", "survival")
        self._fitted()
        miss, new = miss_of(level, outcomes), scores(u)
        room = miss * (self._weight.sum() + 1) - 1
        if room < -1e-9:
            warn_too_few(self._weight.sum(), miss)
            return np.zeros(len(new))
        order = np.argsort(self._values, kind="stable")
        early = np.cumsum(self._mass[order])
        place = int(np.searchsorted(early, room * (1 + 1e-12), side="right"))
        q = float(self._values[order][place]) if place < len(order) else 1.0
        return np.minimum(self.scale.law.quantiles(new, np.array([q]))[:, 0], self.scale.last_)

    def _radius(self, level: float, outcomes: int) -> float:
        self._fitted()
        miss = miss_of(level, outcomes)
        radius = conformal_quantile(self._values, self._weight, miss)
        if math.isinf(radius):
            warn_too_few(self._weight.sum(), miss)
        return radius

    def _fitted(self) -> None:
        if not len(self._values):
            raise NotFittedError("this SplitConformal has no calibration rows: call calibrate first")

    def state(self) -> dict[str, Any]:
        """Arrays, numbers and strings that `from_state` takes."""
        own = {"conformal_values": self._values, "conformal_weight": self._weight, "conformal_mass": self._mass}
        return own | self.scale.state()

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The calibrated object that gave this state."""
        conformal = cls(OutcomeScale.from_state(state))
        names = ("conformal_values", "conformal_weight", "conformal_mass")
        conformal._values, conformal._weight, conformal._mass = (np.asarray(state[name]) for name in names)
        return conformal
