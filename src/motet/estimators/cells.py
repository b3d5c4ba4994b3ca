"""Y in any form as one table, and a column of it as numbers, truth values or text."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import issparse

from motet.columns import plain

Label = bool | int | float | str


@dataclass(frozen=True)
class Survival:
    """A right-censored time in two columns of Y.

    Args:
        time: Column of times until the event or until the end of observation, ≥ 0.
        event: Column of 1 or True where the event was seen, and 0 or False where the time is censored.
    """

    time: str
    event: str


def read_table(Y: object) -> tuple[pd.DataFrame, Survival | None]:
    """Y as a table whose columns are named by strings, and the survival outcome that a structured array is.

    Raises:
        ValueError: if Y can't be read as one: sparse, names that occur twice, columns of different length.
    """
    censored = None
    if issparse(Y):
        raise ValueError("Y is a sparse matrix, in which 0 and missing are the same: pass Y.toarray()")
    if isinstance(Y, Mapping):
        columns = {str(name): _series(values, str(name)) for name, values in Y.items()}
        lengths = {name: len(values) for name, values in columns.items()}
        if len(set(lengths.values())) > 1:
            short, long = min(lengths, key=lengths.__getitem__), max(lengths, key=lengths.__getitem__)
            raise ValueError(
                f"Y has {lengths[short]} rows in {short!r} and {lengths[long]} in {long!r}: each column needs all rows"
            )
        table = pd.DataFrame(columns)
    elif isinstance(Y, np.ndarray) and Y.dtype.names:
        if Y.ndim != 1:
            raise ValueError(f"Y is a structured array of shape {Y.shape}: it must have one dimension")
        table = pd.DataFrame({name: Y[name] for name in Y.dtype.names})
        censored = _fields(Y.dtype)
    elif (frame := as_frame(Y)) is not None:
        names = Counter(map(str, frame.columns))
        if twice := [name for name, count in names.items() if count > 1]:
            raise ValueError(f"Y has the column {twice[0]!r} twice: rename one of them")
        table = frame.set_axis([str(name) for name in frame.columns], axis=1)
    else:
        table = _array(Y)
    if not table.shape[1] or not len(table):
        raise ValueError(f"Y has {len(table)} rows and {table.shape[1]} columns: it needs one of each at least")
    return table, censored


def as_frame(Y: object) -> pd.DataFrame | None:
    """What pandas, polars and pyarrow hold, as a pandas table; polars is not imported for it."""
    if not isinstance(Y, pd.DataFrame | pd.Series) and hasattr(Y, "to_pandas"):
        Y = Y.to_pandas()
    if isinstance(Y, pd.Series):
        return Y.to_frame("y0" if Y.name in (None, "") else Y.name)
    return Y if isinstance(Y, pd.DataFrame) else None


def _series(values: Any, name: str) -> pd.Series:
    frame = as_frame(values)
    if frame is None:
        if np.ndim(values) != 1:
            raise ValueError(f"Y[{name!r}] has {np.ndim(values)} dimensions: a column has one")
        return pd.Series(values)
    # By position: aligning by row labels would fill gaps with missing values.
    return frame.iloc[:, 0].reset_index(drop=True)


def _array(Y: Any) -> pd.DataFrame:
    values = Y if isinstance(Y, list | tuple | np.ndarray) else np.asarray(Y)
    if isinstance(values, np.ndarray) and values.ndim not in (1, 2):
        raise ValueError(f"Y has {values.ndim} dimensions: it has one for one outcome, two for several")
    table = pd.DataFrame(values)
    return table.set_axis([f"y{number}" for number in range(table.shape[1])], axis=1)


def _fields(dtype: np.dtype[Any]) -> Survival | None:
    """Time and event of a structured array, where it is a bool and a number, in any order and by any name."""
    kinds = {name: dtype[name].kind for name in dtype.names or ()}
    events = [name for name, kind in kinds.items() if kind == "b"]
    times = [name for name, kind in kinds.items() if kind in "iuf"]
    return Survival(times[0], events[0]) if len(kinds) == 2 and events and times else None


@dataclass(frozen=True)
class Cells:
    """A column of Y.

    Attributes:
        column: Its name.
        values: (n,) float64 with NaN for missing, or truth values or text as objects.
        known: (n,) Which are not missing.
        sort: What the values are.
        categorical: Whether the column is of a categorical type.
        order: Its categories, lowest first, where they are ordered.
        index: The row labels, for messages.
    """

    column: str
    values: NDArray[Any]
    known: NDArray[np.bool_]
    sort: Literal["number", "truth", "text"]
    categorical: bool
    order: tuple[Label, ...] | None
    index: pd.Index = field(repr=False)

    @property
    def distinct(self) -> list[Label]:
        """The different values, sorted."""
        return sorted({to_label(value) for value in pd.unique(self.values[self.known])})

    def row(self, mask: NDArray[np.bool_]) -> str:
        """The first row where the mask holds."""
        return row_name(mask, self.index)


def read_cells(table: pd.DataFrame, column: str, outcome: str) -> Cells:
    """One column for an outcome.

    Raises:
        ValueError: for dates, durations, objects and infinities.
    """
    raw = table[column]
    order: tuple[Label, ...] | None = None
    categorical = isinstance(raw.dtype, pd.CategoricalDtype)
    if categorical:
        if not all(isinstance(value, str | bool | int | float | np.generic) for value in raw.cat.categories):
            raw = raw.cat.rename_categories(str)  # intervals, as pd.cut makes them
        order = tuple(map(to_label, raw.cat.categories)) if raw.cat.ordered else None
        raw = raw.astype(object)
    types = pd.api.types
    if types.is_timedelta64_dtype(raw):
        raise ValueError(f"outcome {outcome!r}: column {column!r} holds durations: make it a number, such as days")
    series = plain(raw)
    known = series.notna().to_numpy(bool)
    if types.is_datetime64_any_dtype(series) or types.is_object_dtype(series):
        dates = types.is_datetime64_any_dtype(series)
        what = "dates" if dates else f"{type(series[known].iloc[0]).__name__} objects"
        raise ValueError(
            f"outcome {outcome!r}: column {column!r} holds {what}: make it a number, such as days, or classes"
        )
    sort: Literal["number", "truth", "text"] = "number"
    if types.is_bool_dtype(series) or types.is_string_dtype(series):
        sort = "truth" if types.is_bool_dtype(series) else "text"
        values = series.astype(object).where(known, None).to_numpy(object)
    else:
        values = series.to_numpy(np.float64, na_value=np.nan)
        if (infinite := np.isinf(values)).any():
            raise ValueError(
                f"outcome {outcome!r}: column {column!r} is infinite (inf) in {row_name(infinite, table.index)}: "
                "correct that cell, or set it to NaN"
            )
    return Cells(column, values, known, sort, categorical, order, table.index)


def to_label(value: Any) -> Label:
    """A cell as a plain Python value: whole numbers are int, also where gaps made the column float."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | float | np.number):
        number = float(value)
        return int(number) if number.is_integer() else number
    return str(value)


def row_name(mask: NDArray[np.bool_], index: pd.Index) -> str:
    """The first row where the mask holds, by its label if it has one."""
    row = int(np.argmax(mask))
    return f"row {row} (counted from 0)" if isinstance(index, pd.RangeIndex) else f"row {index[row]!r}"
