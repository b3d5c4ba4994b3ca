"""Signs that a random split of this table would flatter every model."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from motet.problems.table.columns import Features, Outcome

NEIGHBOURS = 0.9
"""Median lag-1 autocorrelation from which neighbouring rows count as nearly identical. Hourly river flows
have 0.9997: there a random split shows a shared trunk 46 % behind single-task networks, which can remember
the neighbours better, and a split by time shows no difference."""

COPY = 0.999
"""Correlation from which a feature counts as a copy of a target."""

REPEATS = 0.05
"""Share of rows with copies elsewhere from which a table is warned of."""

_BY_CHANCE = 0.01
"""Other rows like it that a row may have by chance, on average, where copies are to mean anything."""

_FEWEST = 10
"""Rows that two columns must share before their correlation says anything."""


def correlations(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson's correlation of each column of ``left`` with that of ``right`` over the rows that both have.

    (N, D), (N, D) or (N, 1) → (D,); NaN where fewer than ten rows are shared or a column does not vary on them.
    """
    both = ~(np.isnan(left) | np.isnan(right))
    count = np.maximum(both.sum(axis=0), 1)

    def centred(values: NDArray[np.float64]) -> NDArray[np.float64]:
        known = np.where(both, values, 0.0)
        # To magnitude 1 first: squares of very large or very small values would leave the range of floats.
        size = np.abs(known).max(axis=0, initial=0.0)
        known = known / np.where(size > 0, size, 1.0)
        return np.where(both, known - known.sum(axis=0) / count, 0.0)

    a, b = centred(left), centred(right)
    lengths = np.sqrt((a * a).sum(axis=0) * (b * b).sum(axis=0))
    # Relative to columns of magnitude 1: what is left of a constant column is rounding.
    usable = (both.sum(axis=0) >= _FEWEST) & (lengths > 1e-12 * count)
    return np.where(usable, (a * b).sum(axis=0) / np.where(usable, lengths, 1.0), np.nan)


def neighbours(features: Features, outcomes: Sequence[Outcome]) -> str | None:
    """A warning where rows that follow each other in the file are nearly identical, else None."""
    targets = [o.values[:, None].astype(np.float64) for o in outcomes if o.task.kind == "regression"]
    values = np.concatenate([features.numbers.to_numpy(np.float64), *targets], axis=1)
    lags = correlations(values[:-1], values[1:])
    lags = lags[~np.isnan(lags)]
    if not len(lags) or (median := float(np.median(lags))) < NEIGHBOURS:
        return None
    return (
        f"rows that follow each other are nearly identical (median lag-1 autocorrelation {median:.4f}): a random "
        "split puts near-copies of training rows into the test part, so the results will be too good; "
        "split by --time or --group"
    )


def copies(features: Features, outcomes: Sequence[Outcome]) -> list[str]:
    """A warning for each feature that is, nearly, a target under another name."""
    found: list[str] = []
    numbers = features.numbers.to_numpy(np.float64)
    codes = _codes(features.categories)
    for outcome in outcomes:
        name = outcome.task.name
        if outcome.task.kind != "multiclass":
            same = np.abs(correlations(numbers, outcome.values[:, None].astype(np.float64))) > COPY
            found += [_copy(column, name) for column in features.numbers.columns[same]]
        if outcome.task.kind != "regression" and outcome.labelled.sum() >= _FEWEST:
            for names, values in ((features.numbers.columns, numbers), (features.categories.columns, codes)):
                found += [_copy(column, name) for column in names[_renames(values, outcome.strata)]]
    return list(dict.fromkeys(found))


def repeats(features: Features, outcomes: Sequence[Outcome], groups: NDArray[np.int64] | None) -> str | None:
    """A warning where too many rows are copies of others, all features alike, so that parts share rows, else None.

    Copies within one group are in one part and do no harm. Nor do those of a table so coarse, three truth
    values for example, that rows are alike by chance: if columns were independent of each other, a row
    would have N Π_d q_d others like it, where q_d is the share of pairs of rows, copies counted once, that
    are alike in column d. Where the features alone are that coarse, the targets count as columns, and rows
    must be alike in them, too.
    """
    columns = np.concatenate([features.numbers.to_numpy(np.float64), _codes(features.categories)], axis=1)
    targets = np.stack([o.values.astype(np.float64) for o in outcomes], axis=1)
    for values, what in ((columns, "features"), (np.concatenate([columns, targets], axis=1), "features and targets")):
        table = pd.DataFrame(values)
        rows = pd.util.hash_pandas_object(table, index=False).to_numpy()
        _, once, row, count = np.unique(rows, return_index=True, return_inverse=True, return_counts=True)
        alike = count[row] > 1
        if groups is not None:
            first = np.zeros(len(count), dtype=np.int64)
            first[row] = groups
            alike = np.isin(row, row[groups != first[row]])
        if alike.mean() < REPEATS:
            return None
        if np.log(len(table)) + _log_matches(values[once]) < np.log(_BY_CHANCE):
            where = "in other groups" if groups is not None else "in the table"
            fix = "drop the copies" if groups is not None else "drop the copies, or keep them together with --group"
            return (
                f"{alike.sum()} of {len(table)} rows have copies {where}, with all {what} alike: the test part has "
                f"rows of the training part, so the results will be too good; {fix}"
            )
    return None


def _log_matches(values: NDArray[np.float64]) -> float:
    """Σ_d log q_d, where q_d is the share of pairs of rows that are alike in column d: (N, D)."""
    total = 0.0
    for column in values.T:
        counts = np.unique(column, return_counts=True)[1]
        pairs = int((counts * (counts - 1)).sum())
        if not pairs:
            return -np.inf
        total += float(np.log(pairs / (len(column) * (len(column) - 1))))
    return total


def _codes(categories: pd.DataFrame) -> NDArray[np.float64]:
    """Each category as a number: (N, D)."""
    codes = [pd.factorize(categories[name])[0] for name in categories.columns]
    return np.array(codes, dtype=np.float64).reshape(len(codes), len(categories)).T


def _renames(values: NDArray[np.float64], classes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which columns have one value for each class and one class for each value: (N, D), (N,) → (D,).

    Missing values and missing classes, -1, say nothing.
    """
    lowest, highest = [], []
    for code in np.unique(classes[classes >= 0]):
        rows = values[classes == code]
        gaps = np.isnan(rows)
        lowest.append(np.where(gaps, np.inf, rows).min(axis=0))
        highest.append(np.where(gaps, -np.inf, rows).max(axis=0))
    low, high = np.array(lowest), np.array(highest)
    seen = low <= high
    ordered = np.sort(np.where(seen, low, np.nan), axis=0)
    distinct = ~(np.diff(ordered, axis=0) == 0).any(axis=0)
    return np.asarray(((low == high) | ~seen).all(axis=0) & distinct & (seen.sum(axis=0) > 1))


def _copy(feature: str, target: str) -> str:
    return (
        f"feature {feature!r} is nearly a copy of target {target!r}: if it is not known "
        "before the outcome is, leave it out with --drop"
    )
