"""How one batch becomes updates: balanced once, group by group, or the plain sum several times over."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from motet import methods
from motet.balancer import Balancer
from motet.grouping.replay import Replay
from motet.grouping.updates import GroupedUpdates
from motet.grouping.weight_decay import once_a_batch
from motet.step import BalancerStep, NonFiniteError
from motet.study.results import Groups, Partition

_TIMELINE = 300  # Partitions that a timeline is thinned to.

Losses = dict[str, Tensor | None]
Features = Tensor | list[Tensor]


@dataclass(frozen=True)
class Batch:
    """What a stepper may do with one batch.

    Attributes:
        forward: The features, and every task's loss or None.
        second: The losses on another batch of the training split.
        reseed: Puts the random numbers back to where the batch began, for the same dropout masks once more.
        penalty: What the last forward pass adds to the losses, for no task; None where nothing is.
    """

    forward: Callable[[], tuple[Features, Losses]]
    second: Callable[[], Losses]
    reseed: Callable[[], None]
    penalty: Callable[[], Tensor | None] = lambda: None


@dataclass(frozen=True)
class Step:
    """What the bookkeeping wants of one batch.

    Attributes:
        losses: Of the tasks in the batch, before its first update.
        forwards, backwards: Passes through the trunk.
        updates: Optimizer steps.
        weights: Of the tasks, where a method gave any.
        converged: Whether every solver did.
    """

    losses: Mapping[str, Tensor]
    forwards: int
    backwards: int
    updates: int = 1
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    converged: bool = True


class Stepper(Protocol):
    """One way to train on a batch."""

    single: bool
    """Whether a batch is one update, whose gradient is in ``.grad`` afterwards."""

    @property
    def method(self) -> methods.Method | None:
        """What combines the tasks; None for the plain sum."""

    def step(self, batch: Batch) -> Step:
        """Train on one batch."""

    def groups(self) -> Groups | None:
        """What was found of the tasks' groups, if anything."""


class BalancedSteps:
    """One update a batch, by a Balancer."""

    single = True

    def __init__(self, balancer: Balancer, optimizer: Optimizer, several: bool) -> None:
        self.balancer = balancer
        self.optimizer = optimizer
        self.two_samples = balancer.method.two_samples and several

    @property
    def method(self) -> methods.Method:
        """Its method."""
        return self.balancer.method

    def step(self, batch: Batch) -> Step:
        """Forward, combine, update; some methods look at the losses once more."""
        self.optimizer.zero_grad()
        features, losses = batch.forward()
        penalty = batch.penalty()
        if penalty is not None:
            # Before the tasks' gradients, so that no method sees it.
            _check_penalty(penalty).backward(retain_graph=True)
        second = batch.second() if self.two_samples else None
        done = self.balancer.backward(losses, features=features, validation=second)
        self.optimizer.step()
        if self.balancer.wants_feedback:
            # The same dropout masks, or the change of the losses would measure them.
            batch.reseed()
            with torch.no_grad():
                self.balancer.update(batch.forward()[1])
        forwards = 1 + self.balancer.wants_feedback + (second is not None)
        weights = {} if done.weights is None else dict(done.weights.items())
        return Step(_present(losses), forwards, _backwards(done), 1, weights, bool(done.converged))

    def groups(self) -> None:
        """There are none."""


class GroupedSteps:
    """One update a group of tasks, with a record of the groups."""

    single = False

    def __init__(self, updates: GroupedUpdates, method: methods.Method, learned: bool) -> None:
        self.updates = updates
        self.method = method
        self._timeline: list[Partition] = []
        self._counts: list[int] = []
        self._warmup: int | None = None if learned else 0

    def step(self, batch: Batch) -> Step:
        """As many forward passes and updates as there are groups."""

        def closure() -> tuple[Losses, Features]:
            features, losses = batch.forward()
            return losses, features

        now = len(self._counts)
        done = self.updates.step(closure)
        if self._warmup is None and done.regrouped:
            self._warmup = now
        partition = [list(group) for group in self.updates.partition]
        if not self._timeline or self._timeline[-1].groups != partition:
            self._timeline.append(Partition(now, partition))
        self._counts.append(len(done.groups))
        weighted = [step.weights for step in done.updates if step.weights is not None]
        weights = {task: weight for part in weighted for task, weight in part.items()}
        backwards = sum(map(_backwards, done.updates)) if done.updates else len(done.groups)
        converged = all(bool(step.converged) for step in done.updates)
        return Step(dict(done.losses.items()), done.passes, backwards, len(done.groups), weights, converged)

    def groups(self) -> Groups:
        """Timeline, number of groups and affinity so far."""
        affinity, late = self.updates.affinity, self._counts[self._warmup or 0 :]
        stride = -(-len(self._timeline) // _TIMELINE) or 1
        thinned = self._timeline[::stride]
        if self._timeline and thinned[-1] is not self._timeline[-1]:
            thinned.append(self._timeline[-1])
        return Groups(
            tasks=list(self.updates.tasks),
            timeline=thinned,
            batches=len(self._counts),
            warmup=self._warmup,
            mean=sum(late) / len(late) if late else float("nan"),
            affinity=affinity.matrix.tolist(),
            counts=affinity.counts.tolist(),
            standard_errors=affinity.standard_errors.tolist(),
        )


class RepeatedSteps:
    """The plain sum with several optimizer steps on every batch.

    Dropout masks, running statistics and weight decay are treated as `GroupedUpdates` treats them by default, so that
    what differs is the grouping alone.
    """

    single = False
    method = None

    def __init__(self, times: int, model: nn.Module, optimizer: Optimizer) -> None:
        self.times = times
        self.optimizer = optimizer
        self._replay = Replay("once", True, model, model.parameters())

    def step(self, batch: Batch) -> Step:
        """Forward, backward and update, so many times."""
        self._replay.begin()
        moved: set[int] = set()
        first: dict[str, Tensor] = {}
        for _ in range(self.times):
            self.optimizer.zero_grad()
            with self._replay.passing():
                losses = _present(batch.forward()[1])
                penalty = batch.penalty()
            if bad := [task for task, loss in losses.items() if not loss.isfinite()]:
                raise NonFiniteError("a loss is not finite", bad)
            first = first or {task: loss.detach() for task, loss in losses.items()}
            terms = [*losses.values(), *([] if penalty is None else [_check_penalty(penalty)])]
            if terms:
                torch.autograd.backward(terms)
            with once_a_batch(self.optimizer, moved):
                self.optimizer.step()
        return Step(first, self.times, self.times, self.times)

    def groups(self) -> None:
        """There are none."""


def _check_penalty(penalty: Tensor) -> Tensor:
    if not penalty.isfinite():
        raise NonFiniteError("the architecture's penalties are not finite", [])
    return penalty


def _present(losses: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
    return {task: loss for task, loss in losses.items() if loss is not None}


def _backwards(done: BalancerStep) -> int:
    """On the probe route a product takes about as long as a backward pass."""
    return done.cost.trunk_backwards + done.cost.products
