"""From a map of affinities to groups of tasks."""

import difflib
import operator
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from motet.grouping import correlation
from motet.grouping.correlation import Array, Labels
from motet.grouping.propagation import propagate

METHODS = ("affinity-propagation", "correlation", "singletons", "all", "random")


class Measured(Protocol):
    """A map with names and standard errors, as an Affinity is."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names, in the order of the rows."""

    @property
    def matrix(self) -> Tensor:
        """(K, K)."""

    @property
    def standard_errors(self) -> Tensor:
        """Of the entries, (K, K)."""


Values = Tensor | NDArray[Any] | Sequence[Sequence[float]]
Fixed = Sequence[Sequence[int]] | Sequence[Sequence[str]]


def partition(
    matrix: Values | Measured,
    method: str | Fixed = "affinity-propagation",
    *,
    max_groups: int | None = None,
    previous: Fixed | None = None,
    hysteresis: float = 0.0,
    standard_errors: Values | None = None,
    significance: float = 0.0,
    seed: int = 0,
) -> list[list[int]]:
    """Split the tasks into groups: every task in exactly one.

    Args:
        matrix: Affinity of task i (row, source) for task j (column, target), (K, K) with K ≥ 1; or an Affinity. NaN is
            unknown and counts as 0; infinite entries are refused.
        method: One of

            - ``"affinity-propagation"``: as the released code of Selective Task Group Updates; see
              :func:`motet.grouping.propagation.propagate`. It looks at no sign and takes no ``max_groups``.
            - ``"correlation"``: the partition with the largest sum of s = (X + Xᵀ)/2 within groups; see
              :func:`motet.grouping.correlation.correlate`. Pairs with s ≤ 0 are never
              joined, unless ``max_groups`` forces it: then as few as can be.
            - ``"singletons"``, ``"all"``: K groups, one group.
            - ``"random"``: ``max_groups`` groups whose sizes differ by at most one, drawn from ``seed``.
            - a partition, as ``[[0, 2], [1]]`` or by the names of an Affinity: itself.
        max_groups: Most groups, from 1. None is no bound.
        previous: The partition so far, read by ``"correlation"`` for its hysteresis and by ``"affinity-propagation"``
            where it doesn't converge.
        hysteresis: ``"correlation"`` keeps ``previous`` unless the sum rises by more than this share of its absolute
            value, or ``previous`` breaks a bound that the new groups keep. From 0.
        standard_errors: Of the entries of ``matrix``, (K, K), from 0; infinite or NaN where unknown. An Affinity's own
            are read from it.
        significance: Standard errors below which s says nothing to ``"correlation"``: such a pair is no reason to join
            its tasks, and none against it where others join them. From 0, with which the errors aren't read.
        seed: Of ``"random"``, and of the noise by which affinity propagation breaks ties; 0 … 2³² - 1.

    Returns:
        The groups, each sorted, in the order of their first tasks.

    Cost:
        On the host, at most a few milliseconds at K = 40.
    """
    values = read_matrix(matrix)
    tasks = len(values)
    names = names_of(matrix)
    bound = tasks if max_groups is None else whole("max_groups", max_groups, 1)
    whole("seed", seed, 0, 2**32 - 1)
    for option, value in (("hysteresis", hysteresis), ("significance", significance)):
        if not 0 <= value < float("inf"):
            raise ValueError(f"{option} must be finite and not negative, not {value}")
    before = None if previous is None else read_partition(previous, tasks, names, "previous")

    if not isinstance(method, str):
        labels = read_partition(method, tasks, names, "the fixed partition")
        if len(method) > bound:
            raise ValueError(f"the fixed partition has {len(method)} groups, more than max_groups={max_groups}")
    elif method == "affinity-propagation":
        if max_groups is not None:
            raise ValueError(
                'affinity propagation has no bound on the number of groups: for max_groups use method="correlation"'
            )
        labels = propagate(values, before, seed)
    elif method == "correlation":
        errors = None
        if significance > 0:
            errors = read_errors(matrix, standard_errors, tasks, "significance > 0")
        similar = correlation.similarity(values)
        similar, bars = correlation.gated(similar, errors, significance)
        labels = correlation.correlate(similar, bars, bound, before, hysteresis)
    elif method == "singletons":
        if tasks > bound:
            raise ValueError(f"{tasks} tasks alone are {tasks} groups, more than max_groups={max_groups}")
        labels = np.arange(tasks)
    elif method == "all":
        labels = np.zeros(tasks, dtype=np.intp)
    elif method == "random":
        if max_groups is None:
            raise ValueError("random groups need max_groups, the number of groups")
        labels = np.random.default_rng(seed).permutation(np.arange(tasks) % bound)
    else:
        near = difflib.get_close_matches(method.lower(), METHODS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(METHODS)}"
        raise ValueError(f"there is no way of grouping {method!r}: {hint}")
    return as_groups(labels)


def as_groups(labels: Labels) -> list[list[int]]:
    """Group of every task (K,) → sorted groups, in the order of their first tasks."""
    groups: dict[int, list[int]] = {}
    for task, label in enumerate(labels.tolist()):
        groups.setdefault(label, []).append(task)
    return list(groups.values())


def names_of(matrix: Values | Measured) -> tuple[str, ...] | None:
    """The tasks' names of an Affinity; a plain matrix has none."""
    # The standard errors of an Affinity can be dear, so that they aren't asked for to recognise one.
    names = getattr(matrix, "tasks", None)
    return None if names is None else tuple(names)


def read_matrix(matrix: Values | Measured, what: str = "the affinity matrix") -> Array:
    """A square matrix (K, K) without infinite entries, as float64 on the host."""
    values = _numbers(getattr(matrix, "matrix", matrix) if names_of(matrix) else matrix, what)
    if values.ndim != 2 or values.shape[0] != values.shape[1] or not values.size:
        raise ValueError(f"{what} must be square, (K, K) with a row and a column for each task, not {values.shape}")
    if np.isinf(values).any():
        row, column = np.argwhere(np.isinf(values))[0]
        raise ValueError(f"{what} is infinite at row {row}, column {column}: use NaN for what is unknown")
    return values


def read_errors(matrix: Values | Measured, given: Values | None, tasks: int, purpose: str) -> Array:
    """Standard errors (K, K), from 0, as given or of an Affinity; NaN becomes infinite."""
    errors = getattr(matrix, "standard_errors", None) if given is None else given
    if errors is None:
        raise ValueError(f"{purpose} needs standard_errors, or an Affinity, which has them")
    values = _numbers(errors, "standard_errors")
    if values.shape != (tasks, tasks):
        raise ValueError(f"standard_errors must have the shape of the matrix, {(tasks, tasks)}, not {values.shape}")
    if (values < 0).any():
        row, column = np.argwhere(values < 0)[0]
        raise ValueError(f"standard_errors must not be negative, but is at row {row}, column {column}")
    return np.where(np.isnan(values), np.inf, values)


def read_partition(groups: Fixed, tasks: int, names: tuple[str, ...] | None, what: str) -> Labels:
    """The group of every task (K,), of a partition by numbers or names."""
    labels = np.full(tasks, -1, dtype=np.intp)
    if isinstance(groups, str) or any(isinstance(group, str) for group in groups):
        raise ValueError(f"{what} must be a list of groups, each a list of tasks, not {groups!r}")
    for label, group in enumerate(groups):
        if not len(group):
            raise ValueError(f"{what} has an empty group")
        for member in group:
            task = _task(member, tasks, names, what)
            if labels[task] >= 0:
                raise ValueError(f"{what} has task {member!r} twice")
            labels[task] = label
    if (labels < 0).any():
        missing = [names[task] if names else int(task) for task in np.flatnonzero(labels < 0)]
        raise ValueError(f"{what} misses {', '.join(map(repr, missing))}: every task belongs to exactly one group")
    return labels


def _task(member: object, tasks: int, names: tuple[str, ...] | None, what: str) -> int:
    if isinstance(member, str):
        if names is None:
            raise ValueError(f"{what} names task {member!r}, but the matrix has no names: number the tasks from 0")
        if member not in names:
            near = difflib.get_close_matches(member, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
            raise ValueError(f"{what} names {member!r}, which is no task: {hint}")
        return names.index(member)
    try:
        task = -1 if isinstance(member, bool) else operator.index(member)  # type: ignore[arg-type]
    except TypeError:
        task = -1
    if not 0 <= task < tasks:
        raise ValueError(f"{what} has {member!r}, which is no task: the numbers go from 0 to {tasks - 1}")
    return task


def _numbers(values: Any, what: str) -> Array:
    if isinstance(values, Tensor):
        return values.detach().to("cpu", torch.float64).numpy()
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} must hold numbers in K rows of K: {error}") from error


def whole(option: str, value: int, least: int, most: int | None = None) -> int:
    """An option that is a whole number in a range, or a ValueError that names it."""
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = least - 1
    if number < least or (most is not None and number > most):
        span = f"from {least} on" if most is None else f"from {least} to {most}"
        raise ValueError(f"{option} must be a whole number {span}, not {value!r}")
    return number
