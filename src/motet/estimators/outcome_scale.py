"""Scores back to the outcome's scale: isotonic distributional regression for every kind of outcome."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.exceptions import NotFittedError

from motet.estimators.calibration_rows import KINDS, Floats, Rows, calibration_rows, scores, vector
from motet.estimators.isotonic import (
    by_score,
    interpolated,
    isotonic,
    summed,
    thinned,
    thresholds_of,
    weighted_quantiles,
)
from motet.estimators.isotonic_distribution import IsotonicDistribution
from motet.estimators.survival_scale import beran, event_times, ipcw, restricted_mean

LAWS = ("isotonic", "kernel")


class OutcomeScale:
    r"""The law of one outcome given its score, from rows whose scores come from fits that did not see them.

    A rank criterion leaves a score ordinal, but the outcome increases with it stochastically, which is all that
    `IsotonicDistribution` needs. Every prediction is monotone in the score.

    Args:
        kind: "continuous", "binary", "ordinal", "count" or "survival".
        classes: The codes of an ordinal outcome, increasing; default: those that occur. Binary: 0 and 1.
        max_thresholds: At most so many thresholds, at least 1: all distinct outcomes where there are no more, else
            that many quantiles. 200 moves a quantile by half a per cent of probability at most.
        law: "isotonic", `ipcw` under censoring, or "kernel", `beran`, which is smooth and isotonic. Default: "kernel"
            for survival, else "isotonic".

    Shapes:
        u (N,) → (N,) for `mean` and `median`; (N, Q), (N, T) and (N, C) for the others. A scalar q gives (N,).

    Cost:
        O(m n) for n rows and m thresholds after one sort.

    Note:
        On simulated survival times of 60 to 2,000 rows the squared error of "kernel" was 0.35 to 0.85 of that of
        "isotonic", and it allows censoring that depends on the score. On heavy-tailed continuous outcomes its
        continuous ranked probability score was up to 15 per cent worse where they spread over orders of magnitude.
        Yet with 300 rows, half of them to calibrate, its conformal intervals were narrower by a quarter to a half,
        as steps of few rows make a rough measure of misfit; with 100 rows neither was reliably narrower.

        Weights are frequencies: 2 is the same as the row twice. Rows with a missing outcome (NaN) are left out,
        which is right where it is missing at random given the features. One row, or a constant outcome, gives that
        value everywhere. If nobody had an event, survival is 1 to the end of follow-up.
    """

    def __init__(
        self, kind: str, *, classes: ArrayLike | None = None, max_thresholds: int = 200, law: str | None = None
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
        if max_thresholds < 1:
            raise ValueError(f"max_thresholds must be at least 1, not {max_thresholds}")
        law = ("kernel" if kind == "survival" else "isotonic") if law is None else law
        if law not in LAWS:
            raise ValueError(f"law must be 'isotonic' or 'kernel', not {law!r}")
        if classes is not None and (
            len(vector(classes, "classes")) < 1 or (np.diff(vector(classes, "classes")) <= 0).any()
        ):
            raise ValueError("classes must be increasing, and at least one")
        self.kind, self.classes, self.max_thresholds, self.law_name = kind, classes, max_thresholds, law
        self._law: IsotonicDistribution | None = None

    def fit(self, u: ArrayLike, y: ArrayLike, event: ArrayLike | None = None, weight: ArrayLike | None = None) -> Self:
        """Learn from scores u (n,), outcomes y (n,) or times with events (n,), and frequency weights (n,).

        Raises:
            ValueError: for values that the kind can't have, or where no row is left.
        """
        rows = calibration_rows(self.kind, u, y, event, weight)
        self.weight_ = float(rows.weight.sum())
        self.last_ = float(rows.y.max())
        low, high = weighted_quantiles(rows.y, rows.weight, np.array([0.25, 0.75]))
        self.spread_ = float(high - low) or float(np.ptp(rows.y)) or 1.0
        self.classes_ = self._classes(rows)
        if self.kind == "survival":
            thresholds = event_times(rows, self.max_thresholds)
        else:
            thresholds = thresholds_of(rows.y, rows.weight, self.max_thresholds)
        thresholds = self.classes_ if len(self.classes_) else thresholds
        self._law = (beran if self.law_name == "kernel" else ipcw)(rows, thresholds)
        if self.kind == "survival":
            return self
        knots, group, at = by_score(rows.u, rows.weight)
        means = summed(group, rows.weight * rows.y, len(knots)) / at
        self._mean = thinned(knots, isotonic(means[None], at).T)
        return self

    def _classes(self, rows: Rows) -> Floats:
        if self.kind not in ("binary", "ordinal"):
            return np.zeros(0)
        given = (0.0, 1.0) if self.kind == "binary" and self.classes is None else self.classes
        classes = np.unique(rows.y) if given is None else np.asarray(given, dtype=np.float64)
        if not np.isin(rows.y, classes).all():
            raise ValueError(f"a {self.kind} outcome is none of its classes, {', '.join(f'{c:g}' for c in classes)}")
        return classes

    @property
    def law(self) -> IsotonicDistribution:
        """The fitted distribution.

        Raises:
            NotFittedError: before `fit`.
        """
        if self._law is None:
            raise NotFittedError("this OutcomeScale is not fitted: call fit first")
        return self._law

    def mean(self, u: ArrayLike) -> Floats:
        """The isotonic regression of the outcome on the score; see `restricted_mean` for survival."""
        self._only("continuous", "binary", "ordinal", "count")
        return interpolated(scores(u), *self._mean)[:, 0]

    def median(self, u: ArrayLike) -> Floats:
        """The smallest outcome with F ≥ ½. Survival: infinite where the curve stays above ½ in the follow-up."""
        return self.quantiles(u, 0.5)

    def quantiles(self, u: ArrayLike, q: ArrayLike) -> Floats:
        """inf{y : F(y|u) ≥ q}, 0 < q < 1. Survival: infinite where the curve stays above 1 - q in the follow-up."""
        levels = np.atleast_1d(np.asarray(q, dtype=np.float64))
        if not ((levels > 0) & (levels < 1)).all():
            raise ValueError("q must lie between 0 and 1")
        found = self.law.quantiles(scores(u), levels)
        return found if np.ndim(q) else found[:, 0]

    def cdf(self, u: ArrayLike, thresholds: ArrayLike) -> Floats:
        """P(Y ≤ t | u). Survival: NaN after the end of follow-up, where nothing is known."""
        t = np.atleast_1d(np.asarray(thresholds, dtype=np.float64))
        if np.isnan(t).any():
            raise ValueError("a threshold is NaN")
        values = self.law.cdf(scores(u), t)
        if self.kind == "survival":
            values[:, t > self.last_] = np.nan
        return values

    def proba(self, u: ArrayLike) -> Floats:
        """Probabilities of the classes of a binary or ordinal outcome, (n p + ½) / (n + C/2): never 0 or 1.

        n is the weight of all calibration rows. With the weight of the pooled rows alone instead, the probabilities
        would not be monotone in the score.
        """
        self._only("binary", "ordinal")
        steps = np.diff(self.law.at(scores(u)), axis=1, prepend=0.0)
        return (self.weight_ * steps + 0.5) / (self.weight_ + 0.5 * len(self.classes_))

    def zero_probability(self, u: ArrayLike) -> Floats:
        """P(Y = 0) of a count, (n F(0|u) + ½) / (n + 1)."""
        self._only("count")
        return (self.weight_ * self.law.cdf(scores(u), np.zeros(1))[:, 0] + 0.5) / (self.weight_ + 1)

    def survival(self, u: ArrayLike, times: ArrayLike) -> Floats:
        """P(T > t | u); NaN after the end of follow-up."""
        self._only("survival")
        return 1 - self.cdf(u, times)

    def restricted_mean(self, u: ArrayLike, tau: float | None = None) -> Floats:
        """Mean survival time up to tau; default: up to the end of follow-up.

        Raises:
            ValueError: for a negative tau, or one after the end of follow-up.
        """
        self._only("survival")
        tau = self.last_ if tau is None else float(tau)
        if not 0 <= tau <= self.last_:
            raise ValueError(f"tau must lie between 0 and the end of follow-up, {self.last_:g}, not {tau:g}")
        return restricted_mean(self.law, scores(u), tau)

    def _only(self, *kinds: str) -> None:
        if self.kind not in kinds:
            raise ValueError(f"a {self.kind} outcome has no such prediction: it is for {' and '.join(kinds)} outcomes")
        _ = self.law

    def state(self) -> dict[str, Any]:
        """Arrays, numbers and strings that `from_state` takes."""
        law = self.law
        state: dict[str, Any] = {name: getattr(self, name) for name in ("weight_", "last_", "spread_", "classes_")}
        state |= {"kind": self.kind, "max_thresholds": float(self.max_thresholds), "law": self.law_name}
        state |= {"knots": law.knots, "thresholds": law.thresholds, "values": law.values}
        if self.kind != "survival":
            state |= {"mean_knots": self._mean[0], "mean": self._mean[1]}
        return state

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The fitted scale that gave this state."""
        kind, classes = str(state["kind"]), np.asarray(state["classes_"])
        scale = cls(
            kind,
            classes=classes if len(classes) else None,
            max_thresholds=int(state["max_thresholds"]),
            law=str(state["law"]),
        )
        scale.weight_, scale.last_, scale.spread_ = (float(state[name]) for name in ("weight_", "last_", "spread_"))
        scale.classes_ = classes
        scale._law = IsotonicDistribution(*(np.asarray(state[name]) for name in ("knots", "thresholds", "values")))
        if kind != "survival":
            scale._mean = np.asarray(state["mean_knots"]), np.asarray(state["mean"])
        return scale
