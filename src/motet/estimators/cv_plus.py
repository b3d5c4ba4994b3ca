"""CV+ intervals and sets, for too few rows to set some aside: Barber, Candès, Ramdas & Tibshirani, AoS 2021."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import NotFittedError

from motet.estimators.calibration_rows import Floats, calibration_rows, scores
from motet.estimators.conformity import (
    Random,
    band,
    misfits,
    miss_of,
    only,
    unbounded,
    unlikely,
    warn_too_few,
)
from motet.estimators.outcome_scale import OutcomeScale

_BLOCK = 1024
"""New rows for which the bands of all calibration rows are held at once."""


class CVPlus:
    r"""Intervals and sets from all rows, each judged by the scale that was fitted without its fold.

        [ q⁻{ℓᵢ}, q⁺{rᵢ} ],   [ℓᵢ, rᵢ] = {y : V_{-k(i)}(y|u) ≤ Vᵢ},   Vᵢ = V_{-k(i)}(yᵢ|uᵢ), k(i) the fold of row i,

    q⁺ the ⌈level (n+1)⌉-th smallest and q⁻ the ⌈level (n+1)⌉-th largest; for classes {c : #{i : Vᵢ < V_{-k(i)}(c|u)} <
    level (n+1)}, with what lies between. Coverage of at least 1 - 2(1 - level), less about √(2/n), and close to
    ``level`` in practice.

    Args:
        kind: "continuous", "binary", "ordinal" or "count".
        options: Of `OutcomeScale`, one of which is fitted for each fold; law="kernel" unless given.

    Shapes:
        u (N,), or (N, folds) with the scores by the model of each fold, in the order of the sorted fold labels →
        `interval` (N, 2), `sets` bool (N, C).

    Cost:
        n bands for each new row: O(N n log m) time, blocks of memory.

    Note:
        The guarantee asks that nothing by which row i is judged has seen fold k(i). The scale has not, but it was
        fitted to scores of which some come from models that were trained on that fold, so it is approximate.
    """

    def __init__(self, kind: str, **options: Any) -> None:
        self.kind, self.options = kind, {"law": "kernel"} | options
        only(OutcomeScale(kind, **self.options), "CV+ statement", "continuous", "binary", "ordinal", "count")
        self._scales: list[OutcomeScale] = []
        self._values: list[Floats] = []
        self._weights: list[Floats] = []

    def fit(
        self,
        u: ArrayLike,
        y: ArrayLike,
        fold: ArrayLike,
        weight: ArrayLike | None = None,
        random_state: Random = None,
    ) -> Self:
        """Take out-of-fold scores u, outcomes y and the label of each row's fold, (n,) each.

        Raises:
            ValueError: as `OutcomeScale.fit`, or if fewer than two folds have rows with an observed outcome.
        """
        calibration_rows(self.kind, u, y, None, weight)
        u, y = np.asarray(u, dtype=np.float64), np.asarray(y, dtype=np.float64)
        label = np.asarray(fold)
        if label.shape != y.shape:
            raise ValueError(f"fold must be of shape {y.shape}, not {label.shape}")
        w = np.ones(len(y)) if weight is None else np.asarray(weight, dtype=np.float64)
        used = ~np.isnan(y) & (w > 0)
        labels, rng = np.unique(label), np.random.default_rng(random_state)
        if len(np.unique(label[used])) < 2:
            raise ValueError("CV+ needs observed outcomes in at least two folds")
        options = dict(self.options)
        if self.kind == "ordinal":
            options.setdefault("classes", np.unique(y[used]))
        self._scales, self._values, self._weights = [], [], []
        for k in labels:
            mine = label == k
            scale = OutcomeScale(self.kind, **options).fit(u[~mine], y[~mine], weight=w[~mine])
            self._scales.append(scale)
            empty = not (mine & used).any()
            rows = None if empty else calibration_rows(self.kind, u[mine], y[mine], None, w[mine])
            values = np.zeros(0) if rows is None else misfits(scale, rows, rng)
            order = np.argsort(values, kind="stable")
            self._values.append(values[order])
            self._weights.append(np.zeros(0) if rows is None else rows.weight[order])
        return self

    def interval(self, u: ArrayLike, level: float = 0.9, outcomes: int = 1) -> Floats:
        """Lower and upper ends for a continuous outcome or a count; ``outcomes`` as in `SplitConformal`."""
        by_fold = self._by_fold(u)
        only(self._scales[0], "interval", "continuous", "count")
        needed = self._needed(level, outcomes)
        if needed is None:
            return unbounded(self._scales[0], len(by_fold))
        weight, out = np.concatenate(self._weights), np.empty((len(by_fold), 2))
        for start in range(0, len(by_fold), _BLOCK):
            block = by_fold[start : start + _BLOCK].T
            bands = [band(s, x, v) for s, x, v in zip(self._scales, block, self._values, strict=True)]
            lower, upper = (np.concatenate(ends, axis=1) for ends in zip(*bands, strict=True))
            out[start : start + _BLOCK, 0] = -_reaching(-lower, weight, needed)
            out[start : start + _BLOCK, 1] = _reaching(upper, weight, needed)
        return out

    def sets(self, u: ArrayLike, level: float = 0.9, outcomes: int = 1) -> NDArray[np.bool_]:
        """Which classes of a binary or ordinal outcome are in its set; without a gap, and never empty."""
        by_fold = self._by_fold(u)
        only(self._scales[0], "set", "binary", "ordinal")
        needed = self._needed(level, outcomes)
        shape = len(by_fold), len(self._scales[0].classes_)
        if needed is None:
            return np.ones(shape, dtype=bool)
        better = np.zeros(shape)
        for scale, x, values, weight in zip(self._scales, by_fold.T, self._values, self._weights, strict=True):
            better += np.append(0.0, np.cumsum(weight))[np.searchsorted(values, unlikely(scale, x), side="left")]
        held = better < np.maximum(needed, np.nextafter(better.min(axis=1, keepdims=True), np.inf))
        reaches = np.logical_or.accumulate
        return reaches(held, axis=1) & reaches(held[:, ::-1], axis=1)[:, ::-1]

    def _by_fold(self, u: ArrayLike) -> Floats:
        if not self._scales:
            raise NotFittedError("this CVPlus is not fitted: call fit first")
        new = np.asarray(u, dtype=np.float64)
        if new.ndim == 2 and new.shape[1] != len(self._scales):
            raise ValueError(f"the scores must have a column for each of {len(self._scales)} folds, not {new.shape[1]}")
        flat = scores(new.reshape(-1)) if new.ndim == 2 else scores(new).repeat(len(self._scales))
        return flat.reshape(-1, len(self._scales))

    def _needed(self, level: float, outcomes: int) -> float | None:
        """The weight that ⌈level (n+1)⌉ stands for, None if there is not so much."""
        miss = miss_of(level, outcomes)
        total = float(sum(weight.sum() for weight in self._weights))
        needed = (1 - miss) * (total + 1) * (1 - 1e-12)
        if needed <= total:
            return needed
        warn_too_few(total, miss)
        return None

    def state(self) -> dict[str, Any]:
        """Arrays, numbers and strings that `from_state` takes."""
        state: dict[str, Any] = {"kind": self.kind, "folds": float(len(self._scales))}
        for k, (scale, values, weights) in enumerate(zip(self._scales, self._values, self._weights, strict=True)):
            state |= {f"fold{k}.{name}": value for name, value in scale.state().items()}
            state |= {f"fold{k}.conformal_values": values, f"fold{k}.conformal_weight": weights}
        return state

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The fitted object that gave this state."""
        conformal = cls(str(state["kind"]))
        for k in range(int(state["folds"])):
            start = f"fold{k}."
            part = {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}
            conformal._scales.append(OutcomeScale.from_state(part))
            conformal._values.append(np.asarray(part["conformal_values"]))
            conformal._weights.append(np.asarray(part["conformal_weight"]))
        first = conformal._scales[0]
        conformal.options = {"max_thresholds": first.max_thresholds, "law": first.law_name}
        if conformal.kind == "ordinal":
            conformal.options["classes"] = first.classes_
        return conformal


def _reaching(values: Floats, weight: Floats, needed: float) -> Floats:
    """The smallest value of each row at or below which there is the needed weight: (N, n), (n,) → (N,)."""
    order = np.argsort(values, axis=1, kind="stable")
    place = (np.cumsum(weight[order], axis=1) < needed).sum(1).clip(max=len(weight) - 1)
    return np.take_along_axis(np.take_along_axis(values, order, 1), place[:, None], 1)[:, 0]
