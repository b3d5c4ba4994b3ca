"""Predictions for the rows of a fit, each by networks and scales that were learned without it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from motet.estimators.outcomes import Encoded, Outcome, check_rows, encode
from motet.estimators.prediction import Floats, Predictions, TaskScale
from motet.estimators.splits import assign_folds
from motet.losses.rank import Pairs

FOLDS = 5
"""Of the scales, where the fit had two: the conformal statements need two of the others."""


@dataclass(frozen=True, eq=False)
class Judged:
    """Some rows, and the scales by which they are predicted.

    Attributes:
        rows: Their numbers (m,).
        u: Ranks of their scores (m, K).
        scales: Of each task.
    """

    rows: NDArray[np.int64]
    u: Floats
    scales: list[TaskScale]


class OnRanks(Predictions):
    """`Predictions` from ranks of scores (m, K) in place of X."""

    def __init__(self, outcomes: Sequence[Outcome], tasks: list[Encoded], scales: list[TaskScale]) -> None:
        self.outcomes_, self.tasks_, self.scales_, self._named = list(outcomes), tasks, scales, True

    def _positions(self, X: Any) -> Floats:
        return np.asarray(X, dtype=np.float64)


class HeldOut:
    """A fitted estimator's predictions for rows that it has not seen, and the outcomes that they had.

    Of rows of the fit the ranks are those by the networks without the row's fold, and the scale is learned again
    without a fold of rows that holds the row: on the scale that was learned from all rows, predictions of these rows
    would be calibrated by construction.

    Args:
        net: A fitted `MixedOutcomeNet` with calibration.
        X: New rows (n, p), or None for the rows of the fit.
        Y: Their outcomes; those of the fit, in its order, where X is None.

    Attributes:
        tasks: The outcomes as numbers.
        index: Labels of the rows.

    Raises:
        ValueError: without calibration; for rows of the fit if the estimator comes from a file, or Y has other rows.

    Note:
        The scales' folds are the networks', so that groups stay together, unless these are only two: then they are
        drawn anew, without groups. A scale has not seen the row, but some of the ranks that it was fitted to come from
        networks that have, as for CV+.
    """

    def __init__(self, net: Any, X: Any, Y: Any) -> None:
        check_is_fitted(net)
        if net.scales_ is None:
            raise ValueError("this needs predictions on the outcomes' scales: fit with calibrate=True")
        self.tasks: list[Encoded] = encode(net.outcomes_, Y)
        self.outcomes: list[Outcome] = net.outcomes_
        self.index = Y.index if isinstance(Y, pd.DataFrame | pd.Series) else pd.RangeIndex(len(self.tasks[0].y))
        if X is not None:
            check_rows(X, Y)
            u = net._positions(X)
            self._parts = [Judged(np.arange(len(u)), u, net.scales_)]
            return
        u = getattr(net, "out_of_fold_", None)
        if u is None:
            raise ValueError("an estimator from a file has no out-of-fold scores: give X and Y of new rows")
        if len(u) != len(self.index):
            raise ValueError(f"Y has {len(self.index)} rows and the fit had {len(u)}: without X, give the fit's own Y")
        self._parts = self._cross_fitted(u, net.fold_)

    def _cross_fitted(self, u: Floats, fold: NDArray[np.int64]) -> list[Judged]:
        kept = np.asarray(np.isfinite(u).all(axis=1))
        tasks = [task.at(kept) for task in self.tasks]
        fold, rows = fold[kept], np.flatnonzero(kept)
        if fold.max() < 2:
            fold = assign_folds(tasks, FOLDS)
        ranks, ones = u[kept], np.ones(len(rows))
        parts = []
        for number in range(int(fold.max()) + 1):
            rest = fold != number
            scales = [
                TaskScale.fit(task.at(rest), ranks[rest, k], ranks[rest, k], fold[rest], ones[rest], number)
                for k, task in enumerate(tasks)
            ]
            parts.append(Judged(rows[~rest], ranks[~rest], scales))
        return parts

    @property
    def n(self) -> int:
        """Number of rows, those without a prediction included."""
        return len(self.index)

    def ranks(self, k: int) -> Floats:
        """Ranks of the scores of task k, (n,): higher is a larger outcome or longer survival."""
        return self._each(lambda part: part.u[:, k])

    def law(self, k: int, ask: Callable[[Any, Floats, NDArray[np.int64]], Floats]) -> Floats:
        """What ``ask(scale, u, rows)`` tells of task k, (n, …), with the `OutcomeScale` of each part."""
        return self._each(lambda part: ask(part.scales[k].law, part.u[:, k], part.rows))

    def concordance(self, censoring: str = "harrell") -> pd.Series:
        """Of each outcome with the ranks of all rows: NaN where there is no comparable pair."""
        found: dict[str, list[float]] = {}
        for k, task in enumerate(self.tasks):
            u = self.ranks(k)
            seen = np.isfinite(u) & task.observed
            rule = "harrell" if task.event is None else censoring
            pairs = Pairs(task.y[seen], None if task.event is None else task.event[seen], censoring=rule)
            value = pairs.concordance(u[seen]) if seen.any() and pairs.total > 0 else np.nan
            found.setdefault(task.outcome.name, []).append(value)
        return pd.Series({name: float(np.mean(values)) for name, values in found.items()}, dtype=float)

    def predict(self) -> pd.DataFrame:
        """As `MixedOutcomeNet.predict`."""
        return self._tables(lambda net, u: {"": net.predict(u)})[""]

    def predict_proba(self) -> dict[str, pd.DataFrame]:
        """As `MixedOutcomeNet.predict_proba`; empty where no outcome has classes."""
        classes = [outcome for outcome in self.outcomes if outcome.classes]
        return self._tables(lambda net, u: net.predict_proba(u), classes) if classes else {}

    def predict_interval(self, level: float = 0.9) -> pd.DataFrame:
        """As `MixedOutcomeNet.predict_interval`, of outcomes that have one in every part."""
        known = [
            task.outcome
            for k, task in enumerate(self.tasks)
            if task.outcome.kind != "nominal" and all(part.scales[k].conformal is not None for part in self._parts)
        ]
        if not known:
            return pd.DataFrame(index=self.index)
        return self._tables(lambda net, u: {"": net.predict_interval(u, level)}, known)[""]

    def _tables(
        self, ask: Callable[[OnRanks, Floats], dict[str, pd.DataFrame]], outcomes: Sequence[Outcome] | None = None
    ) -> dict[str, pd.DataFrame]:
        parts: dict[str, list[pd.DataFrame]] = {}
        for part in self._parts:
            net = OnRanks(self.outcomes if outcomes is None else outcomes, self.tasks, part.scales)
            for name, table in ask(net, part.u).items():
                parts.setdefault(name, []).append(table.set_axis(part.rows))
        whole = range(self.n)
        return {name: pd.concat(tables).reindex(whole).set_axis(self.index) for name, tables in parts.items()}

    def _each(self, ask: Callable[[Judged], Floats]) -> Floats:
        out: Floats | None = None
        for part in self._parts:
            values = ask(part)
            if out is None:
                out = np.full((self.n, *values.shape[1:]), np.nan)
            out[part.rows] = values
        assert out is not None
        return out
