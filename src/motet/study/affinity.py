"""Which tasks help which, measured by short trainings of its own: what ``motet affinity`` does.

The trainings are made for measuring, not for a good model. Five choices differ from an ordinary one, and a note on the
result says each of them:

* **Every task is updated alone**, one after another on each batch, so that every pair is seen directly, with a
  standard error of its own, and nothing must be shared out among the members of a group. With
  ``estimator="regression"`` random groups, new in each batch, are updated instead and the pairs are solved for: about
  √K passes a batch in place of K, and less exact for it.
* **No momentum.** With Adam's β₁ = 0.9 nine tenths of a step are earlier gradients, of the other tasks too, and a task
  would be credited with what those did: on `digits-overlay` two tasks that hurt each other come out as helping.
* **A third of the learning rate.** At the full rate, single tasks overshoot (their own step raises their own loss),
  and what is measured is the curvature.
* The affinity forgets at a rate at which its memory is a third of the training, unless ``decay`` says otherwise, so
  that early, middle and late maps differ where the tasks' relations do.
* **Three trainings with other seeds**, and a map that is their mean. Errors of one training know the noise of its
  batches alone: on yeast, maps of other seeds differ three times as much. The errors here have both in them.
"""

import json
import math
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from motet.grouping.partition import partition
from motet.grouping.stability import stability
from motet.loop import Loop
from motet.losses import task_loss
from motet.losses.masked import labelled
from motet.problems.base import Data, Problem, Split
from motet.problems.views import Inputs
from motet.study.measured import HIGH, LOW, Groups, Measured, Pair, Snapshot, Sure, is_clear
from motet.study.measuring import Estimator, Floats, Measuring, Probe, View
from motet.study.threads import single_thread

RUNS = 3
"""Trainings with other seeds. With two, a common factor between seeds would rest on very little."""
LEAST_ROWS = 30
"""Training rows with labels of both tasks, below which a pair is greyed: with fewer no correlation shows either."""
LEAST_MEASUREMENTS = 20
"""Measurements of a pair in one training, below which it is greyed."""
SIGNIFICANCE = 1.0
"""Standard errors that an affinity must be above zero to join two tasks: as in `GroupedUpdates`."""
DRAWS = 500
SEEDS = 2**32
"""Seeds are below this."""
_NAMED = 5
"""Pairs that a sentence names at most."""
_ARMS = ("groups", "sum:steps=groups", "sum:epochs=groups", "groups:random")
"""What a proposal must beat: groups that are learnt on the way, and the controls."""
_PRIOR = 4
"""Degrees of freedom that all pairs together lend to the spread of one pair over seeds, of which there are few."""


@dataclass(frozen=True)
class Source:
    """What is measured, ready for it.

    Attributes:
        loop: Model, losses and batches.
        title: A line for the report.
        data: Where the data come from.
        command: The comparison that takes the proposed groups as an arm, without its arms; empty if there is none.
        notes: Of the data.
        rows: Training rows with labels of both tasks, by pair: (K, K) in the order of the losses. None if not known.
    """

    loop: Loop
    title: str
    data: str = ""
    command: str = ""
    notes: tuple[str, ...] = ()
    rows: list[list[int]] | None = None


@dataclass
class _Rows:
    """The training rows of a problem in a new order each time, in batches, the same for a seed."""

    split: Split
    size: int
    generator: torch.Generator

    def __len__(self) -> int:
        return math.ceil(len(self.split) / self.size)

    def __iter__(self) -> Iterator[tuple[Inputs, dict[str, Tensor]]]:
        for rows in torch.randperm(len(self.split), generator=self.generator).split(self.size):
            yield self.split.inputs[rows], {task: values[rows] for task, values in self.split.targets.items()}


def of_problem(problem: Problem, seed: int, named: str | None = None) -> Source:
    """A problem's model and training rows, as `motet.Study` trains them with this seed.

    Args:
        problem: A problem, or a table as one.
        seed: Of the split, the initial weights and the order of batches.
        named: How a command names the problem, where that is not its own name.
    """
    data = problem.load(seed)
    model = problem.model(data, seed)
    training = problem.training

    def losses(batch: tuple[Inputs, dict[str, Tensor]]) -> dict[str, Tensor | None]:
        outputs = model(batch[0])[1]
        return {task.name: task_loss(task, outputs[task.name], batch[1][task.name]) for task in data.tasks}

    optimizer = torch.optim.AdamW(model.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay)
    batches = _Rows(data.train, training.batch_size, torch.Generator().manual_seed(seed))
    return Source(
        Loop(model, losses, batches, optimizer, model.trunk),
        problem.title,
        problem.source,
        f"motet compare {named or problem.name}",
        (*data.notes, *([problem.caution] if problem.caution else [])),
        _shared_rows(data),
    )


def of_loop(loop: Loop, name: str) -> Source:
    """A loop of the user's own, ready to be measured. How many rows have labels of two tasks is not known of it."""
    return Source(loop, f"The loop {name}", "the loop's own batches")


def _shared_rows(data: Data) -> list[list[int]]:
    known = torch.stack([labelled(task, data.train.targets[task.name]) for task in data.tasks]).double()
    rows: list[list[int]] = (known @ known.T).long().tolist()
    return rows


def measure(
    make: Callable[[int], Source],
    *,
    runs: int = RUNS,
    epochs: int | None = None,
    seed: int = 0,
    decay: float | None = None,
    estimator: Estimator = "pairwise",
    tick: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> Measured:
    """Train and measure; see the module's docstring for how.

    Three times on the way (after a tenth, half and all of the batches) the look-ahead affinity by its definition and
    the cosines of the exact gradients are taken on up to eight fixed training batches, with the same random masks for
    every pass and no trace left in the model. That needs memory for K gradients of the shared parameters.

    Args:
        make: From a seed to what is trained with it, anew for each training.
        runs: Trainings, with the seeds ``seed``, ``seed + 1``, …
        epochs: Passes over the batches in each. Default: 300 batches, or 10 passes where these are fewer batches, but
            60 batches at least.
        seed: Of the first training.
        decay: Rate at which the affinity forgets, by measurement. Default: a memory of a third of a training.
        estimator: "pairwise" updates each task alone, "regression" random groups.
        tick: Called after each batch with the number done and to do, of all trainings.
        say: Called before training with a sentence on what can't be measured, if there is anything.

    Raises:
        ValueError: for fewer than two tasks, no batches, too few rows for any pair, options out of range, and losses
            that break down.
        KeyboardInterrupt: if stopped before anything was measured. Stopped later, it returns what was measured: of
            whole trainings, or of the first as far as it came.
    """
    for name, value in (("epochs", epochs), ("runs", runs)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    if decay is not None and not 0 < decay < 1:
        raise ValueError(f"decay is the weight of a new measurement and must lie between 0 and 1, not {decay}")
    if not 0 <= seed <= SEEDS - runs:
        raise ValueError(f"seed must lie between 0 and {SEEDS - runs} with {runs} trainings, not {seed}")
    start, done, interrupted = time.perf_counter(), list[Measuring](), ""
    with torch.random.fork_rng(devices=[]):
        for run in range(runs):
            torch.manual_seed(seed + run)
            source = make(seed + run)

            def advance(batches: int, total: int, before: int = run) -> None:
                if tick is not None:
                    tick(before * total + batches, runs * total)

            # A problem's model is small, and fastest on one thread.
            with single_thread() if source.rows is not None else nullcontext():
                one = Measuring(source.loop, epochs, seed + run, decay, estimator, advance)
                if not run and (warning := _unmeasurable(one.tasks, source.rows)) and say is not None:
                    say(warning)
                try:
                    one.run()
                except KeyboardInterrupt:
                    # A map of a few batches is none: better to say so than to draw it.
                    if not done and not (one.affinity.counts.numpy() >= LEAST_MEASUREMENTS).any():
                        raise
                    where = f"training {run + 1} of {runs}, after {one.done} of {one.total} batches"
                    kept = f", which do not count: the map is from {_whole(run)} alone"
                    interrupted = f"Interrupted in {where}{kept if done else ': the map is from these alone'}."
                    if not done:
                        with undisturbed():
                            one.look()
                        done.append(one)
                    break
            if done and one.tasks != done[0].tasks:
                raise ValueError(
                    f"the tasks were {', '.join(done[0].tasks)} and then {', '.join(one.tasks)}: "
                    "every training must have the same"
                )
            done.append(one)
        with undisturbed():
            return _Result(source, done, seed, interrupted, time.perf_counter() - start).measured(estimator, runs)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ignore Ctrl-C, so that a second one doesn't lose what the first one left to be written."""
    if threading.current_thread() is not threading.main_thread():  # Elsewhere signals neither arrive nor can be set.
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler if before is None else before)


def _whole(trainings: int) -> str:
    return "the whole training before" if trainings == 1 else f"the {trainings} whole trainings before"


def _unmeasurable(tasks: Sequence[str], rows: list[list[int]] | None) -> str:
    """Which pairs share too few rows to be measured, known before any training.

    Raises:
        ValueError: if all do.
    """
    if rows is None:
        return ""
    pairs = [(rows[i][j], tasks[i], tasks[j]) for i in range(len(tasks)) for j in range(i + 1, len(tasks))]
    few = [f"{one} and {other} ({count})" for count, one, other in pairs if count < LEAST_ROWS]
    if len(few) == len(pairs):
        raise ValueError(
            f"no two tasks have labels in {LEAST_ROWS} training rows in common, and with fewer no pair can be "
            f"measured: there are at most {max(pairs)[0]}. More rows are needed, or tasks that are labelled together"
        )
    if not few:
        return ""
    shown = ", ".join(few[:_NAMED]) + (f" and {len(few) - _NAMED} more" if len(few) > _NAMED else "")
    return (
        f"{len(few)} of {len(pairs)} pairs of tasks can't be measured, as they have labels in fewer than {LEAST_ROWS} "
        f"training rows in common: {shown}."
    )


class _Result:
    """All trainings, put together."""

    def __init__(self, source: Source, done: Sequence[Measuring], seed: int, interrupted: str, seconds: float) -> None:
        self.source, self.done, self.seed, self.interrupted, self.seconds = source, done, seed, interrupted, seconds
        self.tasks = done[0].tasks
        batches = sorted(set.intersection(*(set(one.views) for one in done)))
        self.looks = {batch: _together([one.views[batch] for one in done]) for batch in batches}
        self.last = self.looks[batches[-1]]
        self.thin = self._thin(self.last)

    def measured(self, estimator: Estimator, runs: int) -> Measured:
        first, names, count = self.done[0], self.tasks, len(self.tasks)
        snapshots = [self._snapshot(batch, first.points[batch]) for batch in self.looks if batch in first.points]
        if not snapshots or snapshots[-1].batch != self.last.batch:
            snapshots.append(self._snapshot(self.last.batch, "last"))
        late = snapshots[-1]
        matrix, errors = self._known(self.last)
        share = stability(matrix, errors, "correlation", draws=DRAWS, seed=self.seed, significance=SIGNIFICANCE)
        together = share.numpy()
        pairs = sorted(
            (self._pair(late, i, j) for i in range(count) for j in range(count) if i != j and not self.thin[i, j]),
            key=lambda pair: -pair.affinity,
        )
        above = [(i, j) for i in range(count) for j in range(i + 1, count)]
        return Measured(
            title=self.source.title,
            source=self.source.data,
            command=self._command(bool(pairs)),
            tasks=names,
            snapshots=snapshots,
            timeline=[Groups(batch, self._named(self._propose(view))) for batch, view in self.looks.items()],
            groups=[_sure(group, names, together, self.thin) for group in self._propose(self.last)],
            together=together.tolist(),
            undecided=[(names[i], names[j], float(together[i, j])) for i, j in above if LOW < together[i, j] < HIGH],
            pairs=pairs,
            greyed=[(names[i], names[j], self._why(i, j)) for i, j in above if self.thin[i, j]],
            disagreements=_disagreements(pairs),
            notes=self._notes(late),
            settings={
                "estimator": estimator,
                "updates": "each task alone" if estimator == "pairwise" else "random groups, new in each batch",
                "learning rate": first.lr,
                "decay": first.decay,
                "seeds": ", ".join(str(self.seed + run) for run in range(len(self.done))),
                "trainings": len(self.done),
                "trainings planned": runs,
                "batches of a training": first.total,
                "batches of an epoch": first.length,
                "fixed batches of look-ahead and cosines": len(first.fixed),
                "significance to join": SIGNIFICANCE,
                "draws": DRAWS,
            },
            cost={
                "batches": sum(one.done for one in self.done),
                "updates": sum(one.steps for one in self.done),
                "passes": sum(one.passes for one in self.done),
                "passes_per_batch": sum(one.passes for one in self.done) / sum(one.done for one in self.done),
                "seconds": self.seconds,
                "seconds_of_probes": sum(one.probing for one in self.done),
            },
            interrupted=bool(self.interrupted),
        )

    def _notes(self, late: Snapshot) -> list[str]:
        overshoot = [task for i, task in enumerate(self.tasks) if self._overshoots(late, i)]
        notes = [self.interrupted] if self.interrupted else []
        if len(self.done) == 1:
            notes.append("One training alone: the errors know nothing of what another seed would change.")
        notes += list(dict.fromkeys(note for one in self.done for note in one.notes))
        notes += self._changed()
        if overshoot:
            notes.append(
                f"Steps for {', '.join(overshoot)} mostly raise the loss of that same task: the learning rate "
                f"({self.done[0].lr:.2g}) is too high to measure it by, and its row and column mean little."
            )
        return [*notes, *self.source.notes]

    def _changed(self) -> list[str]:
        """A note if the middle of the training would have proposed other groups."""
        middle = next((batch for batch, name in self.done[0].points.items() if name == "middle"), None)
        if middle not in self.looks or middle == self.last.batch:
            return []
        # Pairs that were left out at the end are left out here, and no others: the errors know how few there are.
        before = self._named(self._propose(self.looks[middle], self.thin))
        after = self._named(self._propose(self.last))
        if before == after:
            return []
        was, now = ("; ".join(" + ".join(group) for group in groups) for groups in (before, after))
        return [
            f"The proposal depends on how long is trained: after {middle} batches it would be {was}, and after "
            f"{self.last.batch} it is {now}."
        ]

    def _command(self, measured: bool) -> str:
        """The comparison with the proposal as an arm, by the tasks' numbers."""
        if not self.source.command or not measured:
            return ""
        fixed = f"groups:fixed={json.dumps(self._propose(self.last), separators=(',', ':'))}"
        return f"{self.source.command} --arms {shlex.quote(fixed)} {' '.join(_ARMS)}"

    def _overshoots(self, late: Snapshot, i: int) -> bool:
        """Whether a task's own steps raise its own loss. The pairwise rule drops such values, so that they are missing
        from the count of the diagonal."""
        own = self._pair(late, i, i)
        if own.clear and own.affinity < 0:
            return True
        return own.measurements < max(late.counts[i]) / 2

    def _snapshot(self, batch: int, name: str) -> Snapshot:
        view, length = self.looks[batch], self.done[0].length
        probes = [one.probes[batch] for one in self.done if batch in one.probes]
        probe = _probed(probes, len(self.tasks))
        return Snapshot(
            name=name,
            batch=batch,
            epoch=batch / length if length else math.nan,
            matrix=view.matrix.tolist(),
            counts=view.counts.tolist(),
            standard_errors=view.errors.tolist(),
            lookahead=probe.lookahead.tolist(),
            lookahead_errors=probe.lookahead_errors.tolist(),
            cosines=probe.cosines.tolist(),
            cosine_errors=probe.cosine_errors.tolist(),
        )

    def _thin(self, view: View) -> NDArray[np.bool_]:
        """Pairs that share too little, in one direction at least."""
        few: NDArray[np.bool_] = view.counts < LEAST_MEASUREMENTS * len(self.done)
        if self.source.rows is not None:
            few |= np.array(self.source.rows) < LEAST_ROWS
        few |= few.T
        np.fill_diagonal(few, False)
        return few

    def _known(self, view: View, thin: NDArray[np.bool_] | None = None) -> tuple[Floats, Floats]:
        """The map and its errors, with nothing known of thin pairs."""
        thin = self._thin(view) if thin is None else thin
        return np.where(thin, np.nan, view.matrix), np.where(thin, np.inf, view.errors)

    def _propose(self, view: View, thin: NDArray[np.bool_] | None = None) -> list[list[int]]:
        matrix, errors = self._known(view, thin)
        return partition(matrix, "correlation", standard_errors=errors, significance=SIGNIFICANCE, seed=self.seed)

    def _named(self, groups: Sequence[Sequence[int]]) -> list[list[str]]:
        return [[self.tasks[index] for index in group] for group in groups]

    def _pair(self, late: Snapshot, i: int, j: int) -> Pair:
        rows = self.source.rows
        return Pair(
            self.tasks[i],
            self.tasks[j],
            late.matrix[i][j],
            late.standard_errors[i][j],
            late.lookahead[i][j],
            late.lookahead_errors[i][j],
            late.cosines[i][j],
            late.cosine_errors[i][j],
            late.counts[i][j],
            None if rows is None else rows[i][j],
        )

    def _why(self, i: int, j: int) -> str:
        counts, rows = self.last.counts, self.source.rows
        if rows is not None and rows[i][j] < LEAST_ROWS:
            return f"{rows[i][j]} training rows with labels of both, fewer than {LEAST_ROWS}"
        least = LEAST_MEASUREMENTS * len(self.done)
        return f"{min(counts[i, j], counts[j, i])} measurements, fewer than {least}"


def _together(views: Sequence[View]) -> View:
    matrix, errors = pooled(np.stack([view.matrix for view in views]), np.stack([view.errors for view in views]))
    return View(views[0].batch, matrix, np.sum([view.counts for view in views], axis=0), errors)


def _probed(probes: Sequence[Probe], tasks: int) -> Probe:
    if not probes:
        nothing = np.full((tasks, tasks), np.nan)
        return Probe(nothing, nothing, nothing, nothing)
    ahead = [(probe.lookahead, probe.lookahead_errors) for probe in probes]
    angles = [(probe.cosines, probe.cosine_errors) for probe in probes]
    stacked = [pooled(*(np.stack(part) for part in zip(*given, strict=True))) for given in (ahead, angles)]
    return Probe(*stacked[0], *stacked[1])


def pooled(values: Floats, errors: Floats) -> tuple[Floats, Floats]:
    """The mean over trainings with a standard error that has the spread between them in it: (R, K, K) twice → (K, K).

    An entry's variance in one training is the larger of what its batches say, σ², and of what R trainings say. The
    latter, s², has only R - 1 degrees of freedom, and is drawn towards φ σ² with a factor φ ≥ 1 that all pairs have in
    common, the mean of s²/σ²; φ counts as four degrees. Of one training its own errors are all that there is.
    """
    known = np.isfinite(values)
    count = known.sum(0)
    mean = np.where(count, np.where(known, values, 0.0).sum(0) / np.maximum(count, 1), np.nan)
    if len(values) == 1:
        return mean, errors[0]
    sure = known & np.isfinite(errors)
    within = np.where(sure, errors, 0.0) ** 2
    within = np.where(sure.any(0), within.sum(0) / np.maximum(sure.sum(0), 1), np.inf)
    spread = np.where(known, (values - mean) ** 2, 0.0).sum(0)
    comparable = (count > 1) & np.isfinite(within) & (within > 0) & ~np.eye(len(mean), dtype=bool)
    ratios = spread[comparable] / (count - 1)[comparable] / within[comparable]
    factor = max(1.0, float(ratios.mean())) if len(ratios) else 1.0
    variance = (_PRIOR * factor * within + spread) / (_PRIOR + np.maximum(count - 1, 0))
    return mean, np.sqrt(np.maximum(variance, within) / np.maximum(count, 1))


def _disagreements(pairs: Sequence[Pair]) -> list[tuple[Pair, str]]:
    """Pairs on which the affinity and another measure have clear signs, and opposite ones; the surest first."""
    found = []
    for pair in pairs:
        others = {"look-ahead": (pair.lookahead, pair.lookahead_error), "cosine": (pair.cosine, pair.cosine_error)}
        against = [
            name for name, (value, error) in others.items() if is_clear(value, error) and value * pair.affinity < 0
        ]
        if pair.clear and against:
            found.append((pair, " and ".join(against)))
    return sorted(found, key=lambda item: -abs(item[0].affinity) / max(item[0].error, 1e-300))


def _sure(group: Sequence[int], names: Sequence[str], together: Floats, thin: NDArray[np.bool_]) -> Sure:
    inside = [(float(together[i, j]), i, j) for i in group for j in group if i < j]
    outside = [(float(together[i, j]), i, j) for i in group for j in range(len(names)) if j not in group]
    least, *weakest = min(inside, default=(math.nan,))
    most, *neighbour = max(outside, default=(0.0,))
    known = any(not thin[i, j] for i in group for j in range(len(names)) if i != j)
    return Sure(
        [names[i] for i in group], least, [names[i] for i in weakest], most, [names[i] for i in neighbour], known
    )
