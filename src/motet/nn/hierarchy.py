"""How far tasks are from one another in a hierarchy, and the influence that this lets one expect."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Path = tuple[str | int, ...]
"""A place in the tree: the steps from the root, of which each task and each group has one of its own."""


def task_distances(tasks: Sequence[str], hierarchy: Any) -> Tensor:
    """The number of edges of the tree between every two tasks.

    Tasks may be leaves or inner nodes; other inner nodes are groups, named or not. All that has no parent hangs from
    one root. Two tasks of one group are 2 apart, a task and its child 1, tasks of different groups of the root 4.

    Args:
        tasks: The tasks' names.
        hierarchy: One of
            a list of groups, ``[["grade", "stage"], ["msi"]]``, which may be nested;
            nested dicts, ``{"tumour": {"grade": {}, "stage": {}}, "msi": None}``, or with lists as the innermost;
            each child's parent, ``{"parity": "digit", "large": "digit"}``, None for a child of the root, as is a task
            that is not named.

    Returns:
        (K, K), float64, symmetric, with a zero diagonal.

    Raises:
        ValueError: if a task is left out or there twice, a leaf is no task, or the parents go round in a circle.

    >>> task_distances(["grade", "stage", "msi"], [["grade", "stage"], ["msi"]]).int().tolist()
    [[0, 2, 4], [2, 0, 4], [4, 4, 0]]
    """
    if not isinstance(hierarchy, Mapping | list | tuple | set | frozenset):
        raise ValueError(f"hierarchy must be a dict or a list of groups, not {type(hierarchy).__name__}")
    if isinstance(hierarchy, Mapping) and any(isinstance(parent, str) for parent in hierarchy.values()):
        named = {*hierarchy, *(parent for parent in hierarchy.values() if isinstance(parent, str))}
        roots = dict.fromkeys(task for task in tasks if task not in named)
        places = list(_by_parents({**hierarchy, **roots}))
    else:
        places = list(_nested(hierarchy, ()))
    found: dict[str, Path] = {}
    for name, path, leaf in places:
        if name not in tasks:
            if leaf:
                raise ValueError(f"hierarchy ends in {name!r}, which is no task: there are {', '.join(tasks)}")
            continue
        if name in found:
            raise ValueError(f"hierarchy holds task {name!r} twice: a task has one place")
        found[name] = path
    missing = [task for task in tasks if task not in found]
    if missing:
        raise ValueError(
            f"hierarchy leaves out {', '.join(map(repr, missing))}: add each, as a group of its own if need be"
        )
    rows = [[_edges(found[one], found[other]) for other in tasks] for one in tasks]
    return torch.tensor(rows, dtype=torch.float64)


def log_prior(tasks: Sequence[str], hierarchy: Any = None, kappa: float = 1.0) -> Tensor:
    """The logarithm of the influence that is expected of each task j (column) on each task k (row).

    Π⁰ₖⱼ ∝ exp(-dist(k, j)/κ), with rows that sum to 1; without a hierarchy Π⁰ = 0.8 I + 0.2/K.

    Args:
        tasks: The tasks' names.
        hierarchy: See `task_distances`.
        kappa: The distance κ over which influence falls by e, > 0.

    Returns:
        (K, K), float64.
    """
    if not 0 < kappa < float("inf"):
        raise ValueError(f"kappa is the distance over which influence falls by e and must be positive, not {kappa}")
    if hierarchy is None:
        count = len(tasks)
        return (0.8 * torch.eye(count, dtype=torch.float64) + 0.2 / count).log()
    return torch.log_softmax(-task_distances(tasks, hierarchy) / kappa, dim=1)


def _nested(node: Any, path: Path) -> Iterator[tuple[str, Path, bool]]:
    """The named nodes below one, as name, path, and whether nothing is below it."""
    if isinstance(node, Mapping):
        children: Iterable[tuple[Any, Any]] = node.items()
    elif isinstance(node, list | tuple | set | frozenset):
        children = ((child, None) if isinstance(child, str) else (None, child) for child in node)
    else:
        raise ValueError(f"hierarchy must be made of dicts, lists and names, and holds {node!r}")
    for number, (name, below) in enumerate(children):
        here = (*path, number)
        if name is not None:
            if not isinstance(name, str):
                raise ValueError(f"hierarchy must be made of names, and holds {name!r}")
            yield name, here, not below
        if below is not None:
            yield from _nested(below, here)


def _by_parents(parents: Mapping[Any, Any]) -> Iterator[tuple[str, Path, bool]]:
    """The same from each child's parent."""
    for name, parent in parents.items():
        if not isinstance(name, str) or not isinstance(parent, str | None):
            raise ValueError(
                f"hierarchy must give the name of a parent or None for each child, not {name!r}: {parent!r}"
            )
    above = set(parents.values()) - {None}
    for name in dict.fromkeys([*parents, *above]):
        path = [name]
        while (parent := parents.get(path[0])) is not None:
            if parent in path:
                raise ValueError(f"hierarchy goes round in a circle: {' → '.join([parent, *path])}")
            path.insert(0, parent)
        yield name, tuple(path), name not in above


def _edges(one: Path, other: Path) -> int:
    """Steps from one place up to the last that both are below, and down to the other."""
    common = 0
    while common < min(len(one), len(other)) and one[common] == other[common]:
        common += 1
    return len(one) + len(other) - 2 * common
