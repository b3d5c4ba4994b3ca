"""Permutation importance per outcome: Breiman, Machine Learning 2001."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from motet.estimators.trust import Floats, Progress, RandomState, Result, entropy, generator, names_of, whole

Scores = Mapping[str, float] | Sequence[float] | Floats
"""One score an outcome, by name or in order; NaN where an outcome can't be scored."""


def read_scores(scores: Scores) -> tuple[tuple[str, ...], Floats]:
    """Names of the outcomes, or y0, y1, … for scores without names, and the scores (K,)."""
    if isinstance(scores, Mapping):
        return tuple(map(str, scores)), np.array(list(scores.values()), dtype=np.float64)
    values = np.atleast_1d(np.asarray(scores, dtype=np.float64))
    if values.ndim != 1 or not len(values):
        raise ValueError(f"scores must be one number an outcome, and have shape {values.shape}")
    return tuple(names_of(None, len(values), "y")), values


@dataclass(frozen=True, eq=False, repr=False)
class PermutationImportance(Result):
    """What each outcome's score loses when a feature, or a group of features, is shuffled.

    Attributes:
        drops: Of every repetition, (repeats, C, K): score as it is minus score with the features shuffled.
        baseline: Scores as they are, (K,).
        features: Names of the features or groups, (C,).
        outcomes: Names of the outcomes, (K,).
    """

    drops: Floats
    baseline: Floats
    features: tuple[str, ...]
    outcomes: tuple[str, ...]

    @property
    def mean(self) -> Floats:
        """Mean drop, (C, K); NaN where an outcome can't be scored."""
        return np.asarray(self.drops.mean(axis=0))

    @property
    def standard_error(self) -> Floats:
        """Of the mean drop over the shuffles, (C, K); NaN for one repetition. Other rows would differ by more."""
        repeats = len(self.drops)
        if repeats < 2:
            return np.full(self.drops.shape[1:], np.nan)
        return np.asarray(self.drops.std(axis=0, ddof=1) / repeats**0.5)

    def to_frame(self, standard_error: bool = False) -> pd.DataFrame:
        """Features by outcomes, the largest mean drop first; of the standard errors, in the same order, if asked."""
        table = pd.DataFrame(self.mean, index=pd.Index(self.features, name="feature"), columns=list(self.outcomes))
        order = np.argsort(-np.nan_to_num(table.mean(axis=1).to_numpy(), nan=-np.inf), kind="stable")
        if standard_error:
            table = pd.DataFrame(self.standard_error, index=table.index, columns=table.columns)
        return table.iloc[order]

    def __repr__(self) -> str:
        return f"PermutationImportance({len(self.drops)} repeats)\n{self.to_frame()}"


def permutation_importance(
    score_per_task: Callable[[Any], Scores],
    X: Any,
    rng: RandomState = None,
    *,
    repeats: int = 10,
    columns: Sequence[int | str] | None = None,
    groups: Mapping[str, Sequence[int | str]] | None = None,
    progress: Progress | None = None,
) -> PermutationImportance:
    r"""How much each outcome's score depends on each feature, for a fitted model.

        I_jk = C_k(X) - mean over shuffles of C_k(X with the values of column j in random order).

    Args:
        score_per_task: ``score_per_task(X)`` of the fitted model, on rows that it was not fitted on: one concordance
            an outcome, by name or in order. NaN stays NaN.
        X: (n, p), an array or a pandas DataFrame; it isn't changed.
        rng: None, an int or a generator.
        repeats: Shuffles of each feature, from 1. A standard error needs 2.
        columns: Numbers or names of the columns to shuffle, one at a time. None takes all: for a sparse model give the
            selected ones, as the others are exactly 0.
        groups: Columns to shuffle together, in the same order for all of a group, by the group's name, in place of
            ``columns``. For correlated features: each of a pair can hide the other's loss.
        progress: ``progress(done, features)`` after each feature or group.

    Cost:
        1 + C · repeats scorings.

    Note:
        It says what the *model* uses. Features that it doesn't use but could have are 0.
    """
    whole("repeats", repeats, 1)
    if columns is not None and groups is not None:
        raise ValueError("give columns or groups, not both")
    frame = isinstance(X, pd.DataFrame)
    data: Any = X if frame else np.asarray(X)
    if data.ndim != 2 or not len(data):
        raise ValueError(f"X must be (n, p) with at least a row, and has shape {data.shape}")
    names = [str(name) for name in X.columns] if frame else names_of(None, data.shape[1])
    if groups is None:
        numbers = [_number(column, names) for column in (range(len(names)) if columns is None else columns)]
        blocks = {names[number]: [number] for number in numbers}
    else:
        blocks = {str(name): [_number(column, names) for column in members] for name, members in groups.items()}
    if empty := [name for name, members in blocks.items() if not members]:
        raise ValueError(f"the groups {', '.join(empty)} have no columns")
    outcomes, baseline = read_scores(score_per_task(X))
    root = entropy(rng)
    drops = np.empty((repeats, len(blocks), len(baseline)))
    for block, members in enumerate(blocks.values()):
        for repeat in range(repeats):
            # The same shuffles for every feature: what differs between features isn't their luck.
            order = generator(root, repeat).permutation(len(data))
            shuffled = data.copy()
            if frame:
                for member in members:  # Column by column keeps every column's dtype.
                    shuffled.isetitem(member, data.iloc[order, member].array)
            else:
                shuffled[:, members] = data[order][:, members]
            drops[repeat, block] = baseline - read_scores(score_per_task(shuffled))[1]
        if progress is not None:
            progress(block + 1, len(blocks))
    return PermutationImportance(drops, baseline, tuple(blocks), outcomes)


def _number(column: int | str, names: list[str]) -> int:
    if isinstance(column, str):
        if names.count(column) != 1:
            raise ValueError(f"there are {names.count(column)} columns {column!r}")
        return names.index(column)
    number = whole("a column's number", column, 0)
    if number >= len(names):
        raise ValueError(f"there is no column {number}: X has {len(names)}")
    return number
