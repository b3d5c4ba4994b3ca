"""What several processes must agree on, or each would go its own way and wait for the others for ever."""

import zlib
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist


def processes() -> int:
    """How many there are: 1 where torch.distributed is not in use."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def largest(values: Tensor) -> Tensor:
    """The largest of every entry over all processes."""
    return values if processes() == 1 else _reduced(values, dist.ReduceOp.MAX)


def mean(values: Tensor) -> Tensor:
    """The mean of every entry over the processes in which it is finite; NaN where it is in none."""
    if processes() == 1:
        return values
    fine = values.isfinite()
    both = _reduced(torch.stack([values.where(fine, 0.0), fine.to(values)]), dist.ReduceOp.SUM)
    return both[0] / both[1]


def check(value: Any, what: str) -> None:
    """Raise a RuntimeError in every process unless all have the same value, compared by its text."""
    if processes() == 1:
        return
    mark = float(zlib.crc32(repr(value).encode()))
    if (largest(torch.tensor([mark, -mark], dtype=torch.float64)).sum() != 0).item():
        raise RuntimeError(f"the processes differ in {what}: give each the same options, seed and loaded state")


def _reduced(values: Tensor, operation: "dist.ReduceOp.RedOpType") -> Tensor:
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    found = values.to(device, copy=True)
    dist.all_reduce(found, operation)
    return found.cpu()
