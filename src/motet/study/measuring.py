"""One training for measuring affinity: every task updated alone on every batch, and what is seen on the way."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from motet.grouping.affinity import Affinity
from motet.grouping.lookahead import lookahead_affinity
from motet.grouping.updates import GroupedUpdates
from motet.linalg import cosines
from motet.loop import Loop
from motet.routes import Exact, NoPathError
from motet.routes.forward_mode import untouched
from motet.routes.graph import owned
from motet.step import NonFiniteError

Estimator = Literal["pairwise", "regression"]
Floats = NDArray[np.float64]

BATCHES = 300
"""Length of a training where nothing is said, unless `EPOCHS` are fewer: each pair has nearly as many measurements."""
EPOCHS = 10
"""Passes over the batches after which a model may know its rows by heart, and tasks conflict for that reason."""
LEAST_BATCHES = 60
"""With fewer batches nothing can be told from noise, whatever their number of epochs."""
_STEP = 1 / 3
_MEMORY = 3.0
_POINTS = (("early", 0.1), ("middle", 0.5), ("late", 1.0))
_PROBES = 8
_LOOKS = 24  # How often the map is kept for the timeline.
_LR = 1e-3


@dataclass(frozen=True)
class View:
    """The map at one moment of one training, (K, K) each: NaN and infinite errors where nothing is known."""

    batch: int
    matrix: Floats
    counts: NDArray[np.int64]
    errors: Floats


@dataclass(frozen=True)
class Probe:
    """Look-ahead affinity and cosines of one training, means over its fixed batches with their errors: (K, K) each."""

    lookahead: Floats
    lookahead_errors: Floats
    cosines: Floats
    cosine_errors: Floats


class Measuring:
    """One training; see `motet.study.affinity.measure` for the arguments.

    Attributes:
        views: The map at some two dozen moments, by number of batches, "early", "middle" and "late" among them.
        probes: What else was measured at those three, by number of batches.
        points: Their names by number of batches.
        notes: What a reader must know.
        done, steps, passes: Batches, updates and forward passes so far.
    """

    def __init__(
        self,
        loop: Loop,
        epochs: int | None,
        seed: int,
        decay: float | None,
        estimator: Estimator,
        tick: Callable[[int, int], None],
    ) -> None:
        self.loop, self.tick = loop, tick
        self.notes: list[str] = []
        self.loop.model.train()
        self.length = _length(self.loop.batches, whole=epochs is not None)
        if epochs is not None:
            self.total = epochs * (self.length or 0)
        else:
            most = BATCHES if self.length is None else EPOCHS * self.length
            self.total = min(BATCHES, max(LEAST_BATCHES, most))
        if self.length and self.total > EPOCHS * self.length:
            self.notes.append(
                f"Each training was {self.total / self.length:.0f} passes over its {self.length} "
                f"{'batch' if self.length == 1 else 'batches'}, more than {EPOCHS}: late in it the model may know its "
                "rows by heart, and tasks then conflict that would not on new data."
            )
        self.fixed = _first(self.loop.batches, min(_PROBES, self.total))
        self.tasks, self.shared = self._look()
        optimizer = self.loop.optimizer or torch.optim.AdamW(self.loop.model.parameters(), lr=_LR)
        self.lr = _for_measuring(optimizer, self.notes)
        count = len(self.tasks)
        sizes = count if estimator == "pairwise" else max(2, round(math.sqrt(count)))
        measured = self.total if estimator == "pairwise" else self.total * (sizes - 1)
        self.decay = min(0.5, _MEMORY / measured) if decay is None else decay
        self.updates = GroupedUpdates(
            self.tasks,
            optimizer,
            decay=self.decay,
            estimator=estimator,
            grouping="singletons" if estimator == "pairwise" else "random",
            max_groups=None if estimator == "pairwise" else sizes,
            warmup=0,
            regroup_every=1,
            explore=0.0,
            model=self.loop.model,
            seed=seed,
        )
        self.points = {max(1, round(self.total * share)): name for name, share in _POINTS}
        self.views: dict[int, View] = {}
        self.probes: dict[int, Probe] = {}
        self.done = self.passes = self.steps = 0
        self.probing = 0.0

    @property
    def affinity(self) -> Affinity:
        """The map as it is now."""
        return self.updates.affinity

    def run(self) -> None:
        """Train to the end. Stopped with Ctrl-C, everything up to there stays."""
        looks = {max(1, round(self.total * (i + 1) / _LOOKS)) for i in range(_LOOKS)}
        for batch in _through(self.loop.batches, self.total):
            self._step(batch)
            if self.done in looks or self.done in self.points:
                self.look()
            if self.done in self.points:
                self._probe()
            self.tick(self.done, self.total)

    def look(self) -> None:
        """Keep the map as it is now."""
        counts = self.affinity.counts.numpy()
        matrix = np.where(counts > 0, self.affinity.matrix.numpy(), np.nan)
        self.views[self.done] = View(self.done, matrix, counts, self.affinity.standard_errors.numpy())

    def _look(self) -> tuple[list[str], list[Tensor]]:
        """The tasks of the fixed batches, and the parameters that they share."""
        names: dict[str, None] = {}
        common: dict[int, Tensor] = {}
        everything = list(self.loop.model.parameters())
        for batch in self.fixed:
            with untouched(everything):
                # One without its size yet gets it in the first call.
                watched = [p for p in everything if p.requires_grad and not is_lazy(p)]
                before = _state(watched)
                found = self._losses(batch)
                if _state(watched) != before:
                    raise ValueError(
                        "the losses change gradients or parameters: they must only compute, and call neither "
                        "backward() nor an optimizer, which is done for them"
                    )
                names |= dict.fromkeys(found)
                present = [loss for loss in found.values() if loss is not None and loss.requires_grad]
                common |= {id(leaf): leaf for leaf in owned(present, set())[1]} if present else {}
        if len(names) < 2:
            raise ValueError(
                f"affinity is between tasks, and the losses name {len(names)}: {', '.join(names) or 'none'}. "
                "They must be a dict with one scalar for each task"
            )
        if self.loop.shared is not None:
            given = self.loop.shared
            common = {id(p): p for p in (given.parameters() if isinstance(given, nn.Module) else given)}
        shared = [parameter for parameter in common.values() if parameter.requires_grad]
        if not shared:
            raise ValueError("no parameter is used by the losses of two tasks: without one, no task can affect another")
        return list(names), shared

    def _losses(self, batch: Any) -> Mapping[str, Tensor | None]:
        given = self._given(batch)
        return given if isinstance(given, Mapping) else given[0]

    def _given(self, batch: Any) -> Mapping[str, Tensor | None] | tuple[Mapping[str, Tensor | None], Any]:
        """What the loop's losses return, if it is what they must."""
        given = self.loop.losses(batch)
        losses: Any = given[0] if isinstance(given, tuple) and len(given) == 2 else given
        if not isinstance(losses, Mapping):
            raise ValueError(
                f"the losses must be a dict {{task: scalar}}, alone or with the features, not {type(losses).__name__}"
            )
        for task, loss in losses.items():
            if loss is None or (isinstance(loss, Tensor) and loss.numel() == 1):
                continue
            kind = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(
                f"the loss of {task!r} must be a tensor with one number, or None where the batch has no label of it, "
                f"not {kind}: hand over what backward() would be called on, without .item() or float()"
            )
        return given

    def _step(self, batch: Any) -> None:
        try:
            step = self.updates.step(lambda: self._given(batch))
        except NonFiniteError as error:
            raise ValueError(
                f"training broke down at batch {self.done + 1}: the loss or gradient of "
                f"{', '.join(map(repr, error.tasks)) or 'a task'} is not finite. A smaller learning rate of the "
                "optimizer, or a look at that batch's labels, may help"
            ) from error
        self.done += 1
        self.passes += step.passes
        self.steps += len(step.groups)

    def _probe(self) -> None:
        start = time.perf_counter()
        ahead = _mean(self._ahead(batch) for batch in self.fixed)
        self.probes[self.done] = Probe(*ahead, *_mean(self._cosines(batch) for batch in self.fixed))
        self.probing += time.perf_counter() - start

    def _ahead(self, batch: Any) -> Floats:
        try:
            found = lookahead_affinity(lambda: self._losses(batch), self.shared, self.lr, tasks=self.tasks)
        except ValueError as error:
            note = f"The look-ahead affinity could not be measured on every fixed batch: {error}."
            self.notes += [note] if note not in self.notes else []
            return np.full((len(self.tasks), len(self.tasks)), np.nan)
        return found.numpy()

    def _cosines(self, batch: Any) -> Floats:
        matrix = np.full((len(self.tasks), len(self.tasks)), np.nan)
        with untouched(self.shared):
            found = self._losses(batch)
            present = {task: loss for task, loss in found.items() if loss is not None and loss.requires_grad}
            while present:
                try:
                    gram = Exact(list(present.values()), self.shared, retain=True).gram()
                except NoPathError as error:  # A task that uses no shared parameter has no angle.
                    gone = [list(present)[index] for index in error.tasks]
                    present = {task: loss for task, loss in present.items() if task not in gone}
                    continue
                places = [self.tasks.index(task) for task in present]
                matrix[np.ix_(places, places)] = cosines(gram).cpu().numpy()
                break
        return matrix


def _for_measuring(optimizer: Optimizer, notes: list[str]) -> float:
    """Take momentum out and shorten the steps; the learning rate that remains, of the first group."""
    lr = float(optimizer.param_groups[0]["lr"])
    momentum: list[str] = []
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] * _STEP
        if "betas" in group and group["betas"][0]:
            momentum.append(f"β₁ = {float(group['betas'][0]):g}")
            group["betas"] = (0.0, *group["betas"][1:])
        if group.get("momentum"):
            momentum.append(f"momentum = {float(group['momentum']):g}")
            group["momentum"] = 0.0
            if "nesterov" in group:
                group["nesterov"] = False
    kind = type(optimizer).__name__
    notes.append(
        f"For measuring, {kind} ran with a third of its learning rate ({lr * _STEP:.2g} and not {lr:.2g})"
        + (f" and without momentum ({momentum[0]} is what it has)" if momentum else "")
        + ": long steps measure curvature"
        + (", and momentum would credit a task with what others' gradients did before" if momentum else "")
        + ". Signs usually carry over to ordinary training, sizes do not."
    )
    return lr * _STEP


def _length(batches: Iterable[Any], *, whole: bool) -> int | None:
    """How many batches there are. Where that must be counted, and not to the ``whole`` end, None stands for many."""
    if isinstance(batches, Sized):
        return len(batches)
    enough = None if whole else BATCHES // EPOCHS + 1
    count = sum(1 for _ in islice(batches, enough))
    return None if count == enough else count


def _state(parameters: Iterable[Tensor]) -> list[tuple[int, int | None, int | None]]:
    """What changes when a parameter or its gradient does."""
    return [
        (p._version, None if p.grad is None else id(p.grad), None if p.grad is None else p.grad._version)
        for p in parameters
    ]


def _first(batches: Iterable[Any], count: int) -> list[Any]:
    found: list[Any] = []
    for batch in batches:
        if len(found) >= count:
            break
        found.append(batch)
    if not found:
        raise ValueError("there are no batches: the loop's batches are empty")
    return found


def _through(batches: Iterable[Any], total: int) -> Iterator[Any]:
    """So many batches, from the start again where they end."""
    done = 0
    while done < total:
        before = done
        for batch in batches:
            yield batch
            done += 1
            if done == total:
                return
        if done == before:
            raise ValueError(
                f"the loop's batches gave nothing from batch {done + 1} on: they must give all batches every time"
            )


def _mean(matrices: Iterable[Floats]) -> tuple[Floats, Floats]:
    """The mean over batches and its standard error, by entry, of those that are finite: infinite below two."""
    stack = np.stack(list(matrices))
    known = np.isfinite(stack)
    count = known.sum(0)
    mean = np.where(count, np.where(known, stack, 0.0).sum(0) / np.maximum(count, 1), np.nan)
    square = np.where(known, (stack - mean) ** 2, 0.0).sum(0)
    return mean, np.where(count > 1, np.sqrt(square / np.maximum(count - 1, 1) / np.maximum(count, 1)), np.inf)
