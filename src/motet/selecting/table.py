"""A table as features and outcomes, with a word on everything that was understood, changed or is doubtful."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from motet.columns import FEW_NUMBERS, find
from motet.estimators.outcomes import Survival
from motet.problems.table import missing
from motet.problems.table.columns import Column, Features, features, groups, named_as_identifier
from motet.problems.table.doubts import doubts
from motet.problems.table.reading import read
from motet.selecting.declared import Declared, ordered, read_declarations
from motet.selecting.preparation import Preparation

FEWEST_ROWS = 30
"""With fewer, no part of a cross-validation tells anything."""
COPY = 0.95
"""Rank correlation from which a feature may be the outcome in other words."""
_LATER = re.compile(
    r"(?:.*[^a-z])?(?:event|status|dead|death|died|deceased|censor\w*|relapse\w*|recurrence|metastasis|survival|follow_?up"
    r"|time|os|pfs|dfs|rfs|dmfs|efs)(?:[^a-z].*)?|[te]\..*"
)


@dataclass(frozen=True)
class Table:
    """What is fitted.

    Attributes:
        name: Of the file, without its ending.
        source: The file.
        X: Features (n, p), numbers without gaps.
        Y: Outcomes' columns (n, …).
        outcomes: {name: kind} as `MixedOutcomeNet` takes them.
        labels: Columns that tell rows apart: the row's number in the file, the group and identifiers.
        groups: (n,) codes, or None.
        preparation: Makes X of new rows.
        declared: The outcomes as they were asked for.
        overview: Lines that say how the table was understood.
        warnings: What is doubtful.
    """

    name: str
    source: str
    X: pd.DataFrame
    Y: pd.DataFrame
    outcomes: dict[str, str | Survival]
    labels: pd.DataFrame
    groups: NDArray[np.int64] | None
    preparation: Preparation
    declared: tuple[Declared, ...]
    overview: tuple[str, ...]
    warnings: tuple[str, ...]


def open_table(path: Path, outcome: Sequence[str], drop: Sequence[str] = (), group: str | None = None) -> Table:
    """Read a table and its outcomes.

    Raises:
        ValueError: in one sentence, for a file that is no table, a column that is not there or has two roles, too few
            rows, or no feature.
    """
    raw, notes = _read(path)
    declared = read_declarations(outcome, list(raw.columns))
    taken = {column: one.name for one in declared for column in one.columns}
    for name, purpose in [*([(group, "for the group")] if group else []), *((name, "to drop") for name in drop)]:
        if find(name, raw.columns, purpose) in taken:
            raise ValueError(f"column {name!r} is in the outcome {taken[name]!r} and can't be the one {purpose} too")
    raw, blanked = missing.blank(raw, [column for column in raw.columns if column not in {*drop, group}])
    Y = _outcomes(raw, declared)
    raw, Y, dropped = _with_outcome(raw, Y, declared)
    others = raw[[column for column in raw.columns if column not in {*taken, *drop, group}]]
    inputs, dates = _without_dates(features(others))
    if not inputs.numbers.shape[1] + inputs.categories.shape[1]:
        raise ValueError("no feature is left: every column is an outcome, was dropped, is constant or is an identifier")
    preparation = Preparation.learn(inputs.numbers, inputs.categories)
    X = preparation.apply(inputs.numbers, inputs.categories)
    constant = [name for name in X if X[name].nunique() < 2]
    if len(constant) == X.shape[1]:
        raise ValueError("no feature is left: every column is constant")
    if clash := [name for name, count in Counter(X.columns).items() if count > 1]:
        raise ValueError(f"a category of a column and another column are both called {clash[0]!r}: rename one")
    codes = groups(raw[group], group) if group else None
    overview = [f"{path.name}: {len(raw)} rows", *notes, *blanked, *dropped, *_overview(inputs, X), *dates]
    if codes is not None:
        overview.append(f"folds keep the {len(np.unique(codes))} groups of {group!r} together")
    warnings = [
        *doubts(others, inputs, grouped=group is not None),
        *_copies(X, Y),
        *_later(inputs),
        *_repeats(X, codes),
    ]
    return Table(
        name=path.name.split(".")[0],
        source=str(path),
        X=X,
        Y=Y,
        outcomes={one.name: "infer" if one.kind == "infer" else one.kind for one in declared},
        labels=_labels(raw, group, inputs.columns),
        groups=codes,
        preparation=preparation,
        declared=tuple(declared),
        overview=tuple(overview),
        warnings=tuple(warnings),
    )


def open_new(path: Path, table: Table) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame | None]:
    """New rows: their features, labels, and outcomes if the table has all of them.

    Raises:
        ValueError: as `open_table`, or if it lacks a feature.
    """
    raw, _ = _read(path)
    raw, _ = missing.blank(raw, list(raw.columns))
    X = table.preparation.transform(raw)
    known = [one for one in table.declared if all(column in raw for column in one.columns)]
    labels = pd.DataFrame({"row": np.arange(1, len(raw) + 1)}, index=raw.index)
    labels = labels.assign(**{name: raw[name] for name in table.labels.columns if name in raw and name != "row"})
    if len(known) < len(table.declared):
        return X, labels, None
    return X, labels, _outcomes(raw, table.declared, new=True)


def _outcomes(raw: pd.DataFrame, declared: Sequence[Declared], *, new: bool = False) -> pd.DataFrame:
    columns = {
        column: ordered(raw[column], one, new=new) if len(one.columns) == 1 else raw[column]
        for one in declared
        for column in one.columns
    }
    return pd.DataFrame(columns, index=raw.index)


def _read(path: Path) -> tuple[pd.DataFrame, list[str]]:
    path = path.expanduser()
    table, notes = read(path)
    table = table.set_axis([str(column) for column in table.columns], axis=1)
    if twice := [column for column, count in Counter(table.columns).items() if count > 1]:
        raise ValueError(f"the table has the column {twice[0]!r} twice: rename one of them")
    return table, notes


def _with_outcome(
    raw: pd.DataFrame, Y: pd.DataFrame, declared: Sequence[Declared]
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """The rows that have any outcome at all."""
    known = np.any([Y[list(one.columns)].notna().all(axis=1).to_numpy() for one in declared], axis=0)
    if known.sum() < FEWEST_ROWS:
        raise ValueError(
            f"the table has {known.sum()} rows with an outcome, and a cross-validation needs {FEWEST_ROWS} or more"
        )
    if known.all():
        return raw, Y, []
    note = f"{(~known).sum()} of {len(raw)} rows have no outcome at all and are left out"
    return raw[known], Y[known], [note]


def _without_dates(inputs: Features) -> tuple[Features, list[str]]:
    dates = [column.name for column in inputs.columns if column.kind == "date"]
    if not dates:
        return inputs, []
    kept = [name for name in inputs.numbers if not any(name.startswith(f"{date}:") for date in dates)]
    columns = tuple(c if c.kind != "date" else Column(c.name, "left out", "date") for c in inputs.columns)
    note = f"dates are left out ({', '.join(dates[:5])}): make them numbers, such as days, to use them"
    return Features(inputs.numbers[kept], inputs.categories, columns), [note]


def _overview(inputs: Features, X: pd.DataFrame) -> list[str]:
    numbers, categories = inputs.numbers.shape[1], inputs.categories.shape[1]
    line = f"{X.shape[1]} features: {numbers} numbers"
    if categories:
        line += f" and {X.shape[1] - numbers} one-hot columns of {categories} categories"
    lines = [line]
    gaps = inputs.numbers.isna()
    if gaps.to_numpy().any():
        count, share = int(gaps.any().sum()), 100 * gaps.to_numpy().mean()
        lines.append(f"{count} of them have missing values ({share:.2g} % of all cells), set to the column's median")
    if out := [f"{c.name} ({c.kind})" for c in inputs.columns if c.role == "left out" and c.kind != "date"]:
        lines.append("left out: " + ", ".join(out[:8]) + (f" and {len(out) - 8} more" if len(out) > 8 else ""))
    return lines


def _copies(X: pd.DataFrame, Y: pd.DataFrame) -> list[str]:
    """Features that order the rows as an outcome does: often the outcome in other words, or known only after it."""
    found = []
    values = X.to_numpy(np.float64)
    for name in Y:
        column = Y[name]
        codes = column.cat.codes if isinstance(column.dtype, pd.CategoricalDtype) else pd.Series(_codes(column))
        y = codes.astype("float64").to_numpy()
        known = column.notna().to_numpy() & np.isfinite(y)
        if known.sum() < FEWEST_ROWS:
            continue
        ranks, own = rankdata(values[known], axis=0), rankdata(y[known])
        ranks, own = ranks - ranks.mean(axis=0), own - own.mean()
        size = np.sqrt((ranks**2).sum(axis=0) * (own**2).sum())
        rho = np.divide(own @ ranks, size, out=np.zeros(len(size)), where=size > 0)
        near = np.flatnonzero(abs(rho) >= COPY)
        found += [
            f"feature {X.columns[q]!r} orders the rows as {name!r} does (rank correlation {rho[q]:.2f}): if it is the "
            "outcome in other words, or known only after it, leave it out with --drop"
            for q in near[:5]
        ]
    return found


def _codes(column: pd.Series) -> NDArray[np.float64]:
    if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        return np.asarray(column, dtype=np.float64)
    codes = pd.factorize(column, sort=True)[0].astype(np.float64)
    # More than two classes of text have no order that a feature could copy.
    return codes if codes.max() == 1 else np.full(len(codes), np.nan)


def _later(inputs: Features) -> list[str]:
    names = [c.name for c in inputs.columns if c.role == "feature" and _LATER.fullmatch(c.name.lower())]
    if not names:
        return []
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return [
        f"{', '.join(map(repr, names[:8]))}{more} {'is' if len(names) == 1 else 'are'} named like an outcome or its "
        "time and used as a feature: if not known when predictions are made, leave out with --drop"
    ]


def _repeats(X: pd.DataFrame, codes: NDArray[np.int64] | None) -> list[str]:
    twice = X.duplicated(keep=False).to_numpy() if X.shape[1] > 2 else np.zeros(len(X), dtype=bool)
    if codes is not None or not twice.any():
        return []
    return [
        f"{twice.sum()} rows have the same features as another row: if they are of one patient, name the patient's "
        "column with --group, or results are too good"
    ]


def _labels(raw: pd.DataFrame, group: str | None, columns: Sequence[Column]) -> pd.DataFrame:
    labels = pd.DataFrame({"row": np.asarray(raw.index) + 1}, index=raw.index)
    out = [c.name for c in columns if c.role == "left out" and c.kind not in ("constant", "date")]
    known = [name for name in out if named_as_identifier(name) or raw[name].nunique() > FEW_NUMBERS]
    names = [name for name in dict.fromkeys([*([group] if group else []), *known]) if name != "row"]
    return labels.assign(**{name: raw[name] for name in names[:3]})
