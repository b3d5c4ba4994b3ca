"""Columns of a user's table: finding one by name, and its cells as plain numbers, truth values, dates or text."""

import difflib
from collections.abc import Iterable

import pandas as pd

FEW_NUMBERS = 10
"""A target of whole numbers with up to this many different ones is taken for classes."""
FEW_STRINGS = 50
"""A target of strings may have this many different ones before it looks like an identifier."""


def find(name: str, columns: Iterable[str], purpose: str, table: str = "the table") -> str:
    """The column of this name.

    Raises:
        ValueError: if there is none, with the nearest ones.
    """
    columns = list(columns)
    if name in columns:
        return name
    lower = {column.lower(): column for column in columns}
    near = [lower[match] for match in difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.5)]
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"it has {some(columns)}"
    raise ValueError(f"{table} has no column {name!r} {purpose}: {hint}")


def plain(series: pd.Series) -> pd.Series:
    """The column as bool, float, UTC datetime or str, with missing values; as object where it is none of them."""
    if isinstance(series.dtype, pd.CategoricalDtype):
        # Codes are categories even where they look like numbers: whoever made the table said so.
        return series.astype(object).map(text, na_action="ignore").astype("string")
    types = pd.api.types
    if types.is_object_dtype(series):
        inferred = types.infer_dtype(series, skipna=True)
        if inferred == "boolean":
            return series.astype("boolean")
        if inferred in ("integer", "floating", "mixed-integer-float", "decimal", "empty"):
            return series.astype("float64")
        if inferred in ("date", "datetime", "datetime64"):
            return pd.to_datetime(series, utc=True)
        if not all(isinstance(value, str | int | float | bytes) for value in series.dropna()):
            return series
        return series.map(str, na_action="ignore").astype("string")
    if types.is_timedelta64_dtype(series):
        return series.dt.total_seconds()
    if types.is_datetime64_any_dtype(series):
        return pd.to_datetime(series, utc=True)
    if types.is_bool_dtype(series) or types.is_string_dtype(series):
        return series
    if types.is_numeric_dtype(series) and not types.is_complex_dtype(series):
        return series.astype("Float64").astype("float64") if series.isna().any() else series.astype("float64")
    return series.astype(object)


def mostly_numbers(known: pd.Series) -> str | None:
    """The first text that keeps a column of numbers from being one, or None where it is not mostly numbers."""
    broken = pd.to_numeric(known, errors="coerce").isna()
    return str(known[broken].iloc[0]) if len(known) and 0 < broken.mean() < 0.5 else None


def text(value: object) -> str:
    """A cell as it is read: 3 and not 3.0."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def some(names: Iterable[object], most: int = 8) -> str:
    """The first of the names, quoted, and how many more there are."""
    names = list(names)
    return ", ".join(map(repr, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")
