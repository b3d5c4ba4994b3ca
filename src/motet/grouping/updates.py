"""Selective task group updates: one optimizer step per group of tasks, and groups that follow what helps what.

Jeong & Yoon, "Selective Task Group Updates for Multi-Task Optimization", ICLR 2025, arXiv 2502.11986.
"""

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from numbers import Integral
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from motet import methods
from motet.balancer import Balancer
from motet.grouping import agreement
from motet.grouping.affinity import Affinity
from motet.grouping.lookahead import feature_affinity
from motet.grouping.replay import Replay, Statistics
from motet.grouping.schedule import Groups, Order, Schedule
from motet.grouping.step import GroupedStep
from motet.grouping.weight_decay import is_decoupled, once_a_batch
from motet.incoming import read_losses, task_names
from motet.linalg import as_double
from motet.routes import RouteName
from motet.routes.forward_mode import forward_product
from motet.step import BalancerStep, NonFiniteError, TaskVector

logger = logging.getLogger("motet")

Closure = Callable[[], Any]
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
        max_groups: At most so many groups, which bounds the cost of a batch; not for "affinity-propagation".
        significance: Affinities within so many standard errors of zero join no tasks ("correlation" only).
        hysteresis: Share by which a new partition must be better than the present one ("correlation" only).
        measure: "losses" compares losses before and after each group's update, from the passes there are anyway; the
            last group of a batch goes unmeasured, as in the paper. "jvp" multiplies the gradients with each group's
            real displacement in one more forward-mode pass: every group, no rounding of differences, first order only.
            "features" estimates every pair from the gradients at the features of the first pass, which the closure
            then returns. None measures nothing.
        measure_every: Batches from one that measures to the next.
        warmup: Batches with single tasks as groups before the first regrouping, where the partition is learnt.
        regroup_every: Batches from one regrouping to the next.
        explore: Share of batches with a random partition, without which groups that stay together can't be told apart.
            Default: 0.1 with "regression", else 0.
        order: "shuffle", or "theorem-5": groups that harm others come before them.
        weight_decay: "batch" decays each parameter that moves once a batch, in its first step; "group" in every step,
            M times for the trunk. Either way moments and step counts advance in every step, since bias correction
            must know how many gradients the moments hold.
        statistics: "once" lets the first pass alone update BatchNorm's running statistics and the like, "frozen" none,
            "group" every one.
        replay: Draw the same dropout masks in all passes over a batch. Without it measured affinity is mostly masks.
        idle: "still", or "drift": gradients of idle heads are zeros instead of absent, so that momentum and decay move
            them, as in the released code under the torch version it was written for.
        repeat_single: Run a single group twice, as the released code does.
        route: Of the Balancer, for methods that need gradients.
        shared: The trunk or its parameters, for such methods where the closure returns no features.
        nonfinite: "raise" a `NonFiniteError` that names the task, or "skip" it for this step. Losses are checked before
            each group's backward pass, those of all tasks before the first.
        scaler: A ``torch.amp.GradScaler``. It is unscaled before ``before_step`` and updated after each group.
        before_step: Called between a group's backward pass and its optimizer step, to clip gradients for example.
        model: Whose running statistics are guarded. None looks at the modules called in the very first pass.
        seed: Of order, exploration and partitions.

    Raises:
        TypeError, ValueError: for options that do not fit.

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
        significance: float = 1.0,
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
            options |= {"significance": significance, "hysteresis": hysteresis}
        self._schedule = Schedule(
            self.affinity,
            grouping if isinstance(grouping, str) else _fixed(grouping, self.tasks),
            warmup=warmup,
            every=regroup_every,
            explore=(0.1 if estimator == "regression" else 0.0) if explore is None else float(explore),
            order=order,
            seed=seed,
            options=options,
        )
        parameters = [p for o in self.optimizers for group in o.param_groups for p in group["params"]]
        self._replay = Replay(statistics, replay, model, parameters)
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
        state = self._schedule.state_dict()
        try:
            order, regrouped = self._schedule.next()
            return _Batch(self, closures, order, regrouped, state["batches"]).run()
        except (NonFiniteError, TypeError, ValueError, RuntimeError):
            # A batch that failed was none: the same order follows for the next.
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
        if self._balancer is not None:
            self._balancer.load_state_dict(state["balancer"])
        self.affinity.load_state_dict(state["affinity"])
        self._schedule.load_state_dict(state["schedule"])

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


class _Batch:
    """One call of `GroupedUpdates.step`."""

    def __init__(
        self, owner: GroupedUpdates, closures: list[Closure], order: Groups, regrouped: bool, number: int
    ) -> None:
        self.owner = owner
        self.closures = closures
        self.order = order * 2 if owner.repeat_single and len(order) == 1 else order
        self.regrouped = regrouped
        self.number = number
        self.measures = owner.measure is not None and number % owner.measure_every == 0
        self.learns = owner._balancer is not None and owner._balancer.wants_feedback
        self.first: Tensor | None = None  # Losses of the first pass.
        self.there: set[int] = set()  # Tasks that have one.
        self.lacking: set[int] = set()  # Places in the order of groups of which some process has no task.
        self.pending: tuple[dict[str, Tensor], Any] | None = None  # A pass whose group had nothing to update.
        self.before: Tensor | None = None  # Losses before the last update, to be compared with those after it.
        self.group: list[int] = []
        self.done: Groups = []
        self.moved: list[set[int]] = [set() for _ in owner.optimizers]
        self.skipped: dict[str, None] = {}
        self.updates: list[BalancerStep] = []
        self.seen: list[tuple[list[int], Tensor, Tensor]] = []  # Credited group, losses before and after.
        self.whole = False  # Whether the last pass had a 0-dim loss of every task.
        self.passes = 0
        self.measured = False

    def run(self) -> GroupedStep:
        """All groups, one after another."""
        owner = self.owner
        owner._replay.begin()
        for place, group in enumerate(self.order):
            if self.first is not None and not self._wanted(place):
                continue
            values, members = self._pass(place)
            self._compare(values, following=members or group)
            if not members:
                continue
            start = self._copies() if owner.measure == "jvp" and self.measures else None
            moved = self._move()
            self.done.append(members)
            self.group = members
            self.before = values if moved else None
            if start is not None and moved:
                self._displacement(values, start)
        self._last()
        self._learn()
        assert self.first is not None
        present = sorted(self.there)
        return GroupedStep(
            groups=owner._named(self.done),
            losses=TaskVector.of(self.first[present], [owner.tasks[index] for index in present]),
            measured=self.measured,
            regrouped=self.regrouped,
            skipped=tuple(self.skipped),
            passes=self.passes,
            updates=tuple(self.updates),
            _affinity=owner.affinity,
        )

    def _pass(self, place: int) -> tuple[Tensor, list[int]]:
        """A forward pass and the backward pass of a group: the losses (K,), and the tasks with a gradient."""
        owner, group = self.owner, self.order[place]
        for optimizer in owner.optimizers:
            optimizer.zero_grad(set_to_none=owner.idle == "still")
        share = 1 / len(self.closures)
        parts: list[Tensor] = []
        members: dict[int, None] = {}
        for closure in self.closures:
            losses, features = self.pending or self._forward(closure)
            values = self._values(losses)
            self._check(values, group)
            if owner.measure == "features" and self.measures and self.first is None and not parts:
                self._from_features(losses, features)
            parts.append(values)
            if len(self.closures) == 1 and self.first is None:
                self._agree(values)
            wanted = self._wanted(place) if self.first is not None else group
            numbers = values.tolist()
            here = [task for task in wanted if math.isfinite(numbers[task])]
            self.pending = None
            if here:
                members |= dict.fromkeys(self._backward(here, losses, features, share))
            elif len(self.closures) == 1:
                self.pending = losses, features
        mean = parts[0] if len(parts) == 1 else torch.stack(parts).nanmean(0)
        if self.first is None:
            self._agree(mean)
        return mean, sorted(members)

    def _agree(self, values: Tensor) -> None:
        """After the first pass: which groups have a task in this batch, in every process."""
        self.first = values
        self.there = {task for task, value in enumerate(values.tolist()) if not math.isnan(value)}
        if agreement.processes() > 1:
            if len(self.closures) > 1:
                raise ValueError("step takes one closure where there are several processes, not micro-batches")
            none = torch.tensor([bool(values[group].isnan().all()) for group in self.order]).double()
            found = agreement.largest(none)
            self.lacking = {place for place, lacks in enumerate(found.tolist()) if lacks}
            if self.lacking:
                self.owner._say(
                    "a process has no loss of any task of a group: that group is left out of such batches everywhere"
                )

    def _forward(self, closure: Closure) -> tuple[dict[str, Tensor], Any]:
        with self.owner._replay.passing():
            given = closure()
        self.passes += closure is self.closures[0]
        return self._read(given)

    def _read(self, given: Any) -> tuple[dict[str, Tensor], Any]:
        """What a closure gave, checked: the losses that there are, and the features."""
        owner = self.owner
        losses, features = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
        if losses is None:
            raise TypeError("the closure returned None: it must return a dict of task names and scalar losses")
        if (
            self.whole
            and isinstance(losses, dict)
            and tuple(losses) == owner.tasks
            and all(map(_there, losses.values()))
        ):
            return losses, features  # The same tasks as in the first pass, which was looked at closely.
        found, constant = read_losses(losses, owner._index, fixed=True)
        if constant and not found and torch.is_grad_enabled():
            raise ValueError(
                f"no loss depends on any parameter ({', '.join(map(repr, constant))}): does the closure run under "
                "torch.no_grad(), or has it called backward already?"
            )
        for task in constant:
            owner._say(f"the loss of task {task!r} is a constant: it counts as absent from such batches")
        self.whole = len(found) == len(losses) and all(loss.dim() == 0 for loss in losses.values() if loss is not None)
        return found, features

    def _values(self, losses: dict[str, Tensor]) -> Tensor:
        """(K,) on the host in one transfer: NaN where a task is absent, infinite where its loss is not finite."""
        owner, given = self.owner, list(losses.values())
        if not given:
            return torch.full((len(owner.tasks),), torch.nan, dtype=torch.float64)
        with torch.no_grad():
            try:
                stacked = torch.stack(given)
            except RuntimeError:  # Losses on several devices.
                stacked = torch.stack([as_double(loss).to(given[0].device) for loss in given])
            found = stacked.cpu().double().nan_to_num(torch.inf, torch.inf, torch.inf)
        if tuple(losses) == owner.tasks:
            return found
        values = torch.full((len(owner.tasks),), torch.nan, dtype=torch.float64)
        values[[owner._index[task] for task in losses]] = found
        return values

    def _check(self, values: Tensor, group: Iterable[int]) -> None:
        """Raise or note tasks whose loss is not finite: all before the first update, then the group's."""
        tasks = range(len(values)) if self.first is None else group
        infinite = values.isinf()
        if self.first is None and self.owner.nonfinite == "raise":
            infinite = agreement.largest(infinite.double()) > 0  # All processes stop, or none.
        if not infinite.any():
            return
        bad = [self.owner.tasks[task] for task in tasks if infinite[task]]
        if not bad:
            return
        names = ", ".join(map(repr, bad))
        when = "nothing was updated" if not self.done else f"{len(self.done)} groups were updated before it"
        if self.owner.nonfinite == "raise":
            raise NonFiniteError(
                f"the loss of task {names} is not finite; {when}. Look for a division by zero, a logarithm of zero or "
                "too large a learning rate, or pass nonfinite='skip' to leave such tasks out",
                bad,
            )
        self.owner._say(f"the loss of task {names} is not finite: left out of this step, and later without notice")
        self.skipped |= dict.fromkeys(bad)

    def _wanted(self, place: int) -> list[int]:
        """The tasks of a group that have a loss in this batch."""
        assert self.first is not None
        return [] if place in self.lacking else [task for task in self.order[place] if task in self.there]

    def _backward(self, members: list[int], losses: dict[str, Tensor], features: Any, share: float) -> list[int]:
        """The group's gradient into ``.grad``; which of its tasks have one."""
        owner, scaler = self.owner, self.owner.scaler
        own = {owner.tasks[task]: losses[owner.tasks[task]] for task in members}
        if share != 1:
            own = {task: loss * share for task, loss in own.items()}
        if scaler is not None:
            own = {task: scaler.scale(loss) for task, loss in own.items()}
        if owner._balancer is None:
            device = next(iter(own.values())).device
            torch.stack([loss.to(device) for loss in own.values()]).sum().backward()
            return members
        everyone: dict[str, Tensor | None] = {task: own.get(task) for task in owner.tasks}
        shared = owner._shared if features is None else None
        done = owner._balancer.backward(everyone, features=features, shared=shared)
        self.updates.append(done)
        self.skipped |= dict.fromkeys(done.skipped)
        return [owner._index[task] for task in done.tasks]

    def _move(self) -> bool:
        """The optimizers' step: whether there was one, which a scaler may refuse."""
        owner, scaler = self.owner, self.owner.scaler
        active = list(zip(owner.optimizers, self.moved, strict=True))
        if scaler is not None:
            # Of an optimizer without a gradient the scaler knows nothing to check.
            active = [(o, m) for o, m in active if any(p.grad is not None for p in _parameters(o))]
            for optimizer, _ in active:
                scaler.unscale_(optimizer)
        if owner.before_step is not None:
            owner.before_step()
        for optimizer, moved in active:
            with ExitStack() as stack:
                decays = any(group.get("weight_decay") for group in optimizer.param_groups)
                if decays and owner.weight_decay == "batch" and len(self.order) > 1:
                    stack.enter_context(once_a_batch(optimizer, moved))
                if scaler is None:
                    optimizer.step()
                else:
                    scaler.step(optimizer)
        if scaler is None:
            return True
        factor = scaler.get_scale()
        scaler.update()
        return scaler.get_scale() >= factor

    def _compare(self, values: Tensor, following: list[int] | None) -> None:
        """Losses after the last update, for the affinity and for a method that learns from them."""
        owner, before, self.before = self.owner, self.before, None
        if before is None:
            return
        if owner.measure == "losses" and self.measures:
            self._see(before, values, following)
        if self.learns:
            assert owner._balancer is not None
            owner._balancer.update({owner.tasks[t]: values[t] for t in self.group if values[t].isfinite()})

    def _last(self) -> None:
        """A look at what the last update did, where no later pass shows it."""
        owner = self.owner
        # In a fixed order it would be the same group that is never measured. A group alone says little, and a pass for
        # it is a third of the batch's cost: it is looked at as often as the partition is.
        alone = len(self.done) == 1 and self.number % owner._schedule.every == 0
        unseen = alone or (len(self.done) > 1 and owner._schedule.order != "shuffle")
        measures = owner.measure == "losses" and self.measures and unseen and not owner.repeat_single
        if self.before is None or not (measures or self.learns):
            return
        parts = []
        for closure in self.closures:
            with torch.no_grad(), owner._replay.passing():
                given = closure()
            losses = given[0] if isinstance(given, tuple) else given
            parts.append(self._values({task: loss for task, loss in losses.items() if loss is not None}))
        self.passes += 1
        self._compare(torch.stack(parts).nanmean(0), following=None)

    def _from_features(self, losses: dict[str, Tensor], features: Any) -> None:
        owner = self.owner
        if not isinstance(features, Tensor):
            raise ValueError("measure='features' needs the features: let the closure return ({task: loss}, features)")
        everyone = {task: losses.get(task) for task in owner.tasks}
        rate = float(owner.optimizers[0].param_groups[0]["lr"])
        owner.affinity.update_pairs(feature_affinity(everyone, features, rate))
        self.measured = True

    def _copies(self) -> list[tuple[Tensor, Tensor]]:
        """Parameters that are about to move, and where they are."""
        found = [p for optimizer in self.owner.optimizers for p in _parameters(optimizer) if p.grad is not None]
        return [(p, p.detach().clone()) for p in found]

    def _displacement(self, values: Tensor, start: list[tuple[Tensor, Tensor]]) -> None:
        """What the real displacement of a group's update did to every loss, to first order."""
        owner = self.owner
        parameters = [p for p, _ in start]
        moved = [p.detach() - before for p, before in start]
        effects = []
        for closure in self.closures:
            found: list[Tensor | None] = []

            def losses(closure: Closure = closure, found: list[Tensor | None] = found) -> list[Tensor | None]:
                with owner._replay.passing():
                    given = closure()
                given = given[0] if isinstance(given, tuple) else given
                found[:] = [None if (loss := given.get(task)) is None else loss.reshape(()) for task in owner.tasks]
                return found

            try:
                effects.append(forward_product(losses, parameters, moved).cpu().double())
            except (NotImplementedError, RuntimeError) as error:
                raise RuntimeError(
                    f"measure='jvp': something in the model has no forward-mode derivative ({error}); "
                    "use measure='losses'"
                ) from error
        self.passes += 1
        self._see(values, values + torch.stack(effects).nanmean(0), None)

    def _see(self, before: Tensor, after: Tensor, following: list[int] | None) -> None:
        """Note what an update did; all of a batch go to the affinity at its end, in one go."""
        credited = following if self.owner.affinity.attribution == "released" else self.group
        if credited is not None:
            self.seen.append((credited, before, after))

    def _learn(self) -> None:
        if not self.seen:
            return
        groups, before, after = zip(*self.seen, strict=True)
        both = agreement.mean(torch.stack([torch.stack(before), torch.stack(after)]))
        self.owner.affinity.update_batch(groups, both[0], both[1])
        self.measured = True


def _there(loss: Tensor | None) -> bool:
    return loss is not None


def _parameters(optimizer: Optimizer) -> Iterable[Tensor]:
    return (p for group in optimizer.param_groups for p in group["params"])


def _optimizers(given: Any) -> list[Optimizer]:
    found = [given] if isinstance(given, Optimizer) else given
    if isinstance(found, list | tuple) and found and all(isinstance(one, Optimizer) for one in found):
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
