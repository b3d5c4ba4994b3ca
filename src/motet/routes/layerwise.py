"""The exact route without weight gradients: the Gram matrix of linear layers from what goes in and what comes back."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

from motet.linalg import as_double, combine, gram
from motet.routes.base import HeadGradients, NoPathError, TaskGradients, accumulate, accumulate_row, empty_rows, fill
from motet.routes.exact import Exact
from motet.routes.graph import nodes, outside


@dataclass
class Linear:
    """One use of a linear layer, y = A Wᵀ + b, as the autograd graph knows it.

    Attributes:
        node: Its node in the graph.
        inputs: A: (N, in), N the rows of the batch, or rows times positions.
        weight: W: (out, in).
        bias: b: (out,), or None where there is none to train.
    """

    node: Node
    inputs: Tensor
    weight: Tensor
    bias: Tensor | None

    def parameters(self) -> list[Tensor]:
        """W, and b where there is one."""
        return [self.weight] if self.bias is None else [self.weight, self.bias]

    def gram(self, cotangents: Tensor) -> Tensor:
        r"""Gram matrix of the tasks' gradients of W and b, from Δₖ = ∂Lₖ/∂y.

        ∂Lₖ/∂W = ΔₖᵀA, so ⟨ΔₖᵀA, ΔₗᵀA⟩ = ⟨Δₖ, (A Aᵀ) Δₗ⟩: with fewer rows than inputs that is less work, and
        no gradient of a weight is ever formed. A bias adds 1 to A Aᵀ.

        Shapes:
            cotangents (K, N, out) → (K, K), float64.
        """
        tasks, rows, _ = cotangents.shape
        if rows < self.inputs.shape[1]:
            # Products of half-precision numbers would not survive in their own dtype.
            wide = torch.promote_types(cotangents.dtype, torch.float32)
            inputs, cotangents = self.inputs.to(wide), cotangents.to(wide)
            kernel = inputs @ inputs.T
            if self.bias is not None:
                kernel += 1
            return as_double((kernel @ cotangents).view(tasks, -1) @ cotangents.reshape(tasks, -1).T)
        total = gram((cotangents.transpose(1, 2) @ self.inputs).view(tasks, -1))
        return total if self.bias is None else total + gram(cotangents.sum(1))


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
        self.cotangents = [layer.inputs.new_empty(len(losses), *_outputs(layer)) for layer in layers]
        self.users = [0] * (len(rest) + len(layers))
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
            known = zip(self.users, (*at_rest, *at_layers), strict=True)
            self.users = [users + (gradient is not None) for users, gradient in known]
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
            total = total + layer.gram(cotangents)
        return total

    def keep(self, tasks: Sequence[int]) -> None:
        """As the base class does, for the cotangents too."""
        super().keep(tasks)
        self.cotangents = [cotangents[list(tasks)] for cotangents in self.cotangents]

    def write(self, weights: Tensor, scale: Tensor) -> None:
        """As the base class does; the weight gradients are formed here, once for all tasks."""
        self._write_trunk(combine(weights, self.rows))
        self._write_heads(scale)
        for layer, cotangents in zip(self.layers, self.cotangents, strict=True):
            together = combine(weights, cotangents)
            accumulate(layer.weight, together.T @ layer.inputs)
            if layer.bias is not None:
                accumulate(layer.bias, together.sum(0))

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
    """The linear layers among the shared parameters whose weight and bias the graph uses exactly once.

    A weight that is used twice has a gradient that is the sum of two products, for which the Gram matrix of
    one is not enough; and a hook on a weight changes its gradient. Both are left to the rows.
    """
    trunk = {id(parameter): parameter for parameter in shared}
    found: list[Linear] = []
    uses: dict[int, int] = {}
    for node in nodes(losses):
        for following, _ in node.next_functions:
            if (leaf := _leaf(following)) is not None:
                uses[id(leaf)] = uses.get(id(leaf), 0) + 1
        if (layer := _as_linear(node)) is not None and all(id(parameter) in trunk for parameter in layer.parameters()):
            found.append(layer)
    # One transposed weight may enter several products: then its leaf has one edge and several layers.
    held = Counter(id(parameter) for layer in found for parameter in layer.parameters())

    def plain(parameter: Tensor) -> bool:
        return uses[id(parameter)] == held[id(parameter)] == 1 and not parameter._backward_hooks

    return [layer for layer in found if all(map(plain, layer.parameters()))]


def _as_linear(node: Node) -> Linear | None:
    """The linear layer that a node is, if its weight and bias are leaves: ``addmm(b, A, Wᵀ)`` or ``mm(A, Wᵀ)``."""
    bias: Tensor | None = None
    if node.name() == "AddmmBackward0" and node._saved_alpha == node._saved_beta == 1:  # type: ignore[attr-defined]
        before, inputs = node.next_functions[0][0], node._saved_mat1  # type: ignore[attr-defined]
        bias = _leaf(before)
        if before is not None and (bias is None or bias.dim() != 1):
            return None
    elif node.name() == "MmBackward0":
        inputs = node._saved_self  # type: ignore[attr-defined]
    else:
        return None
    transpose = node.next_functions[-1][0]
    if transpose is None or transpose.name() != "TBackward0":
        return None
    weight = _leaf(transpose.next_functions[0][0])
    # Detached: what went in hangs on the graph that is about to be freed.
    return None if weight is None else Linear(node, inputs.detach(), weight, bias)


def worth_it(layers: Sequence[Linear], shared: Sequence[Tensor]) -> bool:
    """Whether cotangents take less room than gradients, and linear layers hold most of the parameters."""
    parameters = sum(layer.weight.numel() for layer in layers)
    cotangents = sum(layer.inputs.shape[0] * layer.weight.shape[0] for layer in layers)
    return cotangents < parameters and 2 * parameters > sum(parameter.numel() for parameter in shared)


def _leaf(node: Node | None) -> Tensor | None:
    if node is None or not node.name().endswith("AccumulateGrad"):
        return None
    leaf: Tensor = node.variable  # type: ignore[attr-defined]
    return leaf


def _outputs(layer: Linear) -> tuple[int, int]:
    return layer.inputs.shape[0], layer.weight.shape[0]
