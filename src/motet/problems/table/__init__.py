"""A problem from a user's own table: CSV or Parquet, outcomes of mixed type, missing labels, leak-free splits."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from motet.columns import find
from motet.problems.assemble import assemble, cut
from motet.problems.base import Data, Kind, Problem, Training
from motet.problems.table import leaks, missing, preprocessing, splitting
from motet.problems.table.columns import (
    Column,
    Features,
    Outcome,
    features,
    numbers_and_texts,
    outcome,
    parse_target,
)
from motet.problems.table.doubts import doubts
from motet.problems.table.names import outcomes_among
from motet.problems.table.reading import read
from motet.problems.table.splitting import Splitter

__all__ = ["Column", "TableProblem", "from_table"]

FEWEST_ROWS = 30
"""With fewer, a part of the split has less than six rows, and no comparison means anything."""


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
            all other numbers are regression. Empty cells are missing labels, and so are marks such as
            "n/d" or "?" in a column that holds numbers otherwise.
        group: Column of patients, sites, molecules …: all rows of one are in the same part. Not a feature.
        time: Column of ISO dates or numbers: training is before validation, and that before test. Not a
            feature. The split is then the same for every seed.
        drop: Columns that are not to be used.

    Without group and time the split is random, 60/20/20, within the classes of the target that has the rarest.
    A random split or one by group is drawn again, still the same for a seed, until every part has labels of
    every target and both classes of a binary one; `Data.notes` tells. Rows without any label are dropped.
    Medians, scales and categories are learned from the training part.

    Raises:
        ValueError: if the file is no table, a column is not there or can't be used, fewer than 30 rows
            remain, or no split gives every part labels of every target.
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

    table, blanked = missing.blank(table, [column for column in table.columns if column not in {*drop, group, time}])
    reading = [*reading, *blanked]
    outcomes = [outcome(table[target], target, kind) for target, kind in kinds.items()]
    keep = np.any([o.labelled for o in outcomes], axis=0)
    if keep.sum() < FEWEST_ROWS:
        raise ValueError(
            f"the table has {keep.sum()} rows with a label, and a comparison needs {FEWEST_ROWS} or more: "
            "add rows, or join tables"
        )
    if not keep.all():
        reading.append(f"{(~keep).sum()} of {len(table)} rows have no label at all and are dropped")
        # The index stays, so that errors go on naming the rows of the file.
        table = table[keep]
        outcomes = [Outcome(o.task, o.values[keep], o.column) for o in outcomes]

    used = {*kinds, *drop, group, time}
    others = table[[column for column in table.columns if column not in used]]
    inputs = features(others)
    if not any(column.role == "feature" for column in inputs.columns):
        raise ValueError("no feature is left: every column is a target, was dropped, is constant or is an identifier")
    split = splitting.splitter(table, outcomes, group, time)
    roles = [Column(column, "left out", "dropped") for column in drop]
    roles += [Column(group, "group", "")] if group else []
    roles += [Column(time, "time", "")] if time else []
    columns = (*(o.column for o in outcomes), *inputs.columns, *roles)
    overview = (f"{len(table)} rows", *reading, *_overview(columns), split.text)
    mixed = [warning for target, kind in kinds.items() if not kind for warning in _mixed(table[target], target)]
    own = [column.name for column in inputs.columns if column.role == "feature"]
    doubtful = [*doubts(others, inputs, grouped=group is not None), *outcomes_among(own)]
    warnings = (*mixed, *doubtful, *_warnings(inputs, outcomes, split))

    def load(seed: int) -> Data:
        parts, drawn = splitting.draw(split, outcomes, seed)
        values = {o.task.name: cut(o.values, parts) for o in outcomes}
        tasks = [o.task for o in outcomes]
        return assemble(tasks, preprocessing.inputs(inputs, parts), values, (*overview, *warnings, *drawn))

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
        raise ValueError("rows can be split by group or by time, not by both: leave one out")
    others = [(name, purpose) for name, purpose in ((group, "for the group"), (time, "for the time")) if name]
    for name, purpose in [*others, *((name, "to drop") for name in drop)]:
        if find(name, table.columns, purpose) in kinds:
            raise ValueError(f"column {name!r} is a target and can't be the one {purpose} too: name it once")
    return kinds


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


def _mixed(raw: pd.Series, name: str) -> list[str]:
    """A warning where a target whose type is inferred is classes because some of its entries are no numbers."""
    numbers, texts = numbers_and_texts(raw)
    if not numbers or not texts:
        return []
    odd = ", ".join(map(repr, texts[:3])) + (" …" if len(texts) > 3 else "")
    return [
        f"target {name!r} mixes numbers ({numbers[0]!r} …) and text ({odd}), and so is taken for classes: if the text "
        f"means that the value is missing, empty those cells; if not, say {name}:multiclass or {name}:binary"
    ]


def _warnings(inputs: Features, outcomes: Sequence[Outcome], split: Splitter) -> list[str]:
    warnings = leaks.copies(inputs, outcomes)
    if split.groups is None and split.times is None and (leak := leaks.neighbours(inputs, outcomes)):
        warnings.append(leak)
    if split.times is None and (leak := leaks.repeats(inputs, outcomes, split.groups)):
        warnings.append(leak)
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
