"""The exact route: one backward pass a task, each into one row of one K×P buffer."""

from collections.abc import Sequence

import torch
from torch import Tensor

from motet.linalg import combine, gram
from motet.routes.base import NoPathError, TaskGradients, accumulate_row, empty_rows, fill
from motet.routes.graph import outside


class Exact(TaskGradients):
    """Gradients of every task with respect to all shared parameters.

    Time is about (1 + 2K)/3 of a plain step, memory K·P for the rows and no second copy of them. Parameters
    that no loss uses stay untouched, as in a plain backward pass.
    """

    def __init__(
        self,
        losses: Sequence[Tensor],
        shared: Sequence[Tensor],
        reuse: Tensor | None = None,
        *,
        second: Sequence[Tensor | None] = (),
        retain: bool = False,
    ) -> None:
        """Run the backward passes.

        Args:
            losses: K scalars.
            shared: Leaves that require a gradient.
            reuse: An earlier step's rows, to be overwritten.
            second: Losses of the same tasks on a second batch, None for those without: K more rows, and no
                gradients of heads.
            retain: Whether the graph of ``losses`` must live on.

        Raises:
            NoPathError: if a loss depends on none of the shared parameters.
        """
        trunk = {id(parameter) for parameter in shared}
        heads = outside(losses, trunk)
        inputs = [*shared, *heads]
        self.shared = list(shared)
        self.paired = bool(second)
        self.rows = empty_rows(len(losses) + len(second), shared, reuse)
        self.heads = []
        self.uses: list[list[bool]] = []
        self.trunk_backwards = len(losses)
        pathless = []
        # Before the first batch, in whose graph the second's losses may lie.
        for task, other in enumerate(second, start=len(losses)):
            if other is None:
                self.rows[task].zero_()
                continue
            found = torch.autograd.grad(other, shared, retain_graph=True, allow_unused=True)
            if all(gradient is None for gradient in found):
                pathless.append(task - len(losses))
            fill(self.rows[task], shared, found)
            self.trunk_backwards += 1
        for task, loss in enumerate(losses):
            last = task == len(losses) - 1
            gradients = torch.autograd.grad(loss, inputs, retain_graph=retain or not last, allow_unused=True)
            mine = gradients[: len(shared)]
            if all(gradient is None for gradient in mine):
                pathless.append(task)
            fill(self.rows[task], shared, mine)
            self.uses.append([gradient is not None for gradient in mine])
            rest = zip(heads, gradients[len(shared) :], strict=True)
            self.heads.append([(parameter, gradient) for parameter, gradient in rest if gradient is not None])
        if pathless:
            raise NoPathError(sorted(set(pathless)))
        self.head_backwards = 0

    def blocks(self, sizes: Sequence[int]) -> Tensor:
        """Gram matrices of runs of ``sizes`` shared parameters: (L, K, K), float64. They add up to `gram`."""
        return torch.stack([gram(part) for part in self.rows.split(self._widths(sizes), dim=1)])

    def write_blocks(self, weights: Tensor, sizes: Sequence[int], scale: Tensor) -> None:
        """As `write`, with weights of their own for every block of `blocks`: (L, K)."""
        parts = self.rows.split(self._widths(sizes), dim=1)
        self._write_trunk(torch.cat([combine(w, part) for w, part in zip(weights.unbind(), parts, strict=True)]))
        self._write_heads(scale)

    def finite(self, gram: Tensor) -> Tensor:
        """As the base class; of a pair both must be."""
        if not self.paired:
            return super().finite(gram)
        fine = gram.diagonal().isfinite().view(2, -1).all(0)
        return fine & super().finite(gram[: len(fine), : len(fine)])

    def keep(self, tasks: Sequence[int]) -> None:
        """As the base class, with the rows of the second batch."""
        first = list(tasks)
        second = [len(self.heads) + task for task in first] if self.paired else []
        self.rows = self.rows[first + second]
        self.heads = [self.heads[task] for task in first]
        self.uses = [self.uses[task] for task in first]

    def _widths(self, sizes: Sequence[int]) -> list[int]:
        numbers = torch.tensor([parameter.numel() for parameter in self.shared])
        return [int(part.sum()) for part in numbers.split(list(sizes))]

    def _write_trunk(self, direction: Tensor) -> None:
        accumulate_row(self.shared, self.users, direction)
