"""Marks that people write where a number is missing."""

from collections.abc import Iterable

import pandas as pd

from motet.columns import plain

_SIGNS = ("", "-", "--", "–", "—", "?", ".", "#n/a", "#value!", "#div/0!", "#ref!")
_WORDS = ("n/d", "n.d.", "n.d", "nd", "n/a", "n.a.", "n.a", "na", "n/k", "none", "null", "nan")
MARKS = frozenset({*_SIGNS, *_WORDS, "missing", "unknown", "not done", "not available"})
"""In lower case. pandas reads some of them as missing by itself, in every column; the others may be a category
("+" and "-"), and so count as missing only among numbers."""


def is_mark(texts: pd.Series) -> pd.Series:
    """Which of the texts are a mark of a missing value."""
    return texts.str.strip().str.lower().isin(MARKS)


def blank(table: pd.DataFrame, columns: Iterable[str]) -> tuple[pd.DataFrame, list[str]]:
    """Columns that hold numbers and such marks alone as numbers with missing values, and a note for each.

    A column with any other text stays as it is: "3.5 mg" is an entry that somebody must look at.
    """
    found: dict[str, pd.Series] = {}
    notes: list[str] = []
    types = table.dtypes.to_dict()
    for name in columns:
        # Categories were declared by whoever made the table.
        if pd.api.types.is_numeric_dtype(types[name]) or isinstance(types[name], pd.CategoricalDtype):
            continue
        series = plain(table[name])
        if not pd.api.types.is_string_dtype(series):
            continue
        numbers = pd.to_numeric(series, errors="coerce").astype("float64")
        odd = series[numbers.isna() & series.notna()]
        if numbers.notna().any() and len(odd) and is_mark(odd).all():
            found[name] = numbers
            marks = " and ".join(repr(str(mark)) for mark in odd.unique()[:3])
            notes.append(f"column {name!r}: {marks} among its numbers read as missing, {len(odd)} of {len(series)}")
    return table.assign(**found) if found else table, notes
