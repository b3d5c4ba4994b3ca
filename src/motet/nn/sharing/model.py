"""A sharing architecture with its tasks' heads."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from motet.nn.sharing.base import Info, Sharing


class SharedModel(nn.Module):
    """Features for every task, and a head on each.

    Args:
        sharing: Any `Sharing`. It is ``model.trunk``.
        heads: {task: module} for each of its tasks.

    Raises:
        ValueError: if the heads are not those of the tasks.

    Shapes:
        x (B, …) → features for ``Balancer.backward(features=…)``, {task: (B, …)}.

    >>> import torch
    >>> from motet.nn.sharing import MMoE
    >>> sharing = MMoE(nn.Linear(3, 4), tasks=["a", "b"], experts=2)
    >>> model = SharedModel(sharing, {task: nn.Linear(4, 1) for task in sharing.tasks})
    >>> features, outputs = model(torch.ones(5, 3))
    >>> [tuple(tap.shape) for tap in features], tuple(outputs["a"].shape)
    ([(5, 2, 4)], (5, 1))
    """

    def __init__(self, sharing: Sharing, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        if set(heads) != set(sharing.tasks):
            raise ValueError(f"there must be a head for each of {', '.join(sharing.tasks)}, not for {', '.join(heads)}")
        self.trunk = sharing
        self.tasks = sharing.tasks
        # Not a ModuleDict, which forbids names with dots and those of its own methods.
        self.heads = nn.ModuleList(heads[task] for task in self.tasks)

    def forward(self, inputs: Any) -> tuple[Tensor | list[Tensor], dict[str, Tensor]]:
        """See the class."""
        outputs, info = self.explain(inputs)
        return info["features"], outputs

    def explain(self, inputs: Any) -> tuple[dict[str, Tensor], Info]:
        """The outputs, and what the architecture has to show of them: its regularisers too."""
        features, info = self.trunk(inputs)
        return {task: head(features[task]) for task, head in zip(self.tasks, self.heads, strict=True)}, info
