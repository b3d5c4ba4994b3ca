"""One backward pass for weights that are known before it: from the method's state, or because they are constant."""

from collections.abc import Sequence

import torch
from torch import Tensor

from motet.routes.base import NoPathError, accumulate, dense_values
from motet.routes.graph import leaves, outside


class Weighted:
    """Σ wₖgₖ for the trunk, every head's own gradient times its scale: one pass of the trunk, two of the heads.

    Where weights and scale are one tensor, as for a method that weights losses, one pass does both.

    Attributes:
        shared: The shared parameters.
        direction: d = Jᵀw, one part a shared parameter; None for one that no loss uses.
        heads: All other parameters under the losses, each with its gradient.
    """

    trunk_backwards = 1

    def __init__(
        self,
        losses: Sequence[Tensor],
        weights: Tensor,
        scale: Tensor,
        shared: Sequence[Tensor],
        heads: Sequence[Tensor] | None = None,
        direction: Sequence[Tensor | None] | None = None,
    ) -> None:
        """Run the backward passes; nothing is written. The graph is freed, as by ``backward()``.

        Args:
            losses: K scalars.
            weights: w: (K,).
            scale: What every head's own gradient is multiplied by: (K,). The weights' own tensor saves a pass.
            shared: The shared parameters, such as `motet.routes.leaves` of the features.
            heads: All other parameters under the losses, if they are known; found in the graph otherwise.
            direction: Jᵀw if that has been computed already; the graph is then kept.

        Raises:
            NoPathError: if no loss depends on any shared parameter.
        """
        self.losses, self.shared, self.weights = list(losses), list(shared), weights
        own = outside(losses, {id(parameter) for parameter in shared}) if heads is None else list(heads)
        if direction is None and weights is scale:
            found = backward_of(losses, [*shared, *own], weights, keep=False)
            alone, direction = found[len(shared) :], found[: len(shared)]
            self.head_backwards = 0
        else:
            # The heads first: a compiled trunk can be gone through once only, and not at all if it is to be kept.
            alone = backward_of(losses, own, scale, keep=True)
            self.head_backwards = int(bool(own))
            if direction is None:
                direction = backward_of(losses, shared, weights, keep=False)
        if all(part is None for part in direction):
            raise NoPathError(list(range(len(self.losses))))
        self.direction = list(direction)
        self.heads = [(p, gradient) for p, gradient in zip(own, alone, strict=True) if gradient is not None]

    def finite(self) -> Tensor:
        """Whether every gradient is finite: () bool."""
        return all_finite([*self.direction, *(gradient for _, gradient in self.heads)])

    def culprits(self) -> list[int]:
        """The tasks whose gradient is not finite, for the error message.

        One pass for all tasks shows whose head is at fault. Where only the trunk's gradient is not finite it can't be
        told apart any more: these are all tasks that have a weight.
        """
        bad = {id(parameter) for parameter, gradient in self.heads if not all_finite([gradient])}
        found = [
            task
            for task, loss in enumerate(self.losses)
            if any(id(leaf) in bad for leaf in leaves(loss, stop=self.shared))
        ]
        return found or [task for task, weight in enumerate(self.weights.tolist()) if weight != 0]

    def write(self) -> None:
        """Add everything to the parameters' ``.grad``."""
        found = [(p, part.detach()) for p, part in zip(self.shared, self.direction, strict=True) if part is not None]
        taken: set[int] = set()
        for parameter, gradient in [*found, *self.heads]:
            accumulate(parameter, _own(gradient, taken))


def _own(gradient: Tensor, taken: set[int]) -> Tensor:
    """A gradient in memory of its own: the engine may give one tensor for two parameters, or one number for all."""
    if gradient.layout != torch.strided:
        return gradient
    storage = gradient.untyped_storage()
    if storage.data_ptr() in taken or storage.nbytes() != gradient.numel() * gradient.element_size():
        return gradient.clone(memory_format=torch.contiguous_format)
    taken.add(storage.data_ptr())
    return gradient


def all_finite(gradients: Sequence[Tensor | None]) -> Tensor:
    """Whether all are finite, without a look at the host: () bool."""
    known = [dense_values(gradient) for gradient in gradients if gradient is not None]
    if not known:
        return torch.tensor(True)
    # A norm may overflow where no entry is infinite; that is as bad for whoever steps along it.
    norms = torch._foreach_norm([gradient.detach() for gradient in known])
    return torch.stack([norm.to(norms[0]) for norm in norms]).isfinite().all()


def factors(losses: Sequence[Tensor], weights: Tensor) -> list[Tensor]:
    """The weights as cotangents of the losses."""
    return [weight.to(loss) for weight, loss in zip(weights.unbind(), losses, strict=True)]


def backward_of(
    losses: Sequence[Tensor], inputs: Sequence[Tensor], weights: Tensor, keep: bool
) -> tuple[Tensor | None, ...]:
    """Gradients of Σ wₖLₖ; ``keep``: whether the graph is needed again."""
    if not inputs:
        return ()
    return torch.autograd.grad(
        list(losses), list(inputs), factors(losses, weights), retain_graph=keep, allow_unused=True
    )
