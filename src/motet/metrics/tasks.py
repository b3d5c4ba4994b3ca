"""Metrics of one task on one part of the data, over the labelled rows."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from motet.losses.masked import labelled

if TYPE_CHECKING:
    from motet.problems.base import Kind, Task

# torchmetrics is imported where it is used: it takes a second, which `motet --help` should not wait for.


@dataclass(frozen=True)
class Metric:
    """How a task is judged.

    Calling it with outputs (N, task.outputs), targets (N,) and the task gives a float: NaN where nothing
    is labelled, where the metric is undefined on these labels, and where an output is NaN, since a model
    that diverged has no accuracy.
    """

    name: str
    title: str
    higher_is_better: bool
    kinds: tuple["Kind", ...]
    function: Callable[[Tensor, Tensor, "Task"], float]
    """On labelled rows and finite-or-infinite outputs alone; `__call__` sees to both."""

    def __call__(self, outputs: Tensor, targets: Tensor, task: "Task") -> float:
        """Judge one task: (N, task.outputs), (N,) → float.

        Raises:
            ValueError: if the metric is not for this kind of task.
        """
        if task.kind not in self.kinds:
            raise ValueError(
                f"task {task.name!r} is {task.kind} and can't be judged by {self.name!r}, "
                f"which is for {' and '.join(self.kinds)} tasks"
            )
        rows = labelled(task, targets)
        outputs, targets = outputs.detach()[rows], targets[rows]
        if not len(targets) or bool(outputs.isnan().any()):
            return math.nan
        return self.function(outputs, targets, task)


def _accuracy(outputs: Tensor, targets: Tensor, task: "Task") -> float:
    from torchmetrics.functional.classification import binary_accuracy, multiclass_accuracy

    if task.kind == "binary":
        return float(binary_accuracy((outputs.squeeze(1) > 0).long(), targets.long()))
    return float(multiclass_accuracy(outputs, targets, num_classes=task.classes, average="micro"))


def _auroc(outputs: Tensor, targets: Tensor, task: "Task") -> float:  # noqa: ARG001  the signature of all metrics
    from torchmetrics.functional.classification import binary_auroc

    if targets.min() == targets.max():
        return math.nan
    # By rank: a sigmoid in float32 would make ties of all logits above 17 or so.
    ranks: Tensor = torch.unique(outputs.squeeze(1), return_inverse=True)[1]
    return float(binary_auroc(ranks.double() / len(ranks), targets.long()))


def _mae(outputs: Tensor, targets: Tensor, task: "Task") -> float:
    from torchmetrics.functional import mean_absolute_error

    return float(mean_absolute_error(outputs.squeeze(1).double(), targets.double())) * task.scale


def _rmse(outputs: Tensor, targets: Tensor, task: "Task") -> float:
    from torchmetrics.functional import mean_squared_error

    return float(mean_squared_error(outputs.squeeze(1).double(), targets.double(), squared=False)) * task.scale


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "accuracy", True, ("binary", "multiclass"), _accuracy),
        Metric("auroc", "AUROC", True, ("binary",), _auroc),
        Metric("mae", "MAE", False, ("regression",), _mae),
        Metric("rmse", "RMSE", False, ("regression",), _rmse),
    )
}
"""By name. Accuracy is the share of rows that are right, AUROC the chance that a positive row is ranked above
a negative one; MAE and RMSE are in the target's own unit, the standardised error times ``task.scale``."""
