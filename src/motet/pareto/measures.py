"""Which points of a front count, and how much of the space they cover."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

MOST_TASKS = 6
"""Tasks for which the hypervolume is computed exactly: its cost grows exponentially with their number."""
_CHUNK = 1 << 14
_Array = np.ndarray[Any, np.dtype[np.float64]]


def nondominated(points: Tensor | Sequence[Sequence[float]]) -> Tensor:
    """Which points no other one betters: (N, K) → (N,) bool. Lower is better.

    One point dominates another if none of its losses is larger and one is smaller. Equal points don't
    dominate each other.

    Raises:
        ValueError: if the points are no matrix, or one holds NaN.
    """
    values = _matrix(points, "points")
    if values.isnan().any():
        raise ValueError("points holds NaN, which is neither better nor worse than anything")
    better = (values[:, None] <= values[None]).all(-1) & (values[:, None] < values[None]).any(-1)
    return ~better.any(0)


def hypervolume(
    points: Tensor | Sequence[Sequence[float]],
    reference: Tensor | Sequence[float],
    samples: int | None = None,
    seed: int = 0,
) -> float:
    """The volume of what the points dominate, up to a reference point: (N, K), (K,) → one number. Higher is better.

    Args:
        points: Losses, lower is better. Those not below the reference in all tasks add nothing.
        reference: Losses that are barely acceptable. Only volumes to the same reference compare.
        samples: None: exact, for up to 6 tasks. A number: estimated from so many random points, with a standard error
            of at most half of the box between the best losses and the reference, over √samples.
        seed: Of the random points.

    Raises:
        ValueError: if shapes don't fit, a number isn't finite, or there are more than 6 tasks and no ``samples``.

    Cost:
        Two tasks: that of sorting. More: up to exponential in the number of points that don't dominate each other
        (Bradstreet's and While's WFG); below a second for 100 points of 3 tasks or 30 of 6.
    """
    values = _matrix(points, "points")
    corner = torch.as_tensor(reference, dtype=torch.float64)
    if corner.shape != values.shape[1:]:
        raise ValueError(f"reference must hold one loss a task, {values.shape[1]} of them, not {tuple(corner.shape)}")
    if not (values.isfinite().all() and corner.isfinite().all()):
        raise ValueError("points and reference must be finite")
    values = values[(values < corner).all(1)]
    if not len(values):
        return 0.0
    gains = np.unique((corner - values[nondominated(values)]).numpy(), axis=0)  # higher is better from here on
    if samples is not None:
        return _estimate(gains, samples, seed)
    if values.shape[1] > MOST_TASKS:
        raise ValueError(
            f"the exact hypervolume is for up to {MOST_TASKS} tasks, not {values.shape[1]}: samples= gives an estimate"
        )
    return _volume(gains)


def _volume(gains: _Array) -> float:
    """Volume of the union of boxes from the origin to each row, rows not dominating each other."""
    if gains.shape[1] == 1:
        return float(gains.max())
    ordered = gains[np.argsort(-gains[:, 0])]
    if gains.shape[1] == 2:
        return float((ordered[:, 0] * np.diff(ordered[:, 1], prepend=0.0)).sum())
    total = 0.0
    for i, row in enumerate(ordered):
        # What this box adds to those after it: all of it but for what they share with it.
        shared = np.minimum(ordered[i + 1 :], row)
        total += float(row.prod()) - (_volume(_best(shared)) if len(shared) else 0.0)
    return total


def _best(gains: _Array) -> _Array:
    """The rows that no other dominates, each once. Higher is better."""
    gains = np.unique(gains, axis=0)
    covered = np.all(gains[None] >= gains[:, None], axis=-1)
    alone: _Array = gains[covered.sum(1) == 1]  # covered by itself
    return alone


def _estimate(gains: _Array, samples: int, seed: int) -> float:
    if samples < 1:
        raise ValueError(f"samples must be at least 1, not {samples}")
    draw = np.random.default_rng(seed)
    box = gains.max(0)
    inside = 0
    for start in itertools.count(0, _CHUNK):
        if start >= samples:
            break
        at = draw.random((min(_CHUNK, samples - start), len(box))) * box
        hit = np.zeros(len(at), dtype=bool)
        for row in gains:
            hit |= (at <= row).all(1)
        inside += int(hit.sum())
    return float(box.prod()) * inside / samples


def _matrix(points: Tensor | Sequence[Sequence[float]], name: str) -> Tensor:
    values = torch.as_tensor(points, dtype=torch.float64).detach().cpu()
    if values.dim() != 2 or values.shape[1] == 0:
        raise ValueError(
            f"{name} must be a matrix with one row a point and one column a task, not {tuple(values.shape)}"
        )
    return values
