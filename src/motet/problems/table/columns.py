"""What the columns of a table are: outcomes with their kind, and features as numbers or categories."""

import difflib
import re
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from motet.columns import FEW_NUMBERS, FEW_STRINGS, find, mostly_numbers, plain, some, text
from motet.problems.base import Kind, Task

MOSTLY_DIFFERENT = 0.9
"""A text column in which this share of the values differ is an identifier or free text, no category."""
ALL_DIFFERENT = "text that differs in every row"
"""The kind of a text column that is left out for that."""
CONSTANT = "constant"
"""The kind of a column that is left out since it says nothing."""
MISSING = "(missing)"
"""The category of a missing category."""

_PLAIN_NUMBERS = {np.dtype(code) for code in np.typecodes["AllInteger"] + "efd"}
Role = Literal["target", "feature", "group", "time", "left out"]
# On names in snake case: "id", "row_nr", "patient_id", "pid" and "patient", but not "acid" or "patient_age".
_IDENTIFIER = re.compile(
    r"(?:.*[^a-z])?(?:p|pat|patient|participant|subj|subject|person|case|sample|record|study|visit|user|row)?"
    r"(?:id|nr|mrn|uuid|guid|identifier)|patient|participant|subject"
)
_METRICS: dict[Kind, str] = {"regression": "mae", "binary": "auroc", "multiclass": "accuracy"}


@dataclass(frozen=True)
class Column:
    """What one column of the table is used for, and as what."""

    name: str
    role: Role
    kind: str
    detail: str = ""


@dataclass(frozen=True)
class Outcome:
    """A target column: the task and its values, NaN or -1 where the label is missing."""

    task: Task
    values: NDArray[np.float64] | NDArray[np.int64]
    column: Column

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Which rows have a label."""
        return self.values >= 0 if self.task.kind == "multiclass" else ~np.isnan(self.values)

    @property
    def strata(self) -> NDArray[np.int64]:
        """Classes as codes, with -1 for missing; a regression target has one stratum."""
        if self.task.kind == "regression":
            return np.zeros(len(self.values), dtype=np.int64)
        return np.nan_to_num(self.values, nan=-1).astype(np.int64)


@dataclass(frozen=True)
class Features:
    """Numbers with NaN for missing, and categories as strings with `MISSING` for missing."""

    numbers: pd.DataFrame
    categories: pd.DataFrame
    columns: tuple[Column, ...]


def parse_target(target: str, columns: Iterable[str]) -> tuple[str, Kind | None]:
    """ "name" or "name:type" → name and type; a column whose own name has a colon wins.

    Raises:
        ValueError: for an unknown column or type.
    """
    columns = list(columns)
    pieces = [piece.strip() for piece in target.split(",")]
    if target not in columns and len(pieces) > 1 and {piece.partition(":")[0] for piece in pieces} <= {*columns}:
        names = " ".join(pieces)
        raise ValueError(f"targets stand with spaces between them, not commas: --target {names}")
    name, colon, kind = target.rpartition(":")
    if target in columns or not colon:
        return find(target, columns, "for the target"), None
    if kind.partition("=")[0] in ("ordinal", "survival", "count", "continuous"):
        raise ValueError(
            f"target {target!r}: numbers, two classes and several are compared here; grades, counts and censored times "
            f"are outcomes of `motet select TABLE --outcome {target}`"
        )
    name = find(name, columns, "for the target")
    for known in get_args(Kind):
        if kind == known:
            return name, known
    near = difflib.get_close_matches(kind, get_args(Kind), n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"it is one of {', '.join(get_args(Kind))}"
    raise ValueError(f"target {name!r} can't be of type {kind!r}: {hint}")


def dates(series: pd.Series) -> pd.Series | None:
    """A text column of ISO 8601 dates (2026-01-31, 2026-01-31 14:00) as UTC datetimes, else None.

    Other formats are not guessed at: 01/02/2026 is January in one country and February in the next.
    """
    known = series.dropna()
    if known.empty or not known.str.match(r"\d{4}-\d{2}-\d{2}").all():
        return None
    parsed = pd.to_datetime(series, utc=True, format="ISO8601", errors="coerce")
    return None if parsed[series.notna()].isna().any() else parsed


def outcome(raw: pd.Series, name: str, kind: Kind | None) -> Outcome:
    """A target column as a task, its kind inferred where it is not given.

    Two different values are binary (the larger, or the later in the alphabet, is 1). More are multiclass
    where they are strings, up to 50 of them, or whole numbers, up to 10; other numbers are regression.

    Raises:
        ValueError: if nothing can be learned from the column, or it does not fit the kind.
    """
    series = plain(raw)
    rows, known = len(series), series.dropna()
    inferred = kind is None
    if known.empty:
        raise ValueError(f"target {name!r} has no labels: all {rows} of its cells are empty; leave it out")
    written = inferred and pd.api.types.is_string_dtype(series) and dates(series) is not None
    dated = pd.api.types.is_datetime64_any_dtype(series) or written
    if dated or pd.api.types.is_object_dtype(series):
        what = "dates" if dated else f"{type(known.iloc[0]).__name__} objects"
        raise ValueError(f"target {name!r} holds {what}: make it a number, such as days, or classes")
    numeric = not pd.api.types.is_string_dtype(series)
    if numeric:
        known = known.astype("float64")
        if np.isinf(known).any():
            raise ValueError(f"target {name!r} is infinite in row {_row(np.isinf(known))}: correct that cell")
    values = sorted(known.unique())
    if len(values) == 1:
        raise ValueError(
            f"target {name!r} is {text(values[0])!r} in all {len(known)} labelled rows: nothing to learn, leave it out"
        )
    kind = kind or _infer(values, numeric, known, name)
    if kind == "regression":
        if not numeric:
            raise ValueError(f"target {name!r} can't be regression: {_not_a_number(known)}")
        detail = f"{len(known)} of {rows} labelled"
        task = Task(name, kind, _METRICS[kind])
        return Outcome(task, series.astype("float64").to_numpy(), _target(task, detail, inferred))
    if kind == "binary" and len(values) != 2:
        raise ValueError(f"target {name!r} can't be binary: it has {len(values)} values, {some(map(text, values))}")
    if len(values) > len(known) / 2:
        raise ValueError(
            f"target {name!r} can't be classes: it has {len(values)} in {len(known)} labelled rows, and each needs "
            "several; join some, or leave it out"
        )
    labels = tuple(text(value) for value in values)
    task = Task(name, kind, _METRICS[kind], classes=len(labels) if kind == "multiclass" else 0, labels=labels)
    codes = pd.Categorical(series.astype("float64") if numeric else series, categories=values).codes.astype(np.int64)
    meaning = f"1 is {labels[1]!r}" if kind == "binary" else f"{len(labels)} classes"
    detail = f"{meaning}, {len(known)} of {rows} labelled"
    coded = codes if kind == "multiclass" else np.where(codes < 0, np.nan, codes)
    return Outcome(task, coded, _target(task, detail, inferred))


def features(table: pd.DataFrame) -> Features:
    """Numbers and categories from the columns that are left.

    Truth values become 0 and 1; dates become days since 1970, month, weekday and hour. Left out are
    constant columns, running numbers, whole numbers that differ in every row under the name of an
    identifier, text that differs from row to row, and objects such as lists.
    """
    numbers: dict[str, NDArray[np.float64]] = {}
    categories: dict[str, pd.Series] = {}
    columns: list[Column] = []
    types = pd.api.types
    # All at once: pandas takes a millisecond a column, and a table may have thousands.
    measured = [name for name, dtype in table.dtypes.items() if dtype in _PLAIN_NUMBERS]
    surveys = dict(zip(measured, _survey(measured, table[measured].to_numpy(np.float64)), strict=True))

    def take(name: str, survey: "_Survey") -> None:
        if survey.fault:
            columns.append(Column(name, "left out", survey.fault))
        else:
            numbers[name] = survey.values
            columns.append(Column(name, "feature", "number", f"{survey.missing} missing" if survey.missing else ""))

    for name in table.columns:
        if name in surveys:
            take(name, surveys[name])
            continue
        series = plain(table[name])
        if types.is_object_dtype(series):
            columns.append(Column(name, "left out", "holds objects"))
            continue
        if series.nunique(dropna=False) <= 1:
            columns.append(Column(name, "left out", CONSTANT))
            continue
        if types.is_string_dtype(series) and (parsed := dates(series)) is not None:
            series = parsed
        missing = f"{int(series.isna().sum())} missing" if series.isna().any() else ""
        if types.is_datetime64_any_dtype(series):
            numbers |= _date_parts(name, series)
            columns.append(Column(name, "feature", "date", missing))
        elif types.is_string_dtype(series):
            distinct = series.nunique()
            if distinct > MOSTLY_DIFFERENT * series.notna().sum():
                columns.append(Column(name, "left out", ALL_DIFFERENT))
                continue
            categories[name] = series.astype(object).where(series.notna(), MISSING).astype(str)
            detail = f"{distinct} values" + (f", {missing}" if missing else "")
            columns.append(Column(name, "feature", "category", detail))
        else:
            take(name, *_survey([name], series.astype("float64").to_numpy()[:, None]))
    rows = table.index
    # One array, not one for each column, makes every later step on a wide table quicker.
    values = np.array(list(numbers.values()), dtype=np.float64).reshape(len(numbers), len(rows)).T
    measurements = pd.DataFrame(values, index=rows, columns=list(numbers))
    return Features(measurements, pd.DataFrame(categories, index=rows), tuple(columns))


def named_as_identifier(name: str) -> bool:
    """Whether a column's name says that it tells rows, patients or samples apart, as "patient_id" does."""
    return bool(_IDENTIFIER.fullmatch(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip()).lower()))


def numbers_and_texts(raw: pd.Series) -> tuple[list[str], list[str]]:
    """The different entries of a text column that are numbers, and those that are not; of other columns, none."""
    series = plain(raw)
    if not pd.api.types.is_string_dtype(series):
        return [], []
    known = series.dropna().astype(str).drop_duplicates()
    broken = pd.to_numeric(known, errors="coerce").isna()
    return known[~broken].tolist(), known[broken].tolist()


def times(raw: pd.Series, name: str) -> NDArray[np.generic]:
    """The time column as something that can be ordered.

    Raises:
        ValueError: if a row has no time, or it can't be read.
    """
    series = plain(raw)
    if series.isna().any():
        raise ValueError(f"the time column {name!r} is empty in row {_row(series.isna())}: fill it, or drop those rows")
    if pd.api.types.is_string_dtype(series):
        if (parsed := dates(series)) is None:
            odd = series[~series.str.match(r"\d{4}-\d{2}-\d{2}")]
            example = (odd if len(odd) else series).iloc[0]
            raise ValueError(
                f"the time column {name!r} can't be read as dates, for example {example!r}: write them as "
                "2026-01-31 or 2026-01-31 14:00, or as numbers"
            )
        series = parsed
    if pd.api.types.is_object_dtype(series):
        raise ValueError(f"the time column {name!r} holds neither dates nor numbers")
    if pd.api.types.is_datetime64_any_dtype(series):
        return np.asarray(series.dt.tz_localize(None).to_numpy())
    return np.asarray(series.astype("float64"))


def groups(raw: pd.Series, name: str) -> NDArray[np.int64]:
    """The group column as codes. Names that differ in case or surrounding spaces alone are one group.

    Raises:
        ValueError: if a row has no group.
    """
    if raw.isna().any():
        raise ValueError(f"the group column {name!r} is empty in row {_row(raw.isna())}: fill it, or drop those rows")
    return np.asarray(pd.factorize(same_name(raw))[0], dtype=np.int64)


def same_name(raw: pd.Series) -> pd.Series:
    """Names as texts in lower case without surrounding spaces: a patient typed in two ways must not be two patients."""
    return raw.astype(str).str.strip().str.lower()


@dataclass(frozen=True)
class _Survey:
    """A column of numbers: its finite values (N,), how many are missing, and why it is no feature, if it is none."""

    values: NDArray[np.float64]
    missing: int
    fault: str


def _survey(names: Sequence[str], values: NDArray[np.float64]) -> list[_Survey]:
    """Look at many columns of numbers at once: (N, D)."""
    gaps = np.isnan(values)
    missing = gaps.sum(axis=0)
    constant = ((values == values[:1]) | (gaps & gaps[:1])).all(axis=0)
    # An infinite value is no measurement; the imputer treats it as one that is missing.
    finite = np.where(np.isfinite(values), values, np.nan)
    running = (np.diff(finite, axis=0) == 1).all(axis=0) if len(values) > 1 else np.zeros(len(names), dtype=bool)
    faults = np.where(constant, CONSTANT, np.where(running, "running number", ""))
    return [
        _Survey(column, int(count), str(fault) or _identifier(name, column))
        for name, column, count, fault in zip(names, finite.T, missing, faults, strict=True)
    ]


def _identifier(name: str, values: NDArray[np.float64]) -> str:
    if not named_as_identifier(name):
        return ""
    known = values[~np.isnan(values)]
    different = len(known) == len(np.unique(known)) and (known % 1 == 0).all()
    return "identifier: another whole number in every row" if different else ""


def _infer(values: list[float] | list[str], numeric: bool, known: pd.Series, name: str) -> Kind:
    if len(values) == 2:
        return "binary"
    if numeric:
        return "multiclass" if len(values) <= FEW_NUMBERS and (known % 1 == 0).all() else "regression"
    if len(values) <= FEW_STRINGS:
        return "multiclass"
    why = _not_a_number(known) if mostly_numbers(known) else f"it has {len(values)} different strings"
    if len(values) > len(known) / 2:
        raise ValueError(f"target {name!r} is neither classes nor a number: {why}; correct it, or leave it out")
    raise ValueError(f"target {name!r} is neither classes nor a number: {why}; correct it, or say {name}:multiclass")


def _target(task: Task, detail: str, inferred: bool) -> Column:
    return Column(task.name, "target", task.kind, detail + (", type inferred" if inferred else ""))


def _not_a_number(known: pd.Series) -> str:
    broken = pd.to_numeric(known, errors="coerce").isna()
    if not broken.any():
        return "its numbers are stored as text"
    return f"row {_row(broken)} holds {known[broken].iloc[0]!r}, which is not a number"


def _date_parts(name: str, series: pd.Series) -> dict[str, NDArray[np.float64]]:
    parts = {
        "days": (series - pd.Timestamp("1970-01-01", tz="UTC")).dt.total_seconds() / 86400,
        "month": series.dt.month,
        "weekday": series.dt.day_of_week,
        "hour": series.dt.hour,
    }
    return {
        f"{name}:{part}": values.to_numpy(np.float64, na_value=np.nan)
        for part, values in parts.items()
        if values.nunique() > 1
    }


def _row(mask: pd.Series) -> int:
    """The first row where the mask holds, counted from 1 below the header."""
    label: Hashable = mask.idxmax()
    return int(str(label)) + 1
