"""Which groups are updated in a batch, and in which order."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from motet.grouping.affinity import Affinity
from motet.grouping.partition import partition

logger = logging.getLogger("motet")

Order = Literal["shuffle", "theorem-5"]
Groups = list[list[int]]


class Schedule:
    """The partition of a batch: single tasks while warming up, then what the affinity says every so many batches.

    Args:
        affinity: Asked for its matrix and standard errors when it is time.
        method: Of `partition`, or a fixed partition by task numbers.
        warmup: Batches before the first regrouping.
        every: Batches from one regrouping to the next.
        explore: Share of the batches after the warm-up that take a random partition into as many groups, at least two.
        order: "shuffle", or "theorem-5": groups that harm others come before those.
        seed: Of the order, of random partitions and of `partition`.
        options: More for `partition`.
    """

    def __init__(
        self,
        affinity: Affinity,
        method: str | Groups,
        *,
        warmup: int,
        every: int,
        explore: float,
        order: Order,
        seed: int,
        options: dict[str, Any],
    ) -> None:
        self.affinity = affinity
        self.method = method
        self.warmup = warmup
        self.every = every
        self.explore = explore
        self.order = order
        self.seed = seed
        self.options = options
        self.batches = 0
        self._generator = torch.Generator().manual_seed(seed)
        self.learned = method in ("affinity-propagation", "correlation")
        self.partition: Groups = [[task] for task in range(len(affinity.tasks))]
        found = self._partition()  # Also of an affinity without measurements: wrong options show now.
        if not self.learned:
            self.partition = found  # It does not wait for measurements.

    def next(self) -> tuple[Groups, bool]:
        """The groups of this batch in their order, and whether the partition was found anew."""
        late = self.batches - self.warmup
        regrouped = late >= 0 and late % self.every == 0 and (self.learned or self.method == "random")
        if regrouped:
            self.partition = self._partition()
        groups, most = self.partition, self.options.get("max_groups") or len(self.affinity.tasks)
        if late < 0 and len(groups) > most:
            groups = self._random(most)
        elif late >= 0 and self._wants_exploration():
            groups = self._random(min(max(2, len(groups)), most))
        self.batches += 1
        return self._ordered(groups), regrouped

    def _partition(self) -> Groups:
        options = self.options
        if self.learned:
            return partition(self.affinity, self.method, previous=self.partition, seed=self.seed, **options)
        if self.method == "random":
            return partition(self.affinity, "random", seed=self.seed + self.batches, max_groups=options["max_groups"])
        return partition(self.affinity, self.method)

    def _wants_exploration(self) -> bool:
        return self.explore > 0 and float(torch.rand((), generator=self._generator)) < self.explore

    def _random(self, count: int) -> Groups:
        """A partition into at most so many groups, every task's drawn alone: any two tasks are met together and
        apart."""
        tasks = len(self.affinity.tasks)
        drawn = torch.randint(min(count, tasks), (tasks,), generator=self._generator).tolist()
        found: dict[int, list[int]] = {}
        for task, group in enumerate(drawn):
            found.setdefault(group, []).append(task)
        return list(found.values())

    def _ordered(self, groups: Groups) -> Groups:
        if len(groups) < 2:
            return groups
        if self.order == "shuffle":
            return [groups[index] for index in torch.randperm(len(groups), generator=self._generator).tolist()]
        return harmful_first(groups, self.affinity.matrix)

    def state_dict(self) -> dict[str, Any]:
        """{"method": str or [[int]], "partition": [[int]], "batches": int, "generator": Tensor}."""
        return {
            "method": self.method if isinstance(self.method, str) else [list(group) for group in self.method],
            "partition": [list(group) for group in self.partition],
            "batches": self.batches,
            "generator": self._generator.get_state(),
        }

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Raise a ValueError for a state that is incomplete or of another grouping or other tasks."""
        own = self.state_dict()
        if missing := own.keys() - state.keys():
            raise ValueError(f"this is no state of a schedule: it lacks {', '.join(sorted(missing))}")
        if state["method"] != own["method"]:
            raise ValueError(f"the state is of grouping={state['method']!r}, this one's is {own['method']!r}")
        if sorted(task for group in state["partition"] for task in group) != list(range(len(self.affinity.tasks))):
            raise ValueError(f"the state's partition {state['partition']} does not hold each task exactly once")

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.check_state(state)
        self._generator.set_state(state["generator"].cpu())
        self.partition = [list(group) for group in state["partition"]]
        self.batches = int(state["batches"])


def harmful_first(groups: Sequence[Sequence[int]], matrix: Tensor) -> Groups:
    """Groups by what they do to one another, those first that harm others more than they are harmed (theorem 5).

    Group G should come before H if its update raises H's losses: H's own update then comes last and mends them. Of
    more than two groups each is placed by its balance with all others; ties keep their order.
    """
    members = torch.zeros(len(groups), len(matrix), dtype=matrix.dtype)
    for index, group in enumerate(groups):
        members[index, list(group)] = 1
    effect = members @ matrix @ members.T
    balance = (effect - effect.T).sum(1)
    return [list(groups[index]) for index in torch.sort(balance, stable=True).indices.tolist()]
