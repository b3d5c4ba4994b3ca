"""The exact route: one backward pass a task, each into one row of one K×P buffer."""

from collections.abc import Sequence

import torch
from torch import Tensor

from motet.routes.base import NoPathError, TaskGradients, accumulate_row, empty_rows, fill
from motet.routes.graph import outside


class Exact(TaskGradients):
    """Gradients of every task with respect to all shared parameters.

    Time is about (1 + 2K)/3 of a plain step, memory K·P for the rows and no second copy of them. Parameters
    that no loss uses stay untouched, as in a plain backward pass.
    """

    def __init__(self, losses: Sequence[Tensor], shared: Sequence[Tensor], reuse: Tensor | None = None) -> None:
        """Run the backward passes. ``losses``: K scalars; ``shared``: leaves that require a gradient.

        Raises:
            NoPathError: if a loss depends on none of the shared parameters.
        """
        trunk = {id(parameter) for parameter in shared}
        heads = outside(losses, trunk)
        inputs = [*shared, *heads]
        self.shared = list(shared)
        self.rows = empty_rows(len(losses), shared, reuse)
        self.heads = []
        self.users = [0] * len(shared)
        pathless = []
        for task, loss in enumerate(losses):
            last = task == len(losses) - 1
            gradients = torch.autograd.grad(loss, inputs, retain_graph=not last, allow_unused=True)
            mine = gradients[: len(shared)]
            if all(gradient is None for gradient in mine):
                pathless.append(task)
            fill(self.rows[task], shared, mine)
            self.users = [users + (gradient is not None) for users, gradient in zip(self.users, mine, strict=True)]
            rest = zip(heads, gradients[len(shared) :], strict=True)
            self.heads.append([(parameter, gradient) for parameter, gradient in rest if gradient is not None])
        if pathless:
            raise NoPathError(pathless)
        self.trunk_backwards = len(losses)
        self.head_backwards = 0

    def _write_trunk(self, direction: Tensor) -> None:
        accumulate_row(self.shared, self.users, direction)
