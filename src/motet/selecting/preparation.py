"""Columns of a table as numbers without gaps: medians and one-hot codes, learned once and kept as plain JSON."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from motet.columns import find, plain, text
from motet.problems.table.columns import MISSING
from motet.problems.table.preprocessing import RARE

OTHER = "(rare)"


@dataclass(frozen=True)
class Preparation:
    """What makes the features of new rows what they were at the fit.

    Numbers: the median for missing values. Categories: a column for each that is in at least 5 rows, one for all rarer
    ones, and a single column where there are two in all. Medians and categories know no outcome.

    Attributes:
        medians: {column: median}, the numbers.
        categories: {column: categories with a column of their own}.
        rare: Columns that also have one for all other categories.
    """

    medians: Mapping[str, float]
    categories: Mapping[str, tuple[str, ...]]
    rare: tuple[str, ...]

    @classmethod
    def learn(cls, numbers: pd.DataFrame, categories: pd.DataFrame) -> Self:
        """From the features of the rows that are fitted."""
        levels: dict[str, tuple[str, ...]] = {}
        rare: list[str] = []
        for name in categories:
            counts = categories[name].value_counts()
            often = sorted(str(level) for level in counts.index[counts >= RARE])
            if len(often) == len(counts) == 2:
                often = often[1:]
            elif len(often) < len(counts):
                rare.append(name)
            levels[name] = tuple(often)
        medians = numbers.median().to_dict() if len(numbers.columns) else {}
        return cls({str(k): float(v) for k, v in medians.items()}, levels, tuple(rare))

    def apply(self, numbers: pd.DataFrame, categories: pd.DataFrame) -> pd.DataFrame:
        """The features (n, p) of rows that were read in the same way."""
        filled = numbers[list(self.medians)].fillna(self.medians)
        codes: dict[str, Any] = {}
        for name, levels in self.categories.items():
            values = categories[name].astype(str)
            for level in levels:
                codes[f"{name}={level}"] = (values == level).astype(np.float64)
            if name in self.rare:
                codes[f"{name}={OTHER}"] = (~values.isin(levels)).astype(np.float64)
        return pd.concat([filled, pd.DataFrame(codes, index=numbers.index)], axis=1)

    def transform(self, table: pd.DataFrame) -> pd.DataFrame:
        """The features of another table, which may have more columns.

        Raises:
            ValueError: if a column is not there, or holds text where there were numbers.
        """
        for name in (*self.medians, *self.categories):
            find(name, table.columns, "which is a feature", "the new table")
        numbers = {name: _as_number(table[name], name) for name in self.medians}
        categories = {name: _as_category(table[name]) for name in self.categories}
        index = table.index
        return self.apply(pd.DataFrame(numbers, index=index), pd.DataFrame(categories, index=index))

    def save(self, path: Path) -> None:
        """Write as JSON."""
        state = {
            "medians": dict(self.medians),
            "categories": {name: list(levels) for name, levels in self.categories.items()},
            "rare": list(self.rare),
        }
        path.write_text(json.dumps(state, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        state = json.loads(path.read_text(encoding="utf-8"))
        levels = {name: tuple(values) for name, values in state["categories"].items()}
        return cls(state["medians"], levels, tuple(state["rare"]))


def _as_number(column: pd.Series, name: str) -> pd.Series:
    values = pd.to_numeric(column, errors="coerce").astype("float64").replace([np.inf, -np.inf], np.nan)
    odd = column[values.isna() & column.notna()]
    texts = odd[~odd.isin([np.inf, -np.inf])]
    if len(texts):
        raise ValueError(
            f"the new table's column {name!r} holds {texts.iloc[0]!r}, and was numbers at the fit: correct it"
        )
    return values


def _as_category(column: pd.Series) -> pd.Series:
    series = plain(column)
    return series.astype(object).map(text, na_action="ignore").where(series.notna(), MISSING).astype(str)
