"""A problem from a user's own bags: a table of bags with labels, and files of their instances, in several views."""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from motet.columns import find, some
from motet.nn.bag import Bag
from motet.problems import instances
from motet.problems.assemble import assemble, cut
from motet.problems.base import Data, Training
from motet.problems.splits import Parts
from motet.problems.table import FEWEST_ROWS, TableProblem, missing, preprocessing
from motet.problems.table.columns import MISSING, Features, Outcome, features, groups, outcome, parse_target, same_name
from motet.problems.table.reading import read
from motet.problems.table.splitting import Splitter, draw, splitter
from motet.problems.views import View, Views, standardised

_PARTS = ("train", "validation", "test")


class Bags(TableProblem):
    """A problem whose rows are bags of instances, vectors, or both: one view a folder of files or a list of columns.

    Args:
        table: A CSV or Parquet file, or a table in memory, with one row a bag.
        views: By name: a folder with one file a bag, named after it (``slide7.npy``), or columns of the table. A file
            is .npy (instances, features), .npz with "features" and "coordinates", or .csv and .parquet with a column a
            feature. Pickled arrays are refused.
        targets: "name" or "name:type", as for `motet.problems.table.from_table`. Empty cells are missing labels.
        bag: Column of the bags' names.
        group: Column of patients, sites …: all bags of one are in the same part. Names that differ in case or
            surrounding spaces alone are one. None: each bag is on its own.
        part: Column that says "train", "validation" or "test": the split is then that one for every seed. That no group
            is in two parts is checked.
        coordinates: Columns of .csv and .parquet files that say where an instance lies; they are no features. Files
            may not hold columns of the table's targets, bags, groups or parts, nor one without a name.
        gaps: Whether a bag may lack a view. It then has no file, one without instances, or empty cells in all columns
            of the view.

    Bags without any label are dropped. Scales, medians and categories are learned from the training part. Everything is
    held in memory, in float32.

    Raises:
        ValueError: if the table or a file can't be used; it names the bag, the view, the cause and the fix.
    """

    def __init__(
        self,
        table: str | Path | pd.DataFrame,
        views: Mapping[str, str | Path | Sequence[str]],
        targets: str | Sequence[str],
        *,
        bag: str = "bag",
        group: str | None = None,
        part: str | None = None,
        coordinates: Sequence[str] = ("x", "y", "z"),
        gaps: bool = False,
    ) -> None:
        if isinstance(table, pd.DataFrame):
            name, rows, reading = "bags", table.reset_index(drop=True), list[str]()
        else:
            name = Path(table).name.split(".")[0]
            rows, reading = read(Path(table).expanduser(), [bag, *([group] if group else [])])
        rows = rows.set_axis([str(column) for column in rows.columns], axis=1)
        targets = [targets] if isinstance(targets, str) else list(targets)
        if not targets or not views:
            raise ValueError(f"Bags: name at least one {'view' if targets else 'target column'}")
        kinds = dict(parse_target(target, rows.columns) for target in targets)
        lists = {view: list(what) for view, what in views.items() if not isinstance(what, str | Path)}
        for column, purpose in ((bag, "for the bags"), (group, "for the group"), (part, "for the parts")):
            if column is not None:
                find(column, rows.columns, purpose)
        for view, listed in lists.items():
            for column in listed:
                if find(column, rows.columns, f"for view {view!r}") in {*kinds, bag, group, part}:
                    raise ValueError(f"column {column!r} can't be in view {view!r}: it is a target, bag, group or part")
        _check_names(rows, bag, list(kinds))
        used = list(dict.fromkeys(column for what in lists.values() for column in what))
        rows, blanked = missing.blank(rows, [*kinds, *used])
        outcomes = [outcome(rows[target], target, kind) for target, kind in kinds.items()]
        keep = np.any([o.labelled for o in outcomes], axis=0)
        if keep.sum() < FEWEST_ROWS:
            raise ValueError(f"the table has {keep.sum()} bags with a label, and a comparison needs {FEWEST_ROWS}")
        if not keep.all():
            reading.append(f"{(~keep).sum()} of {len(rows)} bags have no label at all and are dropped")
        rows = rows[keep]
        outcomes = [Outcome(o.task, o.values[keep], o.column) for o in outcomes]
        names = [str(value) for value in rows[bag]]

        found: dict[str, Bag | Features] = {}
        for view, what in views.items():
            if isinstance(what, str | Path):
                found[view] = _folder(view, what, names, coordinates, gaps, {*kinds, bag, group, part})
            else:
                found[view] = _columns(view, rows, list(what))
        lacking = np.stack([_lacking(view) for view in found.values()])
        if not gaps and lacking.any():
            view, row = np.argwhere(lacking)[0]
            raise ValueError(
                f"bag {names[row]!r} has no instances or values in view {list(found)[view]!r}: add them, leave the bag "
                "out, or say gaps=True if a bag may lack a view"
            )
        if lacking.all(axis=0).any():
            raise ValueError(f"bag {names[lacking.all(axis=0).argmax()]!r} has none of the views: leave it out")

        if group:
            groups(rows[group], group)
        patients = rows[group].astype(str) if group else rows[bag].astype(str)
        split: Splitter | Parts
        if part:
            split, said = _given(rows[part], part, patients), f"split as column {part!r} says, the same for every seed"
        else:
            split = splitter(rows, outcomes, group, None)
            said = split.text
        overview = (f"{len(rows)} bags", *reading, *blanked, *_overview(found), said)
        super().__init__(
            name=name,
            title=f"{len(outcomes)} outcomes of {len(rows)} bags in {len(found)} views",
            source=str(table) if not isinstance(table, pd.DataFrame) else "a table in memory",
            load=partial(_load, found, outcomes, patients, split, overview),
            training=Training(epochs=60, patience=15, batch_size=16, width=64),
            columns=tuple(o.column for o in outcomes),
            overview=overview,
        )


def check_groups(groups: Sequence[object] | pd.Series, parts: Parts) -> None:
    """Whether all rows of a group are in one part.

    Args:
        groups: Of each row: (N,). Names that differ in case or surrounding spaces alone are one group.
        parts: Row numbers of training, validation and test.

    Raises:
        ValueError: if not, with the group's name.
    """
    seen: dict[object, str] = {}
    given = list(groups)
    names = same_name(pd.Series(given, dtype=object)).tolist()
    for part, rows in zip(_PARTS, parts, strict=True):
        for row in rows.tolist():
            if seen.setdefault(names[row], part) != part:
                raise ValueError(
                    f"{given[row]!r} is in the parts {seen[names[row]]} and {part}: keep all its bags in one, or the "
                    "results will be too good"
                )


def _load(
    found: dict[str, Bag | Features],
    outcomes: list[Outcome],
    patients: pd.Series,
    split: Splitter | Parts,
    overview: tuple[str, ...],
    seed: int,
) -> Data:
    parts, drawn = draw(split, outcomes, seed) if isinstance(split, Splitter) else (split, [])
    check_groups(patients, parts)
    train = torch.as_tensor(parts[0])
    bags: dict[str, View] = {name: view for name, view in found.items() if isinstance(view, Bag)}
    ready = dict(standardised(Views(bags), train).views) if bags else {}
    tables = {name: _prepared(name, view, parts) for name, view in found.items() if isinstance(view, Features)}
    views = Views({name: tables[name] if name in tables else ready[name] for name in found})
    training, validation, test = (views[torch.as_tensor(part)] for part in parts)
    values = {o.task.name: cut(o.values, parts) for o in outcomes}
    return assemble([o.task for o in outcomes], (training, validation, test), values, (*overview, *drawn))


def _prepared(name: str, view: Features, parts: Parts) -> torch.Tensor:
    """The columns of a view as inputs (N, D), all NaN where a row lacks it; fitted on training rows that have it."""
    there = ~_lacking(view)
    train = parts[0][there[parts[0]]]
    if not len(train):
        raise ValueError(f"no bag of the training part has the view {name!r}: take it out, or split another way")
    rows = np.flatnonzero(there)
    values = preprocessing.inputs(view, (train, rows, train))[1]
    inputs = torch.full((len(there), values.shape[1]), torch.nan)
    inputs[torch.as_tensor(rows)] = torch.as_tensor(values, dtype=torch.float32)
    return inputs


def _lacking(view: Bag | Features) -> NDArray[np.bool_]:
    if isinstance(view, Bag):
        return np.asarray((view.sizes == 0).numpy())
    numbers, categories = view.numbers.isna().all(axis=1), (view.categories == MISSING).all(axis=1)
    return np.asarray((numbers & categories).to_numpy())


def _check_names(rows: pd.DataFrame, bag: str, targets: list[str]) -> None:
    names = rows[bag]
    if names.isna().any():
        raise ValueError(f"the bag column {bag!r} is empty in row {int(names.isna().to_numpy().argmax()) + 1}")
    twice = names.astype(str).duplicated(keep=False)
    if not twice.any():
        return
    name = names[twice].iloc[0]
    same = rows[names.astype(str) == str(name)]
    for target in targets:
        if same[target].nunique(dropna=False) > 1:
            raise ValueError(
                f"bag {str(name)!r} has two labels of {target!r}, {some(map(str, same[target].unique()))}: "
                "a bag has one row and one label of each"
            )
    raise ValueError(f"bag {str(name)!r} is in rows {some(same.index + 1)} of the table: keep one of them")


def _folder(
    view: str,
    folder: str | Path,
    names: list[str],
    coordinates: Sequence[str],
    gaps: bool,
    taken: Collection[str | None],
) -> Bag:
    files = instances.find(view, folder, names, gaps)
    read_ = [
        (name, instances.read(view, name, file, coordinates))
        for name, file in zip(names, files, strict=True)
        if file is not None
    ]
    # A file without instances may have no columns either.
    full = [(name, found) for name, found in read_ if len(found.x)]
    if not full:
        raise ValueError(f"view {view!r} has no instances in any bag")
    (one, first), *_ = full
    _check_columns(f"bag {one!r} of view {view!r}", first.columns or (), coordinates, taken)
    for name, found in full:
        if found.x.shape[1] != first.x.shape[1] or found.columns != first.columns:
            raise ValueError(
                f"bag {name!r} of view {view!r} has {found.x.shape[1]} features{_named(found, first)}, and bag {one!r} "
                f"has {first.x.shape[1]}{_named(first, found)}: all bags of a view need the same columns"
            )
        if (found.coordinates is None) != (first.coordinates is None) or (
            found.coordinates is not None
            and first.coordinates is not None
            and found.coordinates.shape[1] != first.coordinates.shape[1]
        ):
            raise ValueError(f"bag {name!r} of view {view!r} has other coordinates than bag {one!r}")
    by_name = dict(full)
    sizes = [len(by_name[name].x) if name in by_name else 0 for name in names]
    points = None if first.coordinates is None else [f.coordinates for _, f in full if f.coordinates is not None]
    return Bag(
        torch.as_tensor(np.concatenate([found.x for _, found in full])),
        offsets=torch.tensor([0, *sizes]).cumsum(0),
        coordinates=None if points is None else torch.as_tensor(np.concatenate(points)),
    )


def _check_columns(
    where: str, columns: Sequence[str], coordinates: Sequence[str], taken: Collection[str | None]
) -> None:
    for column in columns:
        if column in taken:
            raise ValueError(
                f"{where} has a column {column!r}, which the table has as a target, bag, group or part: as a feature "
                "it would give the answer away, so leave it out of the files"
            )
        if not column.strip() or column.startswith("Unnamed: "):
            raise ValueError(
                f"{where} has a column without a name, which is most likely the number of the row: write the file "
                "without an index, as to_csv(…, index=False)"
            )
        if column.lower() in coordinates:
            raise ValueError(
                f"{where} has a column {column!r}: is it a coordinate? Say coordinates=(…) with the names as they are "
                "in the files, or coordinates=() if there are none"
            )


def _named(found: instances.Instances, other: instances.Instances) -> str:
    extra = [name for name in found.columns or () if name not in (other.columns or ())]
    return f" ({some(extra, 3)})" if extra else ""


def _columns(view: str, rows: pd.DataFrame, names: list[str]) -> Features:
    found = features(rows[names])
    if not any(column.role == "feature" for column in found.columns):
        raise ValueError(f"view {view!r} has no feature: every column is constant, empty or an identifier")
    return found


def _given(column: pd.Series, name: str, patients: pd.Series) -> Parts:
    values = column.astype(str).str.strip().str.lower()
    if (odd := ~values.isin(_PARTS)).any():
        raise ValueError(f"the part column {name!r} holds {values[odd].iloc[0]!r}, and a part is {', '.join(_PARTS)}")
    train, validation, test = (np.flatnonzero(values == part).astype(np.int64) for part in _PARTS)
    for part, rows in zip(_PARTS, (train, validation, test), strict=True):
        if not len(rows):
            raise ValueError(f"the part column {name!r} puts no bag into {part}")
    check_groups(patients, (train, validation, test))
    return train, validation, test


def _overview(found: dict[str, Bag | Features]) -> list[str]:
    lines = []
    for name, view in found.items():
        if isinstance(view, Bag):
            sizes = view.sizes
            where = f", at {view.coordinates.shape[1]}-D coordinates" if view.coordinates is not None else ""
            what = (
                f"{len(view.x)} instances of {view.x.shape[1]} features, {int(sizes.min())} to {int(sizes.max())} a bag"
            )
            lines.append(f"view {name!r}: {what}{where}")
        else:
            used = [c.name for c in view.columns if c.role == "feature"]
            out = [f"{c.name} ({c.kind})" for c in view.columns if c.role == "left out"]
            lines.append(f"view {name!r}: columns {some(used)}" + (f"; left out: {some(out)}" if out else ""))
        if gone := int(_lacking(view).sum()):
            lines[-1] += f"; {gone} bags lack it"
    return lines
