"""What a route delivers: the tasks' gradients in some form, and how a choice of weights becomes ``.grad``.

A route computes; it writes nothing until it is told the weights, so a step that fails leaves every ``.grad``
as it was.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from motet.linalg import combine, gram

HeadGradients = list[list[tuple[Tensor, Tensor]]]
"""For every task the parameters of its head, each with its own gradient."""


class TaskGradients(ABC):
    """The gradients of K tasks as a route knows them.

    Attributes:
        rows: (K, P): what the Gram matrix and the direction are made of on this route.
        heads: Every task's own gradients outside the trunk.
        uses: For every task which shared parameters it uses, where the route knows; layers that have no rows come
            last, one entry each.
        trunk_backwards: Backward passes through the whole trunk, the one in `write` included.
        head_backwards: Backward passes through heads alone.
    """

    rows: Tensor
    heads: HeadGradients
    uses: Sequence[Sequence[bool]] = ()
    trunk_backwards: int
    head_backwards: int

    @property
    def factor(self) -> float:
        """What the Gram matrix is multiplied by, so that it is about as large as that of the trunk's gradients."""
        return 1.0

    @property
    def users(self) -> list[int]:
        """By how many tasks each shared parameter is used."""
        return [sum(column) for column in zip(*self.uses, strict=True)]

    def gram(self) -> Tensor:
        """G = J Jᵀ of this route's rows: (K, K), float64."""
        return gram(self.rows)

    def keep(self, tasks: Sequence[int]) -> None:
        """Forget all other tasks, as if they had been absent."""
        self.rows = self.rows[list(tasks)]
        self.heads = [self.heads[k] for k in tasks]
        self.uses = [self.uses[k] for k in tasks] if self.uses else ()

    def finite(self, gram: Tensor) -> Tensor:
        """Which tasks' gradients are finite, in their rows and in their heads: (K,) bool."""
        fine = gram.diagonal().isfinite()
        gradients = [dense_values(gradient) for head in self.heads for _, gradient in head]
        if gradients:
            owners = torch.tensor([task for task, head in enumerate(self.heads) for _ in head], device=fine.device)
            sums = torch.stack([norm.to(fine.device) for norm in torch._foreach_norm(gradients)])
            fine[owners[~sums.isfinite()]] = False
        return fine

    def write(self, weights: Tensor, scale: Tensor) -> None:
        """Add Σ wₖ gₖ to the trunk's ``.grad``, and each head's own gradient times ``scale``: (K,), (K,)."""
        self._write_trunk(combine(weights, self.rows))
        self._write_heads(scale)

    def write_direction(self, direction: Tensor, scale: Tensor) -> None:
        """Add a direction of this route's space to the trunk's ``.grad``: (P,); heads as in `write`."""
        # A copy, since a method may return a row of the buffer, or its own state.
        self._write_trunk(direction.clone())
        self._write_heads(scale)

    def _write_heads(self, scale: Tensor) -> None:
        for task, head in enumerate(self.heads):
            if head:
                parameters, gradients = zip(*head, strict=True)
                factor = scale[task].to(gradients[0].device)
                if any(gradient.is_sparse for gradient in gradients):
                    scaled = tuple(gradient * factor.to(gradient) for gradient in gradients)
                else:
                    scaled = torch._foreach_mul(gradients, factor)
                for parameter, gradient in zip(parameters, scaled, strict=True):
                    accumulate(parameter, gradient)

    @abstractmethod
    def _write_trunk(self, direction: Tensor) -> None: ...


def dense_values(gradient: Tensor) -> Tensor:
    """The numbers of a gradient, which may be an embedding's sparse one."""
    return gradient.coalesce().values() if gradient.is_sparse else gradient


def accumulate(parameter: Tensor, gradient: Tensor) -> None:
    """``parameter.grad += gradient``; a first gradient is taken as it is, so it must be nobody else's memory."""
    if parameter.grad is None and gradient.layout != torch.strided:
        parameter.grad = gradient.detach().to(parameter.dtype)
    elif parameter.grad is None:
        parameter.grad = gradient.detach().to(parameter.dtype).reshape(parameter.shape)
    else:
        parameter.grad += gradient


def accumulate_row(parameters: Sequence[Tensor], users: Sequence[int], row: Tensor) -> None:
    """Add the parts of a row to the parameters that they belong to; those without users stay untouched."""
    for parameter, part, count in zip(parameters, row.split([p.numel() for p in parameters]), users, strict=False):
        if count:
            accumulate(parameter, part.view(parameter.shape))


class NoPathError(ValueError):
    """The loss of the tasks with these indices does not depend on the trunk as it was declared."""

    def __init__(self, tasks: list[int]) -> None:
        super().__init__(f"no gradient path for the tasks {tasks}")
        self.tasks = tasks


def empty_rows(count: int, shapes: Sequence[Tensor], reuse: Tensor | None, like: Tensor | None = None) -> Tensor:
    """An uninitialised (K, P) buffer for the given tensors: the former one where it fits.

    Args:
        count: K.
        shapes: The tensors that one row holds, one after another.
        reuse: The former buffer.
        like: Where ``shapes`` may be empty, what gives device and dtype.
    """
    width = sum(tensor.numel() for tensor in shapes)
    first = shapes[0] if shapes else like
    assert first is not None
    dtype = first.dtype
    for tensor in shapes:
        dtype = torch.promote_types(dtype, tensor.dtype)
    if reuse is not None and len(reuse) >= count and reuse.shape[1] == width:
        return reuse.to(first.device, dtype)[:count]
    return torch.empty(count, width, dtype=dtype, device=first.device)


def fill(row: Tensor, shapes: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    """Lay gradients out in one row, with zeros for those that are None."""
    dense = [g if g is None or g.layout == torch.strided else g.to_dense() for g in gradients]
    whole = [gradient.reshape(-1) for gradient in dense if gradient is not None]
    if len(whole) == len(shapes) and whole:
        torch.cat(whole, out=row)  # A third of the time of copying one by one.
        return
    for part, shape, gradient in zip(row.split([t.numel() for t in shapes]), shapes, dense, strict=True):
        if gradient is None:
            part.zero_()
        else:
            part.view(shape.shape).copy_(gradient)
