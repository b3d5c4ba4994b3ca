"""Results by name or by position, brought into one order."""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np

Results = Mapping[str, float] | Sequence[float]
"""One value a metric: by name, or by position."""

T = TypeVar("T")


def names_of(results: Results, what: str) -> list[str]:
    """The metrics' names; positions become "metric 0", "metric 1", …

    Raises:
        ValueError: if there is no metric at all.
    """
    names = list(results) if isinstance(results, Mapping) else [f"metric {i}" for i in range(len(results))]
    if not names:
        raise ValueError(f"{what} has no metric")
    return names


def values_of(
    values: Mapping[str, T] | Sequence[T], names: Sequence[str], what: str, like: str, by_name: bool
) -> list[T]:
    """The values in the order of ``names``.

    Raises:
        ValueError: if ``values`` has other metrics than ``like``, or goes by name where that goes by position.
    """
    if isinstance(values, Mapping) != by_name:
        kinds = ("name", "position") if isinstance(values, Mapping) else ("position", "name")
        raise ValueError(f"{what} goes by {kinds[0]} and {like} by {kinds[1]}: give both as dicts or both as sequences")
    if isinstance(values, Mapping):
        for name in names:
            if name not in values:
                raise ValueError(f"{what} has no {name!r}, which {like} has{_near(name, values)}")
        for name in values:
            if name not in names:
                raise ValueError(f"{what} has {name!r}, which {like} has not{_near(name, names)}")
        return [values[name] for name in names]
    if len(values) != len(names):
        raise ValueError(f"{what} has length {len(values)} and {like} has length {len(names)}")
    return list(values)


def numbers_of(values: Results, names: Sequence[str], what: str, like: str, by_name: bool) -> list[float]:
    """As `values_of`, and every value is a finite number.

    Raises:
        ValueError: as `values_of`, and for a value that is NaN or infinite, by name.
    """
    numbers = [float(value) for value in values_of(values, names, what, like, by_name)]
    for name, value in zip(names, numbers, strict=True):
        if not math.isfinite(value):
            raise ValueError(f"{name!r} is {value} in {what}: every metric must be finite")
    return numbers


def directions_of(
    higher_is_better: Mapping[str, bool] | Sequence[bool] | bool, names: Sequence[str], by_name: bool
) -> list[bool]:
    """One direction a metric, from one for all, one by name, or one by position."""
    if isinstance(higher_is_better, bool | np.bool_):
        return [bool(higher_is_better)] * len(names)
    values = values_of(higher_is_better, names, "higher_is_better", "results", by_name)
    for name, value in zip(names, values, strict=True):
        if not isinstance(value, bool | np.bool_):
            raise ValueError(f"higher_is_better of {name!r} must be True or False, not {value!r}")
    return [bool(value) for value in values]


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
