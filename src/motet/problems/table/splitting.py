"""How the rows of a table are cut into parts, and cut again where a part would lack what a target needs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from motet.problems import splits
from motet.problems.splits import Parts
from motet.problems.table.columns import Outcome, groups, times

TRIES = 10_000
"""Splits that are drawn for one seed before it is given up. Most tables need one; a class that three of a
hundred groups have needs seven on average, two such classes in different groups fifty."""
FIRST_TRIES = 200
"""The same when the table is read. A table that passes this is next to certain to pass `TRIES` with every
other seed, so a study does not stop after some of its seeds have been trained."""

_PARTS = ("training", "validation", "test")


@dataclass(frozen=True)
class Splitter:
    """A way to cut the rows; at most one of groups and times is given.

    Attributes:
        groups: Codes (N,): no group is in two parts.
        times: (N,): training before validation before test, whatever the seed.
        strata: Codes (N,): without groups and times, the split is random within each.
        unit: What can't be cut, for messages: "rows" or "groups of 'patient'".
        text: One line for the reader.
    """

    groups: NDArray[np.int64] | None
    times: NDArray[np.generic] | None
    strata: NDArray[np.int64]
    unit: str
    text: str

    def parts(self, seed: splits.Seed) -> Parts:
        """Training, validation and test, as they come."""
        if self.groups is not None:
            return splits.grouped(self.groups, seed)
        if self.times is not None:
            return splits.ordered(self.times)
        return splits.stratified(self.strata, seed)


def splitter(table: pd.DataFrame, outcomes: Sequence[Outcome], group: str | None, time: str | None) -> Splitter:
    """The split that was asked for: by group, by time, or at random within the classes of the rarest target.

    Raises:
        ValueError: if the column can't be used, or no split can give every part what the targets need.
    """
    strata = np.zeros(len(table), dtype=np.int64)
    again = "; drawn again where a part would lack labels or a class"
    if group:
        codes = groups(table[group], group)
        if (count := codes.max() + 1) < 3:
            raise ValueError(f"the group column {group!r} has {count} groups, and a split needs three or more")
        text = f"split by {group!r}: no group of the {count} is in two parts{again}"
        split = Splitter(codes, None, strata, f"groups of {group!r}", text)
    elif time:
        text = f"split by {time!r}: training, then validation, then test, the same for every seed"
        split = Splitter(None, times(table[time], time), strata, "rows", text)
    else:
        text = "split at random, 60/20/20"
        if classes := [o for o in outcomes if o.task.kind != "regression"]:
            rarest = min(classes, key=lambda o: int(np.bincount(o.strata[o.labelled]).min()))
            strata, text = rarest.strata, f"{text} within the classes of {rarest.task.name!r}"
        split = Splitter(None, None, strata, "rows", text + again)
    if split.times is None:
        _check_enough(split, outcomes)
    draw(split, outcomes, 0, FIRST_TRIES)
    return split


def draw(split: Splitter, outcomes: Sequence[Outcome], seed: int, tries: int = TRIES) -> tuple[Parts, list[str]]:
    """The first split of this seed in which every part has what the targets need, and a note if it is not the first.

    The same seed gives the same split. Taking the first good one is sampling from the good ones: no part is
    favoured beyond what the targets need.

    Raises:
        ValueError: if there is none among so many tries, with what the last one lacked.
    """
    fault, first = "", ""
    for attempt in range(tries if split.times is None else 1):
        parts = split.parts((seed, attempt) if attempt else seed)
        if not (fault := _fault(parts, outcomes)):
            times_ = "once" if attempt == 1 else f"{attempt} times"
            return parts, [f"the split of seed {seed} was drawn again {times_}: first, {first}"] if attempt else []
        first = first or fault
    fix = "split another way, or take the target out"
    if split.times is not None:
        raise ValueError(f"with the split by time, {fault}: {fix}")
    raise ValueError(f"none of {tries} random splits with seed {seed} serves every target; in the last, {fault}: {fix}")


def _check_enough(split: Splitter, outcomes: Sequence[Outcome]) -> None:
    """What no draw can mend: labels, or a class of a binary target, in fewer than three rows or groups."""
    units = np.arange(len(split.strata)) if split.groups is None else split.groups
    for o in outcomes:
        wanted = [("labels", o.labelled)]
        if o.task.kind == "binary":
            wanted += [(f"class {label!r}", o.strata == code) for code, label in enumerate(o.task.labels)]
        for what, rows in wanted:
            if (count := len(np.unique(units[rows]))) < 3:
                units_ = split.unit if count != 1 else split.unit.replace("rows", "row").replace("groups", "group", 1)
                raise ValueError(
                    f"target {o.task.name!r} has {what} in {count} {units_}, and training, validation and test "
                    "need one each: split another way, or take the target out"
                )


def _fault(parts: Parts, outcomes: Sequence[Outcome]) -> str:
    """What a part lacks that a loss or metric needs, or nothing."""
    for where, rows in zip(_PARTS, parts, strict=True):
        if not len(rows):
            return f"the {where} part has no rows, since too many have the same time"
        for o in outcomes:
            known = o.values[rows][o.labelled[rows]]
            name = f"target {o.task.name!r}"
            if not len(known):
                return f"{name} has no label in the {where} part"
            if (o.task.kind == "binary" or where == "training") and (known == known[0]).all():
                what = "value" if o.task.kind == "regression" else "class"
                return f"{name} has one {what} only in the {where} part"
    return ""
