"""From arrays to `Data`: whatever is fitted is fitted on the training part, here and only here."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from motet.problems.base import Data, Split, Task
from motet.problems.views import Inputs, Views

Array = NDArray[Any]
Triple = tuple[Array, Array, Array]
"""Training, validation and test."""


def cut(values: Array, parts: Triple) -> Triple:
    """The rows of each part."""
    train, validation, test = parts
    return values[train], values[validation], values[test]


def standardise(inputs: Triple) -> Triple:
    """Columns of mean 0 and deviation 1 in training: (N, D) each. A column that is constant there becomes 0."""
    mean, deviation = inputs[0].mean(axis=0, dtype=np.float64), inputs[0].std(axis=0, dtype=np.float64)
    constant = deviation <= 1e-8 * np.maximum(1, np.abs(mean))
    scale = np.where(constant, np.inf, deviation)
    train, validation, test = ((part - mean) / scale for part in inputs)
    return train, validation, test


def assemble(
    tasks: Sequence[Task],
    inputs: Triple | tuple[Views, Views, Views],
    targets: dict[str, Triple],
    notes: Sequence[str] = (),
) -> Data:
    """Tensors of all parts, with the regression targets standardised on training and their ``scale`` set.

    Args:
        tasks: Their ``scale`` is replaced.
        inputs: Ready for the model: (N, …) or `Views` each.
        targets: By task, (N,) for each part, in the target's own unit; NaN, or -1 for classes, is missing.
        notes: For `Data.notes`.

    Raises:
        ValueError: if a regression target has no variation in training, and so no scale.
    """
    scaled: list[Task] = []
    columns: list[dict[str, torch.Tensor]] = [{}, {}, {}]
    for task in tasks:
        values: Sequence[Array] = targets[task.name]
        if task.kind == "regression":
            mean, deviation = _moments(task, values[0])
            values = [(part.astype(np.float64) - mean) / deviation for part in values]
            task = replace(task, scale=deviation)
        scaled.append(task)
        dtype = torch.int64 if task.kind == "multiclass" else torch.float32
        for column, part in zip(columns, values, strict=True):
            column[task.name] = torch.as_tensor(part).to(dtype)
    ready: list[Inputs] = [part if isinstance(part, Views) else _tensor(part) for part in inputs]
    train, validation, test = (Split(part, column) for part, column in zip(ready, columns, strict=True))
    return Data(tuple(scaled), train, validation, test, tuple(notes))


def _tensor(part: Array) -> torch.Tensor:
    return torch.as_tensor(part).to(torch.float32)


def _moments(task: Task, values: Array) -> tuple[float, float]:
    known = values[~np.isnan(values)].astype(np.float64)
    deviation = float(known.std()) if len(known) else 0.0
    mean = float(known.mean()) if len(known) else 0.0
    if not deviation > 1e-12 * abs(mean):
        raise ValueError(
            f"target {task.name!r} has {'one value only' if len(known) else 'no label'} in the training part: "
            "take it out, or split another way"
        )
    return mean, deviation
