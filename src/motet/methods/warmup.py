"""What methods share that must see a task for some steps before they can weight it."""

import torch
from torch import Tensor

from motet.methods.base import Method


def starting_level(method: Method, losses: Tensor, warmup: int) -> tuple[Tensor, Tensor]:
    """The mean of each task's first ``warmup`` losses, and whether it was complete before this step.

    Every task counts its own steps, so that one that joins late warms up alone.

    Shapes:
        losses (K,) → level (K,), ready (K,) bool.
    """
    level = method.recall("level", losses, 0.0)
    seen = method.recall("seen", losses, 0.0)
    ready = seen >= warmup
    level = torch.where(ready, level, level + (losses - level) / (seen + 1))
    method.remember("level", level)
    method.remember("seen", seen + 1)
    return level, ready


def shares(logits: Tensor, ready: Tensor) -> Tensor:
    """n·softmax over the n tasks that are ready and 1 for the others, K in sum: (K,), (K,) bool → (K,)."""
    return torch.where(ready, ready.sum() * logits.where(ready, -torch.inf).softmax(0), 1.0)
