"""Small models with a trunk and one head a task, for tests of group updates."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

TASKS = ("a", "b", "c", "d")


class Heads(nn.Module):
    """An optional layer between two linear ones, and a linear head a task."""

    def __init__(self, tasks: Sequence[str] = TASKS, middle: nn.Module | None = None, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.trunk = nn.Sequential(nn.Linear(5, 8), middle or nn.Identity(), nn.Tanh())
        self.heads = nn.ModuleDict({task: nn.Linear(8, 1) for task in tasks})

    def losses(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Mean squared errors: column k of y is task k's."""
        z = self.trunk(x)
        return {task: (head(z)[:, 0] - y[:, k]).pow(2).mean() for k, (task, head) in enumerate(self.heads.items())}

    def closure(self, x: Tensor, y: Tensor) -> Callable[[], dict[str, Tensor]]:
        return lambda: self.losses(x, y)


def batch(step: int = 0, tasks: int = 4, rows: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(rows, 5, generator=generator)
    return x, torch.randn(rows, tasks, generator=generator) + 2
