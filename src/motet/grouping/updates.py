"""Selective task group updates: one optimizer step per group of tasks, and groups that follow what helps what.

Jeong & Yoon, "Selective Task Group Updates for Multi-Task Optimization", ICLR 2025, arXiv 2502.11986.
"""

import copy
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from motet import methods
from motet.balancer import Balancer
from motet.grouping import agreement
from motet.grouping.affinity import Affinity
from motet.grouping.batch import Batch, Closure
from motet.grouping.replay import Replay, Statistics
from motet.grouping.schedule import Groups, Order, Schedule
from motet.grouping.step import GroupedStep
from motet.grouping.weight_decay import is_decoupled
from motet.incoming import task_names
from motet.routes import RouteName

logger = logging.getLogger("motet")

Measure = Literal["losses", "jvp", "features"]
_CHOICES: dict[str, tuple[object, ...]] = {
    "measure": ("losses", "jvp", "features", None),
    "order": ("shuffle", "theorem-5"),
    "weight_decay": ("batch", "group"),
    "statistics": ("once", "frozen", "group"),
    "idle": ("still", "drift"),
    "nonfinite": ("raise", "skip"),
}


class GroupedUpdates:
    """Update the tasks group by group, one forward pass, backward pass and optimizer step each, on every batch.

    While it trains it measures the proximal inter-task affinity B_{G→k} = 1 - L_k(after)/L_k(before) of each group's
    real update (paper, definition 2; see `Affinity`), and regroups by it. Only the shared parameters and the heads of
    the group's tasks move: idle heads have no gradient, and torch's optimizers leave such parameters alone, bit for
    bit. A learning-rate scheduler steps once a batch, as before: call it after `step`.

    A batch of M groups costs M forward and backward passes. A partition into one group costs one, and then trains
    like the plain sum; one batch in ``regroup_every`` takes one more pass without gradients to measure it.

    What is measured is the effect of the whole update. With momentum that carries earlier gradients of other groups,
    so the map says what updates did, and not what each task's gradient would do alone: signs can differ.

    Args:
        tasks: Names of all tasks.
        optimizer: One, or several that step together. Their steps take no closure.
        method: How the losses or gradients within a group are combined: a method or its name.
        decay: Rate at which the affinity forgets; the paper's code has 1e-3, and 1e-4 for eleven tasks.
        attribution: "paper", or "released": as `Affinity`.
        estimator: "pairwise", or "regression" over groups, which wants ``explore``.
        grouping: "correlation" joins tasks that help one another, as the paper's theory assumes; "affinity-propagation"
            is the released code's, which ignores signs; "singletons", "all", "random" (drawn anew at each regrouping),
            or a fixed partition by names or numbers.
        max_groups: At most so many groups, which bounds the cost of a batch; not for "affinity-propagation". While
            warming up tasks are then drawn into so many groups at random, anew for each batch.
        significance: Affinities within so many standard errors of zero say nothing ("correlation" only). Default: 1.
        hysteresis: Share by which a new partition must be better than the present one ("correlation" only).
        measure: "losses" compares losses before and after each group's update, from the passes there are anyway; the
            last group of a batch goes unmeasured, as in the paper. "jvp" multiplies the gradients half-way with each
            group's real displacement in one more forward-mode pass: every group, and no rounding of differences.
            "features" estimates every pair from the gradients at the features of the first pass, which the closure
            then returns. None measures nothing.
        measure_every: Batches from one that measures to the next.
        warmup: Batches with single tasks as groups before the first regrouping, where the partition is learnt.
        regroup_every: Batches from one regrouping to the next.
        explore: Share of batches with a random partition, without which groups that stay together can't be told apart.
            Default: 0.1 where a partition is learnt by
            "regression", else 0.
        order: "shuffle", or "theorem-5": groups that harm others come before them. It takes one more pass without
            gradients in batches that measure, or the last group would never be seen.
        weight_decay: "batch" decays each parameter that moves once a batch, in its first step; "group" in every step,
            M times for the trunk. Either way moments and step counts advance in every step, since bias correction
            must know how many gradients the moments hold.
        statistics: "once" lets the first pass alone update BatchNorm's running statistics and the like, "frozen" none,
            "group" every one.
        replay: Draw the same dropout masks in all passes over a batch, from torch's global generators, and those of
            numpy and Python if the very first pass draws from them. Without it measured affinity is mostly masks.
        idle: "still", or "drift": gradients of idle heads are zeros instead of absent, so that momentum and decay move
            them, as in the released code under the torch version it was written for.
        repeat_single: Run a single group twice, as the released code does.
        route: Of the Balancer, for methods that need gradients.
        shared: The trunk or its parameters, for such methods where the closure returns no features.
        nonfinite: "raise" a `NonFiniteError` that names the task, or "skip" it for this step. Losses are checked before
            each group's backward pass, those of all tasks before the first.
        scaler: A ``torch.amp.GradScaler``. Gradients are unscaled before ``before_step``. It is updated after each
            group, so that its growth interval counts groups.
        before_step: Called between a group's backward pass and its optimizer step, to clip gradients for example.
        model: Whose running statistics are guarded. None looks which modules are called in the first pass over each
            batch, by hooks, which compiled functions hide and compiled modules warn of: pass the model then.
        seed: Of order, exploration and partitions.

    Raises:
        TypeError, ValueError: for options that do not fit.

    Note:
        Under DistributedDataParallel build it with ``find_unused_parameters=True``, since a group leaves the other
        heads out. Losses are averaged over the processes before the affinity learns from them; a group of which a
        process has no task in a batch is left out of that batch by all, and so is a loss that is not finite in one.

    Cost:
        Beside the M passes: one transfer of K numbers a pass, O(K²) on the host, and with "jvp" a copy of the
        parameters that move. No memory that grows with M or with steps.

    >>> _ = torch.manual_seed(0)
    >>> trunk, heads = nn.Linear(3, 4), nn.ModuleDict({"a": nn.Linear(4, 1), "b": nn.Linear(4, 1)})
    >>> parameters = [*trunk.parameters(), *heads.parameters()]
    >>> updates = GroupedUpdates(["a", "b"], torch.optim.AdamW(parameters, lr=1e-2))
    >>> x = torch.randn(8, 3)
    >>> step = updates.step(lambda: {name: (head(trunk(x)) - 1).pow(2).mean() for name, head in heads.items()})
    >>> sorted(step.groups), step.passes
    ([('a',), ('b',)], 2)
    """

    def __init__(
        self,
        tasks: Sequence[str],
        optimizer: Optimizer | Sequence[Optimizer],
        *,
        method: "methods.Method | str" = "sum",
        decay: float = 1e-3,
        attribution: Literal["paper", "released"] = "paper",
        estimator: Literal["pairwise", "regression"] = "pairwise",
        grouping: str | Sequence[Sequence[str | int]] = "correlation",
        max_groups: int | None = None,
        significance: float | None = None,
        hysteresis: float = 0.0,
        measure: Measure | None = "losses",
        measure_every: int = 1,
        warmup: int = 100,
        regroup_every: int = 10,
        explore: float | None = None,
        order: Order = "shuffle",
        weight_decay: Literal["batch", "group"] = "batch",
        statistics: Statistics = "once",
        replay: bool = True,
        idle: Literal["still", "drift"] = "still",
        repeat_single: bool = False,
        route: RouteName = "auto",
        shared: Iterable[Tensor] | nn.Module | None = None,
        nonfinite: Literal["raise", "skip"] = "raise",
        scaler: "torch.amp.GradScaler | None" = None,
        before_step: Callable[[], object] | None = None,
        model: nn.Module | None = None,
        seed: int = 0,
    ) -> None:
        given = locals()
        for name, allowed in _CHOICES.items():
            if given[name] not in allowed:
                raise ValueError(f"{name} must be {' or '.join(map(repr, allowed))}, not {given[name]!r}")
        for name, least in (("measure_every", 1), ("warmup", 0), ("regroup_every", 1)):
            value = given[name]
            if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
                raise ValueError(f"{name} must be a whole number of batches of at least {least}, not {value!r}")
        if explore is not None and not (isinstance(explore, float | int) and 0 <= explore <= 1):
            raise ValueError(f"explore is a share of the batches from 0 to 1, not {explore!r}")
        self.tasks = tuple(task_names(tasks))
        if not self.tasks:
            raise ValueError("tasks is empty: name every task that the closure returns a loss for")
        self._index = {task: index for index, task in enumerate(self.tasks)}
        self.optimizers = _optimizers(optimizer)
        self.affinity = Affinity(self.tasks, decay, attribution, estimator)
        self.measure = measure
        self.measure_every = measure_every
        self.weight_decay = weight_decay
        self.idle = idle
        self.repeat_single = repeat_single
        self.nonfinite: Literal["raise", "skip"] = nonfinite
        self.scaler = scaler
        self.before_step = before_step
        # An iterator such as parameters() would be empty from the second group on.
        self._shared = shared if shared is None or isinstance(shared, nn.Module | Tensor) else list(shared)
        self._check_estimates(attribution, estimator)
        self._balancer = self._combiner(method, route)
        if weight_decay == "batch":
            _check_decay(self.optimizers)
        learned = ("affinity-propagation", "correlation")
        if grouping in learned and measure is None:
            raise ValueError(f"grouping={grouping!r} is by affinity, and measure=None measures none")
        options: dict[str, Any] = {"max_groups": max_groups}
        if grouping == "correlation":
            options |= {"significance": 1.0 if significance is None else significance, "hysteresis": hysteresis}
        elif significance is not None or hysteresis:
            raise ValueError("significance and hysteresis are of grouping='correlation'")
        if explore is None:
            explore = 0.1 if estimator == "regression" and grouping in learned else 0.0
        self._schedule = Schedule(
            self.affinity,
            grouping if isinstance(grouping, str) else _fixed(grouping, self.tasks),
            warmup=warmup,
            every=regroup_every,
            explore=float(explore),
            order=order,
            seed=seed,
            options=options,
        )
        self._replay = Replay(statistics, replay, model, self._parameters())
        self._said: set[str] = set()

    @classmethod
    def released(
        cls, tasks: Sequence[str], optimizer: Optimizer | Sequence[Optimizer], **options: Any
    ) -> "GroupedUpdates":
        """As the authors' code does it, for reproduction: its deviations from the paper included.

        Changes are credited to the group updated after them; affinity propagation before every batch after 101 of
        single tasks; a single group runs twice; masks are drawn anew in each pass; BatchNorm, weight decay and idle
        heads move with every group. ``options`` override.

        >>> head = nn.Linear(2, 1)
        >>> GroupedUpdates.released(["a"], torch.optim.Adam(head.parameters()), decay=1e-4).affinity.attribution
        'released'
        """
        preset: dict[str, Any] = {
            "attribution": "released",
            "grouping": "affinity-propagation",
            "warmup": 101,
            "regroup_every": 1,
            "weight_decay": "group",
            "statistics": "group",
            "replay": False,
            "idle": "drift",
            "repeat_single": True,
        }
        return cls(tasks, optimizer, **(preset | options))

    @property
    def partition(self) -> tuple[tuple[str, ...], ...]:
        """The present groups."""
        return self._named(self._schedule.partition)

    @property
    def batches(self) -> int:
        """Batches so far."""
        return self._schedule.batches

    def step(self, closure: Closure | Sequence[Closure]) -> GroupedStep:
        """Train on one batch: every group in its turn.

        Args:
            closure: Computes {task: loss or None} on the batch, or a pair of these and the features between trunk and
                heads. It is called once a group and must not call ``backward``. Several closures are micro-batches,
                whose mean gradient each group's step takes.

        Raises:
            NonFiniteError: if a loss or gradient is not finite, with ``nonfinite="raise"``. Before the first update of
                a batch nothing has changed; later on the groups before it have been updated.
            TypeError, ValueError: for a closure that returns something else, an unknown task, no loss at all.
        """
        closures = [closure] if callable(closure) else list(closure)
        if not closures or not all(callable(part) for part in closures):
            raise TypeError("step takes a function that computes the losses of the batch, or a list of such functions")
        if len(closures) > 1 and agreement.processes() > 1:
            raise ValueError("step takes one closure where there are several processes, not micro-batches")
        state = self._schedule.state_dict()
        try:
            order, regrouped = self._schedule.next()
            with torch.enable_grad():
                return Batch(self, closures, order, regrouped, state["batches"]).run()
        except BaseException:
            # A batch that failed or was interrupted was none: the same order follows for the next.
            self._schedule.load_state_dict(state)
            raise

    def state_dict(self) -> dict[str, Any]:
        """All that an exact resume needs beside the states of model and optimizer: tensors, numbers and strings.

        {"tasks": [str], "affinity": dict, "schedule": dict, "balancer": dict or None}.
        """
        return {
            "tasks": list(self.tasks),
            "affinity": self.affinity.state_dict(),
            "schedule": self._schedule.state_dict(),
            "balancer": None if self._balancer is None else self._balancer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave.

        Raises:
            ValueError: if it is incomplete, or of other tasks, another estimator or another method.
        """
        missing = {"tasks", "affinity", "schedule", "balancer"} - set(state)
        if missing:
            raise ValueError(f"this is no state of GroupedUpdates: it lacks {', '.join(sorted(missing))}")
        if list(state["tasks"]) != list(self.tasks):
            raise ValueError(f"the state is of the tasks {list(state['tasks'])}, these are {list(self.tasks)}")
        if (state["balancer"] is None) != (self._balancer is None):
            raise ValueError("the state is of another method: one of the two is the plain sum, the other is not")
        # All are looked at before any is changed.
        self._schedule.check_state(state["schedule"])
        copy.deepcopy(self.affinity).load_state_dict(state["affinity"])
        if self._balancer is not None:
            self._balancer.load_state_dict(state["balancer"])
        self.affinity.load_state_dict(state["affinity"])
        self._schedule.load_state_dict(state["schedule"])

    def _parameters(self) -> list[Tensor]:
        return [p for optimizer in self.optimizers for group in optimizer.param_groups for p in group["params"]]

    def _named(self, groups: Groups) -> tuple[tuple[str, ...], ...]:
        return tuple(tuple(self.tasks[index] for index in group) for group in groups)

    def _check_estimates(self, attribution: str, estimator: str) -> None:
        if attribution == "released" and self.measure not in ("losses", None):
            raise ValueError(
                f"attribution='released' credits changes between two passes; measure={self.measure!r} has none: "
                "use measure='losses'"
            )
        if estimator == "regression" and self.measure == "features":
            raise ValueError("measure='features' gives pairs, not groups to regress on: use estimator='pairwise'")

    def _combiner(self, method: "methods.Method | str", route: RouteName) -> Balancer | None:
        """None for the plain sum, which one backward pass of the group's losses gives."""
        balancer = Balancer(method, route, tasks=self.tasks, nonfinite=self.nonfinite)
        name = type(balancer.method).__name__
        if balancer.method.two_samples:
            raise ValueError(f"{name} learns from a second batch, which group updates do not have")
        if self.scaler is not None and balancer.method.scale != 1:
            raise ValueError(
                f"{name} would see losses times the scaler's factor, and its update is not in proportion to them: "
                "train in bfloat16, which needs no scaler, or use method='sum'"
            )
        return None if isinstance(balancer.method, methods.Sum) and route == "auto" else balancer

    def _say(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            logger.warning("%s", message)


def _optimizers(given: Any) -> list[Optimizer]:
    found = [given] if isinstance(given, Optimizer) else given
    if isinstance(found, list | tuple) and found and all(isinstance(one, Optimizer) for one in found):
        if any(isinstance(one, torch.optim.LBFGS) for one in found):
            raise TypeError("LBFGS evaluates the losses by itself as often as it likes: group updates need another one")
        return list(found)
    raise TypeError(f"optimizer must be a torch.optim.Optimizer or a list of them, not {type(given).__name__}")


def _check_decay(optimizers: list[Optimizer]) -> None:
    for optimizer in optimizers:
        if is_decoupled(optimizer) is None and any(group.get("weight_decay") for group in optimizer.param_groups):
            name = type(optimizer).__name__
            raise ValueError(
                f"weight_decay='batch' does not know how {name} decays: set {name}.decoupled_weight_decay to True if "
                "its decay acts on the parameters and to False if on the gradients, or use weight_decay='group'"
            )


def _fixed(groups: Sequence[Sequence[str | int]], tasks: tuple[str, ...]) -> Groups:
    """A partition by numbers, from one by names or numbers; `partition` checks it."""
    index = {task: number for number, task in enumerate(tasks)}
    for group in groups:
        if isinstance(group, str):
            raise TypeError(f"grouping must be a list of lists of tasks; write [[{group!r}, …], …]")
        for task in group:
            if isinstance(task, str) and task not in index:
                raise ValueError(f"grouping names the task {task!r}, and there are {', '.join(tasks)}")
    return [[index[task] if isinstance(task, str) else int(task) for task in group] for group in groups]
