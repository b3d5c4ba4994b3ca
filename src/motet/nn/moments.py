"""Sums over the processes of a distributed run, with gradients."""

from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist


class _AllSum(torch.autograd.Function):
    # torch.distributed.nn.functional has one, deprecated in favour of a private module.

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
        # Every process has its own copy of what was made of the sum: the gradients of all copies are added up, and
        # the mean over processes that DDP takes afterwards is the gradient of one copy.
        return all_sum(gradient)


def is_shared() -> bool:
    """Whether there is another process to share sums with."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def all_sum(x: Tensor) -> Tensor:
    """Σ over the processes: x (…) → (…). All of them must call it, with the same shape."""
    total: Tensor = _AllSum.apply(x)  # type: ignore[no-untyped-call]
    return total


def sums(*tensors: Tensor, everywhere: bool = False) -> tuple[Tensor, ...]:
    """Each tensor summed over its first dimension and, if asked for, over all processes, in one exchange."""
    local = [x.sum(0) for x in tensors]
    if not everywhere:
        return tuple(local)
    parts = all_sum(torch.cat([x.flatten() for x in local])).split([x.numel() for x in local])
    return tuple(part.view_as(x) for part, x in zip(parts, local, strict=True))


def mean_of_present(values: Tensor, present: Tensor, everywhere: bool = False) -> Tensor:
    """Mean over the present entries, 0 if there are none: values and present (…) → ().

    Args:
        values: Anything where they are not present.
        present: Bool, of the same shape.
        everywhere: Whether the mean is one over the entries of all processes.
    """
    kept = torch.where(present, values, 0)
    total, count = sums(kept.flatten(), present.flatten().to(kept.dtype), everywhere=everywhere)
    return total / count.clamp(min=1)
