"""The features route: the tasks' gradients at the shared representation, then one backward pass of the trunk."""

from collections.abc import Sequence

import torch
from torch import Tensor

from motet.linalg import gram
from motet.routes.base import NoPathError, TaskGradients, empty_rows, fill


class Features(TaskGradients):
    """Gradients of every task with respect to the features, as rows of length B·d.

    About the cost of a plain step, whatever K is. ``‖J‖`` at the features bounds the trunk's gradients from
    above, up to the trunk's own Jacobian: angles are near the exact ones where conflict is weak, norms are
    not, and a promise of no conflict holds at the features only.
    """

    def __init__(
        self,
        losses: Sequence[Tensor],
        heads: Sequence[Sequence[Tensor]],
        taps: Sequence[Tensor],
        reuse: Tensor | None = None,
    ) -> None:
        """Run the heads' backward passes, one a task.

        Args:
            losses: K scalars.
            heads: Every loss's parameters above the features.
            taps: The features.
            reuse: An earlier step's rows, to be overwritten.

        Raises:
            NoPathError: if a loss does not depend on the features.
        """
        self.taps = list(taps)
        self.rows = empty_rows(len(losses), taps, reuse)
        self.heads = []
        pathless = []
        for task, (loss, head) in enumerate(zip(losses, heads, strict=True)):
            last = task == len(losses) - 1
            gradients = torch.autograd.grad(loss, [*taps, *head], retain_graph=not last, allow_unused=True)
            mine = gradients[: len(taps)]
            if all(gradient is None for gradient in mine):
                pathless.append(task)
            fill(self.rows[task], taps, mine)
            rest = zip(head, gradients[len(taps) :], strict=True)
            self.heads.append([(parameter, gradient) for parameter, gradient in rest if gradient is not None])
        if pathless:
            raise NoPathError(pathless)
        self.trunk_backwards = 1
        self.head_backwards = len(losses)

    def _write_trunk(self, direction: Tensor) -> None:
        parts = direction.split([tap.numel() for tap in self.taps])
        cotangents = [part.view(tap.shape).to(tap.dtype) for tap, part in zip(self.taps, parts, strict=True)]
        torch.autograd.backward(self.taps, cotangents)


class LastLayer(Features):
    """The features route with the exact Gram matrix of the trunk's last layer.

    From the gradients at the features each task's gradient of the last layer's parameters is one partial
    backward pass away. Unlike the Gram matrix at the features it sums over samples before it takes inner
    products, so norms and angles stay near the exact route's also under strong conflict.
    """

    def __init__(
        self,
        losses: Sequence[Tensor],
        heads: Sequence[Sequence[Tensor]],
        taps: Sequence[Tensor],
        layer: Sequence[Tensor],
        reuse: Tensor | None = None,
    ) -> None:
        """As `Features`; ``layer``: the last layer's parameters, see `motet.routes.graph.last_layer`."""
        super().__init__(losses, heads, taps, reuse)
        self.layer = empty_rows(len(losses), layer, None)
        for task in range(len(losses)):
            parts = self.rows[task].split([tap.numel() for tap in taps])
            cotangents = [part.view(tap.shape).to(tap.dtype) for tap, part in zip(taps, parts, strict=True)]
            gradients = torch.autograd.grad(taps, layer, cotangents, retain_graph=True, allow_unused=True)
            fill(self.layer[task], layer, gradients)

    def gram(self) -> Tensor:
        """G of the last layer's gradients: (K, K), float64."""
        return gram(self.layer)

    def keep(self, tasks: Sequence[int]) -> None:
        """As the base class does, for the last layer's rows too."""
        super().keep(tasks)
        self.layer = self.layer[list(tasks)]
