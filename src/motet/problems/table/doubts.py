"""Signs that a column of the features is not what it was taken for."""

import numpy as np
import pandas as pd

from motet.columns import FEW_NUMBERS, mostly_numbers, plain
from motet.problems.table.columns import ALL_DIFFERENT, Features, dates, named_as_identifier

_DATE = r"\d{1,2}[./-](?:\d{1,2}|[A-Za-z]{3})[./-]\d{2,4}(?:[ T].*)?|\d{4}[./-]\d{1,2}[./-]\d{1,2}(?:[ T].*)?"
_COMMA_NUMBER = r"[+-]?[\d.]*,[\d.,]*(?:[eE][+-]?\d+)?"
_MOST = 0.9
"""Share of the entries that must look like a date or a number."""


def doubts(table: pd.DataFrame, features: Features, grouped: bool) -> list[str]:
    """A warning for each column that looks like dates, numbers or identifiers and is used as something else.

    Args:
        table: The columns that ``features`` were made of.
        features: What they were taken for.
        grouped: Whether rows are split by a group, so that a repeated identifier leaks nothing by itself.
    """
    found: list[str] = []
    for column in features.columns:
        if column.kind in ("category", ALL_DIFFERENT):
            texts = plain(table[column.name]).dropna().astype(str).str.strip()
            if doubt := _misread(texts, "used as categories" if column.kind == "category" else "left out"):
                found.append(f"column {column.name!r} {doubt}")
        if column.kind in ("category", "number") and named_as_identifier(column.name):
            distinct = table[column.name].nunique()
            if FEW_NUMBERS < distinct < table[column.name].notna().sum():
                fix = "leave it out with --drop" if grouped else "split by it with --group, or leave it out with --drop"
                found.append(
                    f"feature {column.name!r} is named like an identifier, and rows share its {distinct} values: "
                    f"a network can learn them by heart; {fix}"
                )
    return found + _monotone(features)


def _misread(texts: pd.Series, use: str) -> str:
    """What a column of text looks like, if not like text."""
    if texts.str.fullmatch(_DATE).mean() > _MOST:
        example = next((text for text in texts if dates(pd.Series([text])) is None), texts.iloc[0])
        return f"looks like dates, such as {example!r}, and is {use}: only dates like 2026-01-31 are read"
    commas = texts.str.fullmatch(_COMMA_NUMBER)
    numbers = pd.to_numeric(texts, errors="coerce").notna()
    if commas.any() and (commas | numbers).mean() > _MOST:
        return f"looks like numbers with commas, such as {texts[commas].iloc[0]!r}, and is {use}: write 1234.5"
    if odd := mostly_numbers(texts):
        return f"is mostly numbers but {use}, because of {odd!r}"
    if numbers.all() and use == "left out":
        return "holds numbers that are stored as text, and is left out: make it numbers"
    return ""


def _monotone(features: Features) -> list[str]:
    """Whole numbers that rise, or fall, in every row: measurements don't, identifiers and times do."""
    names = [column.name for column in features.columns if column.kind == "number"]
    values = features.numbers[names].to_numpy(np.float64)
    steps = np.diff(values, axis=0)
    suspect = ((steps > 0).all(axis=0) | (steps < 0).all(axis=0)) & (values % 1 == 0).all(axis=0)
    return [
        f"feature {name!r} is a whole number that {'rises' if steps[0, names.index(name)] > 0 else 'falls'} from each "
        "row to the next: if it is an identifier, leave it out with --drop; if it is a time, split by it with --time"
        for name in np.array(names, dtype=object)[suspect]
    ]
