"""The exact route without weight gradients: the Gram matrix of linear layers from what goes in and what comes back."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from motet.linalg import combine, gram
from motet.routes.base import HeadGradients, NoPathError, TaskGradients, accumulate, accumulate_row, empty_rows, fill
from motet.routes.exact import Exact
from motet.routes.graph import outside
from motet.routes.layers import Linear, products


class Layerwise(TaskGradients):
    """Exact, as `motet.routes.Exact`, with K·N·out numbers a linear layer in place of K·in·out.

    Parameters of other layers have rows as on the exact route, so any trunk will do; it pays where linear
    layers with more inputs than the batch has rows hold most of the parameters.
    """

    def __init__(
        self,
        losses: Sequence[Tensor],
        layers: Sequence[Linear],
        rest: Sequence[Tensor],
        reuse: Tensor | None = None,
    ) -> None:
        """Run the backward passes.

        Args:
            losses: K scalars.
            layers: Linear layers of the trunk, as `linear_layers` finds them.
            rest: The shared parameters of all other layers.
            reuse: An earlier step's rows, to be overwritten.

        Raises:
            NoPathError: if a loss depends on none of the shared parameters.
        """
        covered = [parameter for layer in layers for parameter in layer.parameters()]
        heads = outside(losses, {id(parameter) for parameter in (*covered, *rest)})
        edges = [GradientEdge(layer.node, 0) for layer in layers]
        inputs = [*edges, *map(get_gradient_edge, (*rest, *heads))]
        self.layers, self.shared = list(layers), list(rest)
        self.rows = empty_rows(len(losses), rest, reuse, like=losses[0])
        self.cotangents = [layer.inputs.new_empty(len(losses), *layer.shape()[::2]) for layer in layers]
        self.uses: list[list[bool]] = []
        self.heads: HeadGradients = []
        pathless = []
        for task, loss in enumerate(losses):
            last = task == len(losses) - 1
            found = torch.autograd.grad(loss, inputs, retain_graph=not last, allow_unused=True)
            at_layers, at_rest = found[: len(edges)], found[len(edges) : len(edges) + len(rest)]
            if all(gradient is None for gradient in (*at_layers, *at_rest)):
                pathless.append(task)
            for stored, gradient in zip(self.cotangents, at_layers, strict=True):
                fill(stored[task].view(-1), [stored[task]], [gradient])
            fill(self.rows[task], rest, at_rest)
            self.uses.append([gradient is not None for gradient in (*at_rest, *at_layers)])
            own = zip(heads, found[len(edges) + len(rest) :], strict=True)
            self.heads.append([(parameter, gradient) for parameter, gradient in own if gradient is not None])
        if pathless:
            raise NoPathError(pathless)
        self.trunk_backwards = len(losses)
        self.head_backwards = 0

    def gram(self) -> Tensor:
        """G of all shared parameters: (K, K), float64."""
        total = gram(self.rows)
        for layer, cotangents in zip(self.layers, self.cotangents, strict=True):
            total = total + layer.product_gram(cotangents)
        return total

    def keep(self, tasks: Sequence[int]) -> None:
        """As the base class does, for the cotangents too."""
        super().keep(tasks)
        self.cotangents = [cotangents[list(tasks)] for cotangents in self.cotangents]

    def write(self, weights: Tensor, scale: Tensor) -> None:
        """As the base class does; the weight gradients are formed here, once for all tasks."""
        self._write_trunk(combine(weights, self.rows))
        self._write_heads(scale)
        of_layers = self.users[len(self.shared) :]
        for layer, cotangents, users in zip(self.layers, self.cotangents, of_layers, strict=True):
            if not users:
                continue
            found = layer.gradients(*layer.rows(combine(weights, cotangents)))
            for parameter, gradient in zip(layer.parameters(), found, strict=True):
                accumulate(parameter, gradient)

    def write_direction(self, *_: Tensor) -> None:
        """Refused: this way knows the products of the gradients, and no direction but their combinations."""
        raise TypeError("a direction of all parameters needs their rows: use motet.routes.Exact")

    def _write_trunk(self, direction: Tensor) -> None:
        accumulate_row(self.shared, self.users, direction)


def exact(losses: Sequence[Tensor], shared: Sequence[Tensor], rows: bool, reuse: Tensor | None) -> TaskGradients:
    """The exact route in the way that takes less room and work.

    Args:
        losses: K scalars.
        shared: The shared parameters.
        rows: Whether the method needs the gradients themselves, so that there is no choice.
        reuse: An earlier step's rows, to be overwritten.
    """
    layers = [] if rows else linear_layers(losses, shared)
    if not worth_it(layers, shared):
        return Exact(losses, shared, reuse)
    covered = {id(parameter) for layer in layers for parameter in layer.parameters()}
    return Layerwise(losses, layers, [parameter for parameter in shared if id(parameter) not in covered], reuse)


def linear_layers(losses: Sequence[Tensor], shared: Sequence[Tensor]) -> list[Linear]:
    """The linear layers among the shared parameters whose weight and bias the graph uses exactly once."""
    return [layer for layer in products(losses, shared) if isinstance(layer, Linear)]


def worth_it(layers: Sequence[Linear], shared: Sequence[Tensor]) -> bool:
    """Whether cotangents take less room than gradients, and linear layers hold most of the parameters."""
    shapes = [layer.shape() for layer in layers]
    parameters = sum(inputs * outputs for _, inputs, outputs in shapes)
    cotangents = sum(rows * outputs for rows, _, outputs in shapes)
    return cotangents < parameters and 2 * parameters > sum(parameter.numel() for parameter in shared)
