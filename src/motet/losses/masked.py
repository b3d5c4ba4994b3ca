"""Losses over the labelled rows of a batch."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss

if TYPE_CHECKING:
    from motet.problems.base import Task


def labelled(task: "Task", targets: Tensor) -> Tensor:
    """Which rows have a label: (N,) → bool (N,). Missing is -1 for classes and NaN for everything else."""
    return targets >= 0 if task.kind == "multiclass" else ~targets.isnan()


def task_loss(task: "Task", outputs: Tensor, targets: Tensor) -> Tensor | None:
    """Mean loss of one task over its labelled rows, or None where the batch has none.

    Mean squared error for regression, cross-entropy on logits for binary and multiclass tasks. None says
    that the task is absent, which is not the same as a loss of zero: a zero would still move Adam's
    momentum and decay a method's averages.

    The mean is over the labelled rows of *this* batch. Where processes hold different numbers of labels
    their average is not the mean over all rows: weight each loss by ``labelled(task, targets).sum()``.

    Args:
        task: Its kind chooses the loss, its name goes into errors.
        outputs: (N, task.outputs), raw: no sigmoid, no softmax. Half precision is raised to float32.
        targets: (N,), float with NaN for missing; int64 codes with -1 for missing where the kind is multiclass.

    Returns:
        A scalar in float32, or float64 for float64 outputs.

    Raises:
        ValueError: if the shapes do not fit. Broadcasting (N, 1) against (N,) would compare all with all.

    Cost:
        One wait for the device, since whether there is a loss at all depends on the labels.
    """
    if outputs.shape != (len(targets), task.outputs) or targets.ndim != 1:
        expected = f"outputs (N, {task.outputs}) and targets (N,)"
        raise ValueError(
            f"task {task.name!r} needs {expected}, and got {tuple(outputs.shape)} and {tuple(targets.shape)}"
        )
    rows = labelled(task, targets).nonzero().squeeze(1)
    if not len(rows):
        return None
    if len(rows) < len(targets):
        # Indexing, and not a product with the mask: 0·NaN is NaN, in the loss and in its gradient.
        outputs, targets = outputs[rows], targets[rows]
    outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
    if task.kind == "multiclass":
        return cross_entropy(outputs, targets)
    outputs, targets = outputs.squeeze(1), targets.to(outputs.dtype)
    return (binary_cross_entropy_with_logits if task.kind == "binary" else mse_loss)(outputs, targets)
