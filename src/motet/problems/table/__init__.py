"""A problem from a user's own table: CSV or Parquet, outcomes of mixed type, missing labels, leak-free splits."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from motet.problems import splits
from motet.problems.assemble import assemble, cut
from motet.problems.base import Data, Kind, Problem, Training
from motet.problems.splits import Parts
from motet.problems.table import leaks, preprocessing
from motet.problems.table.columns import (
    Column,
    Features,
    Outcome,
    features,
    find,
    groups,
    mostly_numbers,
    outcome,
    parse_target,
    times,
)
from motet.problems.table.reading import read

__all__ = ["Column", "TableProblem", "from_table"]

FEWEST_ROWS = 30
"""With fewer, a part of the split has less than six rows, and no comparison means anything."""
_PARTS = ("training", "validation", "test")


@dataclass(frozen=True)
class TableProblem(Problem):
    """A problem made of a table.

    Attributes:
        columns: What each column is used for.
        overview: Lines that say so; see `describe`.
        warnings: What makes results on this table doubtful: leaks, copies of targets, classes that are too rare.
    """

    columns: tuple[Column, ...] = ()
    overview: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def describe(self) -> list[str]:
        """How the table was understood: rows, targets with their kind, features, what was left out, the split."""
        return list(self.overview)


@dataclass(frozen=True)
class _Split:
    """How the rows are cut; at most one of the two is given."""

    groups: NDArray[np.int64] | None
    times: NDArray[np.generic] | None
    strata: NDArray[np.int64]
    text: str

    def parts(self, seed: int) -> Parts:
        if self.groups is not None:
            return splits.grouped(self.groups, seed)
        if self.times is not None:
            return splits.ordered(self.times)
        return splits.stratified(self.strata, seed)


def from_table(
    source: str | Path | pd.DataFrame,
    targets: str | Sequence[str],
    group: str | None = None,
    time: str | None = None,
    drop: str | Sequence[str] = (),
) -> TableProblem:
    """Make a problem of a table: the target columns are the tasks, all other columns the features.

    Args:
        source: A CSV or Parquet file with a header, or a table in memory.
        targets: "name" or "name:type", where the type is regression, binary or multiclass. Without it, two
            different values are binary; strings (up to 50) or whole numbers (up to 10) are classes;
            all other numbers are regression. Empty cells are missing labels.
        group: Column of patients, sites, molecules …: all rows of one are in the same part. Not a feature.
        time: Column of ISO dates or numbers: training is before validation, and that before test. Not a
            feature. The split is then the same for every seed.
        drop: Columns that are not to be used.

    Without group and time the split is random, 60/20/20, within the classes of the target that has the rarest.
    Rows without any label are dropped. Medians, scales and categories are learned from the training part.

    Raises:
        ValueError: if the file is no table, a column is not there or can't be used, or fewer than 30 rows
            remain. `load` raises one where the split leaves a target without labels in a part.
    """
    targets, drop = ([names] if isinstance(names, str) else names for names in (targets, drop))
    if isinstance(source, pd.DataFrame):
        name, table, reading = "table", source.reset_index(drop=True), list[str]()
    else:
        path = Path(source).expanduser()
        name = path.name.split(".")[0]
        table, reading = read(path)
    table = table.set_axis([str(column) for column in table.columns], axis=1)
    if twice := [column for column, count in Counter(table.columns).items() if count > 1]:
        raise ValueError(f"the table has the column {twice[0]!r} twice: rename one of them")
    kinds = _roles(table, targets, group, time, drop)

    outcomes = [outcome(table[target], target, kind) for target, kind in kinds.items()]
    keep = np.any([o.labelled for o in outcomes], axis=0)
    if keep.sum() < FEWEST_ROWS:
        raise ValueError(f"the table has {keep.sum()} rows with a label, and a comparison needs {FEWEST_ROWS} or more")
    if not keep.all():
        reading.append(f"{(~keep).sum()} of {len(table)} rows have no label at all and are dropped")
        # The index stays, so that errors go on naming the rows of the file.
        table = table[keep]
        outcomes = [Outcome(o.task, o.values[keep], o.column) for o in outcomes]

    used = {*kinds, *drop, group, time}
    inputs = features(table[[column for column in table.columns if column not in used]])
    if not any(column.role == "feature" for column in inputs.columns):
        raise ValueError("no feature is left: every column is a target, was dropped, is constant or is an identifier")
    split = _split(table, outcomes, group, time)
    roles = [Column(column, "left out", "dropped") for column in drop]
    roles += [Column(group, "group", "")] if group else []
    roles += [Column(time, "time", "")] if time else []
    columns = (*(o.column for o in outcomes), *inputs.columns, *roles)
    overview = (f"{len(table)} rows", *reading, *_overview(columns), split.text)
    warnings = tuple(_warnings(inputs, outcomes, split))

    def load(seed: int) -> Data:
        parts = split.parts(seed)
        _check(parts, outcomes, seed)
        values = {o.task.name: cut(o.values, parts) for o in outcomes}
        tasks = [o.task for o in outcomes]
        return assemble(tasks, preprocessing.inputs(inputs, parts), values, (*overview, *warnings))

    return TableProblem(
        name=name,
        title=f"{len(outcomes)} outcomes of {len(table)} rows",
        source=str(source) if not isinstance(source, pd.DataFrame) else "a table in memory",
        load=load,
        training=_training(len(table)),
        columns=columns,
        overview=overview,
        warnings=warnings,
    )


def _roles(
    table: pd.DataFrame, targets: Sequence[str], group: str | None, time: str | None, drop: Sequence[str]
) -> dict[str, Kind | None]:
    """The targets with their kinds, once it is clear that every column exists and has one role."""
    if not targets:
        raise ValueError("name at least one target column")
    kinds: dict[str, Kind | None] = {}
    for target in targets:
        column, kind = parse_target(target, table.columns)
        if column in kinds:
            raise ValueError(f"target {column!r} is named twice")
        kinds[column] = kind
    if group and time:
        raise ValueError("rows can be split by group or by time, not by both")
    others = [(name, purpose) for name, purpose in ((group, "for the group"), (time, "for the time")) if name]
    for name, purpose in [*others, *((name, "to drop") for name in drop)]:
        if find(name, table.columns, purpose) in kinds:
            raise ValueError(f"column {name!r} is a target and can't be the one {purpose} too")
    return kinds


def _split(table: pd.DataFrame, outcomes: Sequence[Outcome], group: str | None, time: str | None) -> _Split:
    strata = np.zeros(len(table), dtype=np.int64)
    if group:
        codes = groups(table[group], group)
        if (count := codes.max() + 1) < 3:
            raise ValueError(f"the group column {group!r} has {count} groups, and a split needs three or more")
        return _Split(codes, None, strata, f"split by {group!r}: no group of the {count} is in two parts")
    if time:
        text = f"split by {time!r}: training, then validation, then test, the same for every seed"
        return _Split(None, times(table[time], time), strata, text)
    classes = [o for o in outcomes if o.task.kind != "regression"]
    if not classes:
        return _Split(None, None, strata, "split at random, 60/20/20")
    rarest = min(classes, key=lambda o: int(np.bincount(o.strata[o.labelled]).min()))
    text = f"split at random, 60/20/20 within the classes of {rarest.task.name!r}"
    return _Split(None, None, rarest.strata, text)


def _check(parts: Parts, outcomes: Sequence[Outcome], seed: int) -> None:
    """No part may be empty, or leave a task without what its loss and metric need."""
    for where, rows in zip(_PARTS, parts, strict=True):
        if not len(rows):
            raise ValueError(f"the {where} part has no rows with seed {seed}: too many rows have the same time")
        for o in outcomes:
            known = o.values[rows][o.labelled[rows]]
            fix = f"with seed {seed}: split another way, or take the target out"
            if not len(known):
                raise ValueError(f"target {o.task.name!r} has no label in the {where} part {fix}")
            needs_two = o.task.kind == "binary" or (o.task.kind == "multiclass" and where == "training")
            if needs_two and (known == known[0]).all():
                raise ValueError(f"target {o.task.name!r} has one class only in the {where} part {fix}")


def _overview(columns: Sequence[Column]) -> list[str]:
    lines = [f"target {c.name}: {c.kind}, {c.detail}" for c in columns if c.role == "target"]
    used = [c for c in columns if c.role == "feature"]
    kinds = Counter(c.kind for c in used)
    lines.append(f"{len(used)} features: " + ", ".join(f"{count} of kind {kind}" for kind, count in kinds.items()))
    if gaps := sum("missing" in c.detail for c in used):
        lines[-1] += f"; {gaps} with missing values"
    if out := [f"{c.name} ({c.kind})" for c in columns if c.role == "left out"]:
        lines.append("left out: " + ", ".join(out[:10]) + (f" and {len(out) - 10} more" if len(out) > 10 else ""))
    return lines


def _warnings(inputs: Features, outcomes: Sequence[Outcome], split: _Split) -> list[str]:
    warnings = leaks.copies(inputs, outcomes)
    if split.groups is None and split.times is None and (leak := leaks.neighbours(inputs, outcomes)):
        warnings.append(leak)
    for column in inputs.categories.columns:
        if odd := mostly_numbers(inputs.categories[column]):
            warnings.append(f"feature {column!r} is mostly numbers but used as categories, because of {odd!r}")
    for o in outcomes:
        if o.task.kind != "regression":
            counts = np.bincount(o.strata[o.labelled])
            rare = [f"{o.task.labels[code]!r} ({count})" for code, count in enumerate(counts) if count < 5]
            if rare:
                warnings.append(
                    f"target {o.task.name!r} has classes of fewer than 5 rows, too few for three parts: "
                    + ", ".join(rare[:5])
                )
    return warnings


def _training(rows: int) -> Training:
    """Small batches for small tables, so that an epoch is some tens of steps."""
    if rows < 1000:
        return Training(epochs=60, patience=15, batch_size=32, width=64)
    if rows < 20_000:
        return Training(epochs=40, patience=10, batch_size=128, width=128)
    return Training(epochs=20, patience=5, batch_size=512, width=128)
