"""Cross-validation for outcomes of different kinds: rare classes, events and gaps spread evenly over the folds."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import BaseCrossValidator

from motet.estimators.cells import Survival, read_table
from motet.estimators.outcomes import Encoded, comparable, encode, read_outcomes

__all__ = ["OutcomeKFold", "assign_folds", "check_folds", "given_folds", "without_pairs"]

Rows = NDArray[np.int64]
BINS = 4
"""Continuous outcomes, counts and times are spread by their quarters."""
FEW = 20
"""What fewer rows in a fold than this have is evened out again in the end."""
SWEEPS = 10
"""How often at most; it ends when no unit moves, mostly after two or three."""


class OutcomeKFold(BaseCrossValidator):  # type: ignore[misc]
    """K folds in which every outcome has its share of observed rows, classes, events and large values.

    Rows, or groups where there are any, go one after the other to the fold that has least of what they
    bring, those with the rarest first; each class, event, quarter and gap counts by the inverse of how
    many there are, as does the number of rows. Rows that bring the same are in random order. A heuristic: a
    class of n_splits rows is in every fold unless several rare classes, or groups, are in the way.

    `MixedOutcomeNet` makes such folds of its own; this is for `GridSearchCV` or `cross_val_score` around it.

    Args:
        n_splits: Number of folds, ≥ 2.
        outcomes: As in `read_outcomes`.
        random_state: Seed, ≥ 0. The same seed gives the same folds.

    Cost:
        O(n (n_splits) L) for L classes, events, quarters and gaps.
    """

    def __init__(
        self,
        n_splits: int = 5,
        *,
        outcomes: str | Survival | Mapping[str, str | Survival] = "infer",
        random_state: int = 0,
    ) -> None:
        self.n_splits = n_splits
        self.outcomes = outcomes
        self.random_state = random_state

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:  # noqa: ARG002
        """Number of folds."""
        return self.n_splits

    def split(self, X: Any, y: Any = None, groups: ArrayLike | None = None) -> Iterator[tuple[Rows, Rows]]:  # noqa: ARG002
        """Rows of the training and of the test part, once for each fold.

        Args:
            X: Not looked at.
            y: The outcomes, in any form that `read_outcomes` takes.
            groups: (n,) Rows of one group are in the same fold.

        Raises:
            ValueError: if there are fewer rows or groups than folds, or a training part has no two rows of
                which it is known which has the larger outcome.
        """
        tasks = encode(read_outcomes(self.outcomes, y), y)
        fold = assign_folds(tasks, self.n_splits, groups, self.random_state)
        for number in range(self.n_splits):
            yield np.flatnonzero(fold != number), np.flatnonzero(fold == number)


def assign_folds(
    tasks: Sequence[Encoded], n_splits: int = 5, groups: ArrayLike | None = None, random_state: int = 0
) -> Rows:
    """The fold (n,) of each row, as `OutcomeKFold` has it, for outcomes that have been encoded.

    Raises:
        ValueError: as `OutcomeKFold.split` does.
    """
    if n_splits != int(n_splits) or n_splits < 2:
        raise ValueError(f"n_splits must be a whole number ≥ 2, not {n_splits!r}")
    unit, units, what = _units(groups, len(tasks[0].y))
    if units < n_splits:
        raise ValueError(f"{n_splits} folds need as many {what}, and there are {units}: lower n_splits")
    traits = _traits(tasks)
    brings = np.zeros((units, traits.shape[1]))
    np.add.at(brings, unit, traits)
    fold = _spread(brings, n_splits, np.random.default_rng(random_state))[unit]
    check_folds(tasks, fold, "" if groups is None else ", or use other groups")
    return fold


def check_folds(tasks: Sequence[Encoded], fold: Rows, or_else: str = "") -> None:
    """That every outcome can be fitted without any of the folds.

    Raises:
        ValueError: that names the outcome, the fold and what helps; ``or_else`` is added to that.
    """
    folds = int(fold.max()) + 1
    for number in range(folds):
        if lacking := _without(tasks, fold != number):
            task = lacking[0]
            fix = "leave the outcome out" if task.label is None else "merge the class with another, or set it to NaN"
            raise ValueError(
                f"outcome {task.name!r} has too few different values or events for {folds} folds: without fold "
                f"{number}, no pair of rows is left of which it is known which is larger; {fix}{or_else}"
            )


def given_folds(cv: Any, X: ArrayLike, groups: ArrayLike | None = None, Y: Any = None) -> Rows:
    """The fold (n,) of each row, by a splitter or by splits (train rows, test rows), each row in one test part.

    Raises:
        ValueError: if some row is in no test part, or in several, or there are fewer than two splits.
    """
    if hasattr(cv, "split"):
        cv = cv.split(X, _plain(Y), groups)
    elif not isinstance(cv, Iterable) or isinstance(cv, str):
        raise ValueError(f"cv is a number of folds, at least 2, a splitter or splits, not {cv!r}")
    splits = list(cv)
    if len(splits) < 2:
        raise ValueError(f"cv gives {len(splits)} splits: at least 2 are needed")
    times, fold = np.zeros(len(np.asarray(X)), dtype=np.int64), np.zeros(len(np.asarray(X)), dtype=np.int64)
    for number, (_, test) in enumerate(splits):
        times[test] += 1
        fold[test] = number
    if (times != 1).any():
        row = int(np.argmax(times != 1))
        raise ValueError(f"cv leaves out row {row} (counted from 0) {times[row]} times: each row must be left out once")
    return fold


def without_pairs(tasks: Sequence[Encoded], fold: Rows) -> list[str]:
    """A sentence for each fold and outcome that can't be scored in it, having one class or no event there."""
    return [
        f"outcome {task.name!r} can't be scored in fold {number}, where all pairs are tied, censored or missing"
        for number in range(int(fold.max()) + 1)
        for task in _without(tasks, fold == number)
    ]


def _plain(Y: Any) -> Any:
    """Outcomes as scikit-learn's splitters take them: an array, or a table of pandas; a single column as a vector."""
    if Y is None or isinstance(Y, np.ndarray):
        return Y
    table, _ = read_table(Y)
    return table.iloc[:, 0].to_numpy() if table.shape[1] == 1 else table


def _without(tasks: Sequence[Encoded], rows: NDArray[np.bool_]) -> list[Encoded]:
    return [task for task in tasks if not comparable(task.at(rows))]


def _units(groups: ArrayLike | None, rows: int) -> tuple[Rows, int, str]:
    """What can't be cut: the number of each row's, how many there are, and their name."""
    if groups is None:
        return np.arange(rows), rows, "rows"
    groups = np.asarray(groups)
    if groups.shape != (rows,):
        raise ValueError(f"groups has the shape {groups.shape}: it must be ({rows},), one for each row")
    unit, names = pd.factorize(groups)
    if (gap := unit < 0).any():
        raise ValueError(f"groups is missing in row {int(np.argmax(gap))} (counted from 0): give it a group of its own")
    return np.asarray(unit, dtype=np.int64), len(names), "groups"


def _traits(tasks: Sequence[Encoded]) -> NDArray[np.float64]:
    """(n, L) Which rows have what is to be spread: for each outcome, its gaps, and its classes, events or quarters."""
    columns: list[NDArray[np.bool_]] = [np.ones(len(tasks[0].y), dtype=bool)]
    for task in tasks:
        y, observed = task.y, task.observed
        columns.append(~observed)
        if task.event is not None:
            columns += [observed & (task.event == 1), observed & (task.event == 0)]
        if task.kind in ("binary", "ordinal"):
            columns += [y == code for code in np.unique(y[observed])]
        elif observed.any():
            cuts = np.unique(np.quantile(y[observed], np.arange(1, BINS) / BINS))
            part = np.where(observed, np.searchsorted(cuts, y), -1)
            columns += [part == number for number in range(len(cuts) + 1)]
    traits = np.stack([column for column in columns if column.any()], axis=1).astype(np.float64)
    return np.unique(traits, axis=1)


def _spread(brings: NDArray[np.float64], n_splits: int, generator: np.random.Generator) -> Rows:
    """The fold of each unit, from what it brings: (units, L) counts."""
    totals = brings.sum(axis=0)
    share = brings / totals
    # Units with the rarest traits first, and of groups the largest, while there is still room to even out.
    # The random order decides between equals: the sort is stable.
    order = generator.permutation(len(brings))
    order = order[np.argsort(-share[order].max(axis=1), kind="stable")]
    held = np.zeros((n_splits, brings.shape[1]))
    fold = np.full(len(brings), -1)

    def place(unit: int) -> bool:
        """Put a unit where its like is rarest, and tell whether that is another place than before."""
        before = fold[unit]
        if before >= 0:
            held[before] -= share[unit]
        # Growth of Σ_f Σ_l (share of l in f)² if the unit goes to f, up to what is the same for all f.
        cost = held @ share[unit]
        best = np.flatnonzero(cost <= cost.min() + 1e-9 * share[unit].max())
        if before not in best:
            fold[unit] = best[generator.integers(len(best))]
        held[fold[unit]] += share[unit]
        return bool(fold[unit] != before)

    for unit in order:
        place(unit)
    # The first come without knowing the later ones, and are moved once all are there. What is in many rows is even.
    rare = order[share[order].max(axis=1) * n_splits * FEW > 1]
    for _ in range(SWEEPS):
        if sum(place(unit) for unit in rare) == 0:
            break
    return fold
