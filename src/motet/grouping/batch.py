"""One batch of group updates: passes, steps and what is measured on the way."""

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from motet.grouping import agreement
from motet.grouping.lookahead import feature_affinity
from motet.grouping.schedule import Groups
from motet.grouping.step import GroupedStep
from motet.grouping.weight_decay import once_a_batch
from motet.incoming import read_losses
from motet.linalg import as_double
from motet.routes.forward_mode import forward_product, untouched
from motet.step import BalancerStep, NonFiniteError, TaskVector

if TYPE_CHECKING:
    from motet.grouping.updates import GroupedUpdates

Closure = Callable[[], Any]


class Batch:
    """One call of `GroupedUpdates.step`."""

    def __init__(
        self, owner: "GroupedUpdates", closures: list[Closure], order: Groups, regrouped: bool, number: int
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
        for part, closure in enumerate(self.closures):
            # The backward pass belongs to it: checkpointed modules run forward in it once more.
            with owner._replay.passing(part):
                losses, features = self.pending or self._forward(closure, part)
                values = self._agreed(self._values(losses), place)
                self._check(values, group)
                if owner.measure == "features" and self.measures and self.first is None and not parts:
                    self._from_features(losses, features)
                parts.append(values)
                if len(self.closures) == 1 and self.first is None:
                    self._begin(values)
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
            self._begin(mean)
        return mean, sorted(members)

    def _begin(self, values: Tensor) -> None:
        """After the first pass: which tasks there are in this batch."""
        self.first = values
        self.there = {task for task, value in enumerate(values.tolist()) if not math.isnan(value)}

    def _agreed(self, values: Tensor, place: int) -> Tensor:
        """The same with what the processes know of one another: a loss that is not finite in one counts as such in all,
        and a group of which one has no task is left out by all, since gradients are averaged over all."""
        if agreement.processes() == 1:
            return values
        known = agreement.largest(values.isinf().double()) > 0
        values = torch.where(known, torch.inf, values)
        none = torch.tensor([float(not values[group].isfinite().any()) for group in self.order])
        if self.first is None:
            agreement.check(self.order, "the groups of a batch")
        self.lacking = {other for other, lacks in enumerate(agreement.largest(none).tolist()) if lacks}
        if place in self.lacking and values[self.order[place]].isfinite().any():
            self.owner._say(
                "a process has no loss of any task of a group: that group is left out of such batches everywhere"
            )
        return values

    def _forward(self, closure: Closure, part: int) -> tuple[dict[str, Tensor], Any]:
        given = closure()
        self.passes += part == 0
        found = self._read(given)
        owner = self.owner
        if (
            self.number == part == 0
            and not self.done
            and owner.idle == "still"
            and any(p.grad is not None for p in owner._parameters())
        ):
            raise ValueError("the closure has called backward: let it only compute the losses and return them")
        return found

    def _read(self, given: Any) -> tuple[dict[str, Tensor], Any]:
        """What a closure gave, checked: the losses that there are, and the features."""
        owner = self.owner
        losses, features = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
        if losses is None:
            raise TypeError("the closure returned None: it must return a dict of task names and scalar losses")
        same = self.whole and isinstance(losses, dict) and tuple(losses) == owner.tasks
        if same and all(map(_there, losses.values())):
            return losses, features  # The same tasks as in the first pass, which was looked at closely.
        found, constant = read_losses(losses, owner._index, fixed=True)
        if constant and not found:
            raise ValueError(
                f"no loss depends on any parameter ({', '.join(map(repr, constant))}): does the closure run under "
                "torch.no_grad(), or detach them?"
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
        torch.clear_autocast_cache()  # Else an autocast around the step shows the next pass the old weights.
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
        every = owner._schedule.every
        alone = len(self.done) == 1 and self.number // owner.measure_every % every == every - 1
        unseen = alone or (len(self.done) > 1 and owner._schedule.order != "shuffle")
        measures = owner.measure == "losses" and self.measures and unseen and not owner.repeat_single
        if self.before is None or not (measures or self.learns):
            return
        self.measures = measures
        parts = []
        for part, closure in enumerate(self.closures):
            with untouched(owner._parameters()), torch.no_grad(), owner._replay.passing(part):
                losses = _losses(closure())
            parts.append(self._values({task: loss for task, loss in losses.items() if loss is not None}))
        self.passes += 1
        self._compare(torch.stack(parts).nanmean(0), following=None)

    def _from_features(self, losses: dict[str, Tensor], features: Any) -> None:
        owner = self.owner
        if features is None:
            raise ValueError("measure='features' needs the features: let the closure return ({task: loss}, features)")
        # The rate of most parameters, as of a trunk; at none, in a warm-up of the rate, nothing has an effect.
        groups = [group for optimizer in owner.optimizers for group in optimizer.param_groups]
        rate = float(max(groups, key=lambda group: sum(p.numel() for p in group["params"]))["lr"])
        if not rate > 0 or not losses:
            return
        everyone = {task: losses.get(task) for task in owner.tasks}
        owner.affinity.update_pairs(agreement.mean(feature_affinity(everyone, features, rate)))
        self.measured = True

    def _copies(self) -> list[tuple[Tensor, Tensor]]:
        """Parameters that are about to move, and where they are."""
        return [(p, p.detach().clone()) for p in self.owner._parameters() if p.grad is not None]

    @torch.no_grad()
    def _displacement(self, values: Tensor, start: list[tuple[Tensor, Tensor]]) -> None:
        """What the real displacement of a group's update did to every loss: the gradients half-way times the way,
        which is right to second order."""
        owner = self.owner
        parameters = [p for p, _ in start]
        after = [p.detach().clone() for p in parameters]
        moved = [end - before for end, (_, before) in zip(after, start, strict=True)]
        effects = []
        try:
            torch._foreach_copy_(parameters, [before + way / 2 for (_, before), way in zip(start, moved, strict=True)])
            for part, closure in enumerate(self.closures):

                def losses(part: int = part, closure: Closure = closure) -> list[Tensor | None]:
                    with owner._replay.passing(part):
                        found = _losses(closure())
                    return [None if (loss := found.get(task)) is None else loss.reshape(()) for task in owner.tasks]

                effects.append(forward_product(losses, parameters, moved).cpu().double())
        except (NotImplementedError, RuntimeError) as error:
            who = "DistributedDataParallel or the model" if agreement.processes() > 1 else "the model"
            raise RuntimeError(
                f"measure='jvp': something in {who} has no forward-mode derivative ({error}); use measure='losses'"
            ) from error
        finally:
            torch._foreach_copy_(parameters, after)
            torch.clear_autocast_cache()
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


def _losses(given: Any) -> Mapping[str, Tensor | None]:
    """What a closure gave, without the features."""
    losses: Mapping[str, Tensor | None] = given[0] if isinstance(given, tuple) else given
    return losses


def _there(loss: Tensor | None) -> bool:
    return loss is not None


def _parameters(optimizer: Optimizer) -> Iterable[Tensor]:
    return (p for group in optimizer.param_groups for p in group["params"])
