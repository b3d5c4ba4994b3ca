"""Outcomes of different kinds: what each column of Y is, declared or inferred, and as numbers with NaN for missing.

Rows are given higher numbers for larger outcomes, later classes and longer survival, throughout.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from motet.columns import FEW_NUMBERS, FEW_STRINGS, find, mostly_numbers, some
from motet.estimators.cells import Cells, Label, Survival, read_cells, read_table, to_label

__all__ = ["Encoded", "Kind", "Outcome", "Survival", "check_rows", "comparable", "encode", "read_outcomes"]

Kind = Literal["continuous", "binary", "ordinal", "count", "survival", "nominal"]
Floats = NDArray[np.float64]

FEW_ROWS = 5
"""A class in fewer rows than this can't be in each part of the usual cross-validation, and is doubtful."""

_TIME = re.compile(r"(?:.*[^a-z])?(?:t|time|days|weeks|months|years|os|pfs|dfs|rfs|dmfs|efs|tdm|survival|follow_?up)")
_EVENT = re.compile(
    r"(?:.*[^a-z])?(?:event|status|dead|death|died|deceased|censor\w*|relapse\w*|recurrence|e)(?:[^a-z].*)?"
)


@dataclass(frozen=True)
class Outcome:
    """What one outcome is.

    Attributes:
        name: As in the declaration, or the column's.
        kind: continuous, binary, ordinal, count, survival or nominal.
        columns: Of Y: one, or time and event of a survival outcome.
        classes: In the order of their codes 0, 1, …; the last of a binary outcome is the positive one. Empty
            where the kind has none.
        inferred: Whether the kind was inferred.
        detail: How many rows are observed, and what the codes mean.
        notes: What may have been misunderstood, each with its remedy.
    """

    name: str
    kind: Kind
    columns: tuple[str, ...]
    classes: tuple[Label, ...] = ()
    inferred: bool = False
    detail: str = ""
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}: {self.kind}{' (inferred)' if self.inferred else ''}, {self.detail}"


@dataclass(frozen=True, eq=False)
class Encoded:
    """One outcome, or one class of a nominal outcome against the others, as numbers.

    Attributes:
        name: The outcome's; "phase=G1" for the class G1 of the nominal outcome phase.
        kind: The outcome's; binary for a class of a nominal one.
        y: (n,) Values, times, or codes of classes; NaN where the outcome is missing.
        event: (n,) 1 for an event and 0 for a censored time, NaN where missing; None for other kinds.
        outcome: What it was made of.
        share: Its part of the outcome's weight: 1/C for each of C nominal classes.
        label: The class of the nominal outcome, else None.
    """

    name: str
    kind: Kind
    y: Floats
    event: Floats | None
    outcome: Outcome
    share: float = 1.0
    label: Label | None = None

    @property
    def observed(self) -> NDArray[np.bool_]:
        """(n,) Which rows have the outcome."""
        return ~np.isnan(self.y)

    def at(self, rows: NDArray[Any]) -> Self:
        """The same for some rows, given by number or mask."""
        return replace(self, y=self.y[rows], event=None if self.event is None else self.event[rows])


def read_outcomes(outcomes: str | Survival | Mapping[str, str | Survival], Y: object) -> list[Outcome]:
    """What the outcomes in Y are, each checked to have something to learn from.

    Two values are binary. Ordered categories are ordinal; other categories and text are nominal. Numbers
    with a fraction are continuous. Of whole numbers, up to 10 different ones that repeat are ordinal, more
    are a count where 0 is among them and none is negative, and the rest is continuous. Ranks, and so the
    features that are found, are the same for ordinal, count and continuous; predictions differ. A censored
    time can't be told from a number and must be declared, except in a structured array of a bool and a
    number as scikit-survival has it.

    The positive class of a binary outcome is the one that is sorted last: True, the larger number, the later
    in the alphabet or, for ordered categories, in their order.

    Args:
        outcomes: "infer"; a kind, for every column; a `Survival`, for this one outcome; or {name: kind}, where
            a kind is a name, "infer" or a `Survival`. Columns that are not declared are not used. The outcomes
            come in the order of the declaration, or of the columns.
        Y: (n, …) pandas or polars, a dictionary of columns, a list, an array (columns y0, y1, …) or a
            structured array. NaN, None and NA are missing.

    Raises:
        ValueError: if Y can't be read, a column is not there, does not fit its kind, or has nothing to learn.
    """
    table, censored = read_table(Y)
    declared = _declared(outcomes, table, censored, isinstance(Y, np.ndarray) and Y.dtype.names is not None)
    found: list[Outcome] = []
    for name, kind in declared.items():
        outcome = (
            Outcome(name, "survival", (kind.time, kind.event))
            if isinstance(kind, Survival)
            else _single(table, name, kind)
        )
        tasks = _encode(table, outcome)
        if outcome.kind == "survival" and not comparable(tasks[0]):
            raise ValueError(_nothing_comparable(tasks[0]))
        found.append(replace(outcome, detail=_detail(outcome, tasks)))
    return _doubt_censoring(found)


def encode(outcomes: Sequence[Outcome], Y: object) -> list[Encoded]:
    """The outcomes as numbers: classes by their codes, a nominal outcome as one binary one for each class.

    Raises:
        ValueError: if a column is not there, does not fit, or has a class that was not there at fit.
    """
    table, _ = read_table(Y)
    return [task for outcome in outcomes for task in _encode(table, outcome)]


def comparable(task: Encoded) -> bool:
    """Whether there is a pair of rows of which it is known which outcome is larger."""
    y = task.y[task.observed]
    if task.event is None:
        return bool(len(y)) and bool((y != y[0]).any())
    event = task.event[task.observed] == 1
    if not event.any():
        return False
    first = y[event].min()
    return bool(((y > first) | ((y == first) & ~event)).any())


def check_rows(X: Any, Y: object) -> None:
    """That the rows of X and Y belong together, as far as it can be told.

    Raises:
        ValueError: if their numbers differ, or both have the same row labels in different order.
    """
    table, _ = read_table(Y)
    rows = X.shape[0] if hasattr(X, "shape") else len(X)
    if rows != len(table):
        raise ValueError(f"X has {rows} rows and Y has {len(table)}: give both for the same rows, in the same order")
    if isinstance(X, pd.DataFrame | pd.Series) and isinstance(Y, pd.DataFrame | pd.Series):
        both = X.index.is_unique and Y.index.is_unique
        if both and not X.index.equals(Y.index) and X.index.isin(Y.index).all():
            raise ValueError("X and Y have the same row labels in different order: pass Y.loc[X.index]")


def _declared(
    outcomes: str | Survival | Mapping[str, str | Survival],
    table: pd.DataFrame,
    censored: Survival | None,
    structured: bool,
) -> dict[str, str | Survival]:
    """{name: kind} with known kinds and columns, each column in one outcome."""
    kinds = (*get_args(Kind), "infer")
    if isinstance(outcomes, Survival):
        outcomes = {"survival": outcomes}
    if isinstance(outcomes, str):
        if censored and outcomes in ("infer", "survival"):
            return {"survival": censored}
        if structured:
            raise ValueError(
                f"Y is a structured array of {some(table.columns)}: for a survival outcome it has two fields, one bool "
                "(the event) and one of numbers (the time); pass a DataFrame for other outcomes"
            )
        if outcomes == "survival":
            raise ValueError('survival outcomes need two columns: outcomes={"name": Survival("time", "event")}')
        outcomes = dict.fromkeys(table.columns, outcomes)
    if not isinstance(outcomes, Mapping) or not outcomes:
        raise ValueError(f'outcomes must be "infer", a kind or {{name: kind}} with one name at least, not {outcomes!r}')
    used: dict[str, str] = {}
    for name, kind in outcomes.items():
        if kind == "survival":
            raise ValueError(f'outcome {name!r} needs two columns: outcomes={{{name!r}: Survival("time", "event")}}')
        if not isinstance(kind, Survival) and kind not in kinds:
            known = ", ".join(known for known in kinds if known != "survival")
            raise ValueError(f'outcome {name!r} can\'t be {kind!r}: its kind is {known} or Survival("time", "event")')
        columns = {"the time of ": kind.time, "the event of ": kind.event} if isinstance(kind, Survival) else {"": name}
        for role, column in columns.items():
            find(column, table.columns, f"for {role}outcome {name!r}", "Y")
            if column in used:
                raise ValueError(f"column {column!r} is in the outcomes {used[column]!r} and {name!r}: take out one")
            used[column] = name
    return dict(outcomes)


def _single(table: pd.DataFrame, name: str, kind: str) -> Outcome:
    """An outcome of one column, its kind inferred if that is asked for."""
    cells = read_cells(table, name, name)
    rows = int(cells.known.sum())
    if not rows:
        raise ValueError(f"outcome {name!r} has no value: all {len(table)} rows are missing; leave it out")
    distinct = cells.distinct
    if len(distinct) == 1:
        raise ValueError(
            f"outcome {name!r} is {distinct[0]!r} in all {rows} observed rows: nothing to learn, leave it out"
        )
    notes: list[str] = []
    inferred = kind == "infer"
    if inferred:
        kind, notes = _infer(cells, distinct, name)
    else:
        _check_kind(cells, distinct, name, kind)
    classes: tuple[Label, ...] = ()
    if kind == "ordinal" and cells.order:
        classes = cells.order
        if unused := [label for label in classes if label not in distinct]:
            notes.append(f"no row of {name!r} is of the class {some(unused)}: its probability is 0")
    elif kind in ("binary", "ordinal", "nominal"):
        classes = tuple(label for label in cells.order or distinct if label in distinct)
    if kind in ("binary", "nominal"):
        counts = {to_label(value): rows for value, rows in pd.Series(cells.values[cells.known]).value_counts().items()}
        if rare := [f"{label!r} ({counts[label]})" for label in classes if counts[label] < FEW_ROWS]:
            notes.append(f"{name!r} has classes in fewer than {FEW_ROWS} rows: {', '.join(rare[:5])}")
    return Outcome(name, kind, (name,), classes, inferred, notes=tuple(notes))  # type: ignore[arg-type]


def _infer(cells: Cells, distinct: list[Label], name: str) -> tuple[str, list[str]]:
    if cells.sort == "text" and not cells.categorical:
        _refuse_numbers_as_text(cells, name)
    if len(distinct) == 2:
        return "binary", []
    if cells.order:
        return "ordinal", []
    rows = int(cells.known.sum())
    if cells.categorical or cells.sort == "text":
        if len(distinct) > FEW_STRINGS or len(distinct) * 2 > rows:
            raise ValueError(
                f"outcome {name!r} has {len(distinct)} different classes in {rows} rows, as an identifier has: "
                "leave it out, or merge classes"
            )
        return "nominal", []
    whole = all(isinstance(value, int) for value in distinct)
    if not whole:
        return "continuous", []
    if len(distinct) <= FEW_NUMBERS and len(distinct) * 2 <= rows:
        note = f"{name!r} has {len(distinct)} different whole numbers and is taken for ordinal: declare it count, "
        return "ordinal", [note + "continuous or nominal if that is what it is"]
    if distinct[0] == 0:
        return "count", [
            f"{name!r} has whole numbers from 0 and is taken for a count: declare it continuous if it is none"
        ]
    note = f"{name!r} has whole numbers and is taken for continuous: declare it count if it counts something"
    return "continuous", [note] if float(distinct[0]) > 0 else []


def _check_kind(cells: Cells, distinct: list[Label], name: str, kind: str) -> None:
    """That a column can be what it is declared to be."""
    cannot = f"outcome {name!r} can't be {kind}"
    rows = int(cells.known.sum())
    if kind == "binary":
        if len(distinct) != 2:
            raise ValueError(f"{cannot}: it has {len(distinct)} values, {some(distinct)}; declare another kind")
        return
    if kind == "nominal":
        if len(distinct) == 2:
            raise ValueError(f"{cannot} with two classes, {some(distinct)}: declare it binary")
        if len(distinct) * 2 > rows:
            raise ValueError(f"{cannot}: it has {len(distinct)} classes in {rows} rows; merge classes")
        return
    if kind == "ordinal":
        if cells.order:
            return
        if cells.sort == "text":
            raise ValueError(
                f"{cannot}: its classes {some(distinct, 3)} are text without an order; give the order with "
                f"pd.Categorical(Y[{name!r}], categories=[lowest, …, highest], ordered=True), or use numbers"
            )
        if len(distinct) * 2 > rows:
            raise ValueError(f"{cannot}: it has {len(distinct)} classes in {rows} rows; declare it continuous or count")
        return
    if cells.sort == "text":
        _refuse_numbers_as_text(cells, name)
        raise ValueError(f"{cannot}: {cells.row(cells.known)} holds {distinct[0]!r}, which is not a number")
    if kind == "count":
        odd = cells.known & ~((values := cells.values.astype(np.float64)) >= 0)
        odd |= cells.known & (values % 1 != 0)
        if odd.any():
            raise ValueError(f"{cannot}: {cells.row(odd)} holds {values[odd][0]:g}, and a count is 0, 1, 2, …")


def _refuse_numbers_as_text(cells: Cells, name: str) -> None:
    texts = pd.Series(cells.values[cells.known])
    if pd.to_numeric(texts, errors="coerce").notna().all():
        raise ValueError(f"outcome {name!r} holds numbers that are stored as text: use pd.to_numeric(Y[{name!r}])")
    if odd := mostly_numbers(texts):
        where = cells.row(cells.known & (cells.values == odd))
        raise ValueError(
            f"outcome {name!r} mixes numbers and text ({odd!r} in {where}): set such cells to NaN if they are missing, "
            "and make the column numbers"
        )


def _encode(table: pd.DataFrame, outcome: Outcome) -> list[Encoded]:
    for column in outcome.columns:
        find(column, table.columns, f"for outcome {outcome.name!r}", "Y")
    if outcome.kind == "survival":
        return [Encoded(outcome.name, "survival", *_censored(table, outcome), outcome)]
    cells = read_cells(table, outcome.columns[0], outcome.name)
    if not outcome.classes:
        if cells.sort == "text" and cells.known.any():
            _check_kind(cells, cells.distinct, outcome.name, outcome.kind)
        y = np.full(len(table), np.nan)
        y[cells.known] = cells.values[cells.known].astype(np.float64)
        return [Encoded(outcome.name, outcome.kind, y, None, outcome)]
    y = _codes(cells, outcome)
    if outcome.kind != "nominal":
        return [Encoded(outcome.name, outcome.kind, y, None, outcome)]
    share = 1 / len(outcome.classes)
    return [
        Encoded(
            f"{outcome.name}={label}", "binary", np.where(cells.known, y == code, np.nan), None, outcome, share, label
        )
        for code, label in enumerate(outcome.classes)
    ]


def _codes(cells: Cells, outcome: Outcome) -> Floats:
    code = {label: float(number) for number, label in enumerate(outcome.classes)}
    which, values = pd.factorize(cells.values[cells.known])
    for value in values:
        if to_label(value) not in code:
            where = cells.row(cells.known & (cells.values == value))
            raise ValueError(
                f"outcome {outcome.name!r} is {to_label(value)!r} in {where}, which no row was at fit: it knows "
                f"{some(outcome.classes)}; fit with such a row, or set the cell to NaN"
            )
    y = np.full(len(cells.values), np.nan)
    y[cells.known] = np.array([code[to_label(value)] for value in values])[which]
    return y


def _censored(table: pd.DataFrame, outcome: Outcome) -> tuple[Floats, Floats]:
    """Times and events, each row with both or neither."""
    name, (time, event) = outcome.name, outcome.columns
    times, events = read_cells(table, time, name), read_cells(table, event, name)
    if times.sort != "number" and times.known.any():
        odd = f"{times.row(times.known)} holds {times.distinct[0]!r}"
        raise ValueError(f"outcome {name!r}: its time column {time!r} must hold numbers, and {odd}")
    y = np.where(times.known, times.values, np.nan).astype(np.float64)
    if (negative := y < 0).any():
        raise ValueError(
            f"outcome {name!r}: the time in column {time!r} is negative ({y[negative][0]:g}) in {times.row(negative)}: "
            "count from the start of observation, or set time and event to NaN"
        )
    values = events.distinct
    if events.sort == "text" or not set(values) <= {0, 1}:
        column = f"Y[{event!r}]"
        raise ValueError(
            f"outcome {name!r}: its event column {event!r} holds {some(values, 4)}, but an event is 1 or True and a "
            f"censored time 0 or False: recode it, for example ({column} == {values[-1]!r}).where({column}.notna())"
        )
    for half, whole, what in ((times, events, "an event but no time"), (events, times, "a time but no event")):
        if (odd_rows := ~half.known & whole.known).any():
            raise ValueError(
                f"outcome {name!r} has {what} ({half.column!r} is missing) in {times.row(odd_rows)}: fill it, or set "
                f"both {time!r} and {event!r} to NaN where the outcome is missing"
            )
    d = np.full(len(table), np.nan)
    d[events.known] = events.values[events.known].astype(np.float64)
    return y, d


def _nothing_comparable(task: Encoded) -> str:
    rows = int(task.observed.sum())
    if not rows:
        return f"outcome {task.name!r} has no value: all {len(task.y)} rows are missing; leave it out"
    if task.event is None or not (task.event == 1).any():
        return f"outcome {task.name!r} has no event: all {rows} observed rows are censored; leave it out"
    return (
        f"outcome {task.name!r} has no comparable pair: no row is observed for longer than the first event, at "
        f"{task.y[task.event == 1].min():g}; leave it out"
    )


def _detail(outcome: Outcome, tasks: list[Encoded]) -> str:
    y, event = tasks[0].y, tasks[0].event
    observed = f"{int(tasks[0].observed.sum())} of {len(y)} rows observed"
    if event is not None:
        return f"{int(np.nansum(event))} events, {observed}"
    if outcome.kind == "binary":
        return f"{outcome.classes[1]!r} is positive ({int(np.nansum(y))}), {observed}"
    if outcome.kind == "ordinal":
        return f"{' < '.join(map(repr, outcome.classes))}, {observed}"
    if outcome.kind == "nominal":
        return f"{len(outcome.classes)} classes {some(outcome.classes)}, {observed}"
    return f"from {np.nanmin(y):g} to {np.nanmax(y):g}, {observed}"


def _doubt_censoring(found: list[Outcome]) -> list[Outcome]:
    """A note where a time and an event were inferred to be two outcomes."""
    times = [o for o in found if o.kind in ("continuous", "count") and o.inferred and _TIME.fullmatch(o.name.lower())]
    events = [o for o in found if o.kind == "binary" and o.inferred and _EVENT.fullmatch(o.name.lower())]
    if not times or not events or not set(events[0].classes) <= {0, 1}:
        return found
    time, event = times[0], events[0]
    note = (
        f"{time.name!r} and {event.name!r} look like a censored time and are taken for two outcomes: declare "
        f'{{"survival": Survival({time.name!r}, {event.name!r})}} if they are one'
    )
    return [replace(o, notes=(*o.notes, note)) if o is time else o for o in found]
