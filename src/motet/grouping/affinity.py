"""Proximal inter-task affinity, measured while training: Jeong & Yoon, ICLR 2025, arXiv 2502.11986."""

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from motet.grouping.attribution import Floats, Pairwise
from motet.grouping.regression import Regression
from motet.incoming import task_names
from motet.linalg import as_double

Losses = Mapping[str, Tensor | float | None]
Attribution = Literal["paper", "released"]
Estimator = Literal["pairwise", "regression"]

_FLOOR = 0.1
_HORIZON = 100


class Affinity:
    r"""How much an update of each task helps every other: a K×K map from the losses around updates of groups.

    An optimizer's step on the losses of the tasks in G, shared parameters and heads of G alike, changes the loss of
    task t from L to L'. Its proximal inter-task affinity is the relative decrease

        B_{G→t} = 1 - L'_t / L_t,                    positive where the update of G has helped t,

    and `matrix` splits what was measured of groups into pairs of tasks, as an exponential mean with the decay β.

    Args:
        tasks: Names of the K tasks.
        decay: β in (0, 1). The paper's code uses 1e-3 on NYUv2 and PASCAL-Context, 1e-4 on Taskonomy.
        attribution: "paper" credits the group that made the update. "released" credits the one that is updated next,
            as the paper's code does; to reproduce it, not to use it: it mixes the effects of all other groups into a
            pair's entry, so that helpers can come out negative.
        estimator: "pairwise" gives every member an n-th of its group's effect, with the sign rule of `pair_values`.
            "regression" finds each member's own part by least squares over many groups; see `Regression`. It can tell
            the members of a group apart as far as the groups change.

    Shapes:
        `matrix`, `counts`, `standard_errors`: (K, K), row = source, column = target, on the host.

    Scale:
        A loss times c > 0 leaves the map as it is.

    Cost:
        One transfer of the 2K losses an update; the rest is host arithmetic of tens of microseconds at K = 40.

    Note:
        Definition. With "paper" the relative decrease is (L - L') / max(|L|, s/10), clipped to [-1, 1]; s is the mean
        of |L| over about the last 100 updates. This is the definition for a positive loss, until it falls below a
        tenth of s, and makes sense of losses at and below zero, where a ratio does not. "released" takes the ratio,
        unclipped, and leaves out losses that are not positive.

        Bias. With "paper" an entry's mean is divided by 1 - (1-β)ⁿ for its own count n; "released" leaves the zero
        start in it. In both the pairwise rule drops negative values on the diagonal, so that the diagonal is too
        high where noise is of the size of the effect; the regression drops none.

        Standard errors take the measurements as independent. Successive batches of a training run are nearly so in
        their noise, but the affinity itself drifts, and that is not in them.

        Absent tasks (None, missing, or not finite) give no measurement, and an absent member gets no credit and
        takes no share.

    >>> affinity = Affinity(["depth", "edges"])
    >>> affinity.update(["depth"], before={"depth": 2.0, "edges": 1.0}, after={"depth": 1.5, "edges": 1.1})
    >>> [round(value, 3) for value in affinity.matrix[0].tolist()]
    [0.25, -0.1]
    """

    def __init__(
        self,
        tasks: Sequence[str],
        decay: float = 1e-3,
        attribution: Attribution = "paper",
        estimator: Estimator = "pairwise",
    ) -> None:
        self.tasks = tuple(task_names(tasks))
        if not self.tasks:
            raise ValueError("tasks is empty: an affinity needs the names of at least one task")
        if isinstance(decay, bool) or not isinstance(decay, float | int) or not 0 < decay < 1:
            raise ValueError(f"decay, the weight of a new measurement, must lie in (0, 1), not {decay!r}")
        for name, value, known in (("attribution", attribution, Attribution), ("estimator", estimator, Estimator)):
            if value not in get_args(known):
                raise ValueError(f"{name} must be one of {', '.join(get_args(known))}, not {value!r}")
        if estimator == "regression" and attribution == "released":
            raise ValueError("attribution='released' is a rule on pairs: it goes with estimator='pairwise'")
        self.decay = float(decay)
        self.attribution, self.estimator = attribution, estimator
        self.updates = 0
        self._lagged = attribution == "released"
        self._index = {task: index for index, task in enumerate(self.tasks)}
        count = len(self.tasks)
        self._pairs: Pairwise | Regression = (
            Regression(count, self.decay)
            if estimator == "regression"
            else Pairwise(count, self.decay, corrected=not self._lagged)
        )
        self._level, self._seen = np.zeros(count), np.zeros(count, dtype=np.int64)
        # A change that waits for the group to be credited with it, and the losses after it.
        self._held, self._after = np.full(count, np.nan), np.full(count, np.nan)
        self._solved: tuple[Tensor, Tensor] | None = None

    def update(
        self, group: Sequence[str], before: Losses, after: Losses, *, following: Sequence[str] | None = None
    ) -> None:
        """Take the losses before and after an optimizer's step on the tasks of ``group``, on the same batch.

        Args:
            group: Names of the tasks that were updated.
            before: Losses by task, of all tasks that have one: scalars, None where absent.
            after: The same after the step, with the same dropout masks where there are any.
            following: With attribution="released" the group that is updated next on this batch, to be credited.
                Without it the change waits for the next call, and is dropped if that call's ``before`` is not this
                one's ``after``, which is another batch. With "paper" it has no effect.

        Raises:
            ValueError: for an unknown task, a task twice in a group, an empty group, or a loss that is no scalar.
            TypeError: for a group that is a string, losses that are no dict, or a loss that is no number.
        """
        members = self._members(group, "group")
        credited = None if following is None else self._members(following, "following")
        losses = self._read(before, "before", after, "after")
        self.update_vectors(members, losses[0], losses[1], credited)

    def update_vectors(
        self, group: Sequence[int], before: Tensor, after: Tensor, following: Sequence[int] | None = None
    ) -> None:
        """`update` by task numbers and vectors in float64 on the host, NaN where absent, without checks: (K,), (K,)."""
        credited = following if self._lagged else group
        if credited is not None:
            self._held[:], self._after[:] = np.nan, np.nan
            self.update_batch([credited], before[None], after[None])
            return
        old, new = before.numpy(), after.numpy()
        if np.array_equal(self._after, old, equal_nan=True):
            self._credit([group], old[None], self._held[None])
        self._held, self._after = self._decrease(old, new), new.copy()

    def update_batch(self, groups: Sequence[Sequence[int]], before: Tensor, after: Tensor) -> None:
        """Take the updates of M disjoint groups on one batch at once, each with the group to be credited.

        Args:
            groups: By task numbers.
            before: Losses before each update, in float64 on the host, NaN where absent: (M, K).
            after: The same after it.
        """
        old, new = before.numpy(), after.numpy()
        if not self._lagged:
            self._follow_level(old[0])
        self._credit(groups, old, self._decrease(old, new))

    def update_pairs(self, values: Tensor) -> None:
        """Take pairwise measurements as they are, such as from gradients at the features: (K, K), NaN where none.

        Raises:
            ValueError: for another shape, or with estimator="regression", which is on groups.
        """
        if not isinstance(self._pairs, Pairwise):
            raise ValueError("estimator='regression' learns from groups: give pairs to estimator='pairwise'")
        count = len(self.tasks)
        if values.shape != (count, count):
            raise ValueError(f"values must be ({count}, {count}), a row for a source, not {tuple(values.shape)}")
        pairs = as_double(values.detach()).cpu().double().numpy()
        pairs = np.where(np.isfinite(pairs), pairs, np.nan)
        if not np.isnan(pairs).all():
            self._pairs.add_pairs(pairs, np.arange(count))
            self.updates, self._solved = self.updates + 1, None

    def relative(self, before: Losses | Tensor, after: Losses | Tensor) -> Tensor:
        """The relative decrease of the losses, positive where the update lowered them: (K,), NaN where unknown.

        Args:
            before: Losses by task, or a vector (K,) with NaN where absent.
            after: The same after an update.
        """
        if isinstance(before, Tensor) and isinstance(after, Tensor):
            vectors = torch.stack([before.detach().cpu().double(), after.detach().cpu().double()])
        elif isinstance(before, Tensor) or isinstance(after, Tensor):
            raise TypeError("before and after must be both dicts or both vectors")
        else:
            vectors = self._read(before, "before", after, "after")
        return torch.from_numpy(self._decrease(vectors[0].numpy(), vectors[1].numpy()))

    @property
    def matrix(self) -> Tensor:
        """B by pairs, row = source, column = target, zero where never measured: (K, K)."""
        return self._solve()[0].clone()

    @property
    def standard_errors(self) -> Tensor:
        """Of `matrix`: (K, K). Infinite below two measurements, and where a regression can't tell two tasks apart."""
        return self._solve()[1].clone()

    @property
    def counts(self) -> Tensor:
        """Measurements behind each entry: (K, K). For a regression those with the source in the group."""
        return torch.from_numpy(self._pairs.counts.copy())

    def state_dict(self) -> dict[str, Any]:
        """Everything for an exact resume: tensors by name beside tasks, decay, attribution, estimator and updates."""
        arrays = {"level": self._level, "seen": self._seen, "held": self._held, "after": self._after}
        return {
            "tasks": list(self.tasks),
            "decay": self.decay,
            "attribution": self.attribution,
            "estimator": self.estimator,
            "updates": self.updates,
            **{name: torch.tensor(array) for name, array in (arrays | self._pairs.arrays()).items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave. Nothing is changed if it does not fit.

        Raises:
            ValueError: if the state is incomplete, damaged, or of other tasks or options than this affinity's.
        """
        own = self.state_dict()
        if missing := own.keys() - state.keys():
            raise ValueError(f"this is no state of this affinity: it lacks {', '.join(sorted(missing))}")
        for name in ("tasks", "decay", "attribution", "estimator"):
            if state[name] != own[name]:
                raise ValueError(f"the state is of the {name} {state[name]}, this affinity's is {own[name]}")
        updates = state["updates"]
        if isinstance(updates, bool) or not isinstance(updates, int) or updates < 0:
            raise ValueError(f"updates in the state must be a whole number, not {updates!r}")
        tensors = {name: value for name, value in own.items() if isinstance(value, Tensor)}
        for name, value in tensors.items():
            given = state[name]
            if not isinstance(given, Tensor) or given.shape != value.shape or given.dtype != value.dtype:
                raise ValueError(f"{name} in the state must be a tensor of {value.dtype}, {tuple(value.shape)}")
            # What waits may be unknown.
            if given.isinf().any() or (name not in ("held", "after", "relative") and given.isnan().any()):
                raise ValueError(f"{name} in the state is not finite")
        arrays = {name: state[name].detach().cpu().clone().numpy() for name in tensors}
        level, seen, held, after = (arrays.pop(name) for name in ("level", "seen", "held", "after"))
        self._pairs.restore(arrays)
        self._level, self._seen, self._held, self._after = level, seen, held, after
        self.updates, self._solved = updates, None

    def _solve(self) -> tuple[Tensor, Tensor]:
        if self._solved is None:
            matrix, errors = self._pairs.solve()
            self._solved = torch.from_numpy(matrix), torch.from_numpy(errors)
        return self._solved

    def _follow_level(self, before: Floats) -> None:
        """Move the running mean of |L|: a plain mean at first, an exponential one later."""
        known = np.isfinite(before)
        self._seen += known
        size = np.abs(np.where(known, before, 0.0))
        self._level += known * (size - self._level) / np.minimum(np.maximum(self._seen, 1), _HORIZON)

    def _decrease(self, before: Floats, after: Floats) -> Floats:
        with np.errstate(all="ignore"):  # What is not finite is left out below.
            if self._lagged:
                change = np.where(before > 0, 1 - after / before, np.nan)
            else:
                change = (before - after) / np.maximum(np.abs(before), _FLOOR * self._level)
        change = np.where(np.isfinite(change), change, np.nan)
        return change if self._lagged else np.minimum(np.maximum(change, -1.0), 1.0)

    def _credit(self, groups: Sequence[Sequence[int]], before: Floats, change: Floats) -> None:
        """Give each change to the members of its group that were there: (M, K), (M, K)."""
        there = np.isfinite(before)
        whole = there.all() and not np.isnan(change).any()
        members = [np.asarray(group, dtype=np.int64) for group in groups]
        if not whole:
            members = [group[row[group]] for group, row in zip(members, there, strict=True)]
            kept = [i for i, group in enumerate(members) if len(group) and not np.isnan(change[i]).all()]
            members, change = [members[i] for i in kept], change[kept]
        if members:
            self._pairs.add(change, members)
            self.updates, self._solved = self.updates + len(members), None

    def _number(self, task: str, where: str) -> int:
        number = self._index.get(task)
        if number is None:
            near = difflib.get_close_matches(str(task), self.tasks, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it knows {', '.join(self.tasks)}"
            raise ValueError(f"{where} names the unknown task {task!r}: {hint}")
        return number

    def _members(self, group: Sequence[str], where: str) -> list[int]:
        if isinstance(group, str):
            raise TypeError(f"{where} must be a list of names; write {where}=[{group!r}]")
        members = [self._number(task, where) for task in group]
        if not members:
            raise ValueError(f"{where} is empty: name the tasks that were updated")
        if len(set(members)) < len(members):
            raise ValueError(f"{where} names a task twice: {', '.join(group)}")
        return members

    def _read(self, before: Losses, first: str, after: Losses, second: str) -> Tensor:
        """Both losses as float64 on the host, NaN where absent, in one transfer: (2, K)."""
        values = torch.full((2, len(self.tasks)), math.nan, dtype=torch.float64)
        places, tensors = [], []
        for row, (where, losses) in enumerate(((first, before), (second, after))):
            if not isinstance(losses, Mapping):
                raise TypeError(f"{where} must be a dict of task names and losses, not {type(losses).__name__}")
            for task, loss in losses.items():
                number = self._number(task, where)
                if isinstance(loss, Tensor):
                    if loss.numel() != 1:
                        raise ValueError(f"{where} has a loss of shape {tuple(loss.shape)} for {task!r}: reduce it")
                    places.append((row, number))
                    tensors.append(as_double(loss.detach().reshape(())))
                elif isinstance(loss, float | int | np.number) and not isinstance(loss, bool):
                    values[row, number] = float(loss)
                elif loss is not None:
                    raise TypeError(f"{where} has a {type(loss).__name__} as the loss of {task!r}, not a scalar")
        if tensors:
            device = tensors[0].device
            host = torch.stack([tensor.to(device) for tensor in tensors]).cpu().double()
            values[tuple(torch.tensor(places).T)] = host
        return values
