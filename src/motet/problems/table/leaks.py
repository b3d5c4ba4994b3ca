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
    for outcome in outcomes:
        name = outcome.task.name
        if outcome.task.kind != "multiclass" and numbers.shape[1]:
            same = np.abs(correlations(numbers, outcome.values[:, None].astype(np.float64)))
            found += [_copy(column, name) for column in features.numbers.columns[same > COPY]]
        if outcome.task.kind != "regression":
            rows = outcome.labelled
            codes = pd.Series(outcome.values[rows])
            columns = [*features.categories.columns, *_few(features.numbers)] if rows.sum() >= _FEWEST else []
            for column in columns:
                source = features.categories if column in features.categories else features.numbers
                if _renames(source[column][rows].reset_index(drop=True), codes):
                    found.append(_copy(column, name))
    return list(dict.fromkeys(found))


def _few(numbers: pd.DataFrame) -> list[str]:
    """Columns of numbers that could be class codes."""
    return [column for column in numbers.columns if numbers[column].nunique() <= 50]


def _renames(feature: pd.Series, codes: pd.Series) -> bool:
    """Whether every value of the feature stands for one class and every class for one value."""
    pairs = pd.DataFrame({"feature": feature, "code": codes}).dropna().drop_duplicates()
    return len(pairs) > 1 and pairs["feature"].is_unique and pairs["code"].is_unique


def _copy(feature: str, target: str) -> str:
    return (
        f"feature {feature!r} is nearly a copy of target {target!r}: if it is not known "
        "before the outcome is, leave it out with --drop"
    )
