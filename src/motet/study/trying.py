"""One trial: an arm trained with one point of its search space, and judged on validation data alone."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from motet.problems.base import Data, Problem, Training
from motet.step import NonFiniteError
from motet.study.arms import Arm
from motet.study.choice import score
from motet.study.fit import Tick
from motet.study.plans import Followed
from motet.study.results import GROUPS, Epoch
from motet.study.training import train, train_alone
from motet.study.trials import Outcome
from motet.study.tuned import SHARED, Point

Report = Callable[[int, float], bool]
"""Told the number of an epoch and its score; whether to end the trial."""


def blind(data: Data) -> Data:
    """The same without its test part: what trains a model looks at one, and gets that for validation."""
    return replace(data, test=data.validation)


def attempt(
    problem: Problem,
    data: Data,
    arm: Arm,
    seed: int,
    training: Training,
    point: Point,
    reference: Mapping[str, float] | None,
    report: Report,
    tick: Callable[[Tick], None],
) -> Outcome:
    """Train an arm, or the models of single-task one by one, and say what came of it.

    Args:
        data: Of `blind`.
        training: The study's own settings, with the epochs of a trial.
        reference: Validation metrics of the tuned single-task models; None for these themselves.

    Raises:
        ValueError: if the arm can't be trained at all: its method refuses the losses of the first epoch.
    """
    if arm.method is None:
        return _alone(problem, data, arm, seed, point.training(training), report, tick)
    watch = _Watch(data, reference, report, tick)
    follow = None
    try:
        run = train(problem, data, arm.at(point), seed, point.training(training), reference, watch).run
        watch.note([notice.text for notice in run.warnings if notice.kind == "broke down"])
        follow = Followed.of(run) if arm.label == GROUPS else None
    except _Pruned:
        pass
    except ValueError as error:
        watch.broke(error)
    broken = {SHARED: watch.broken} if watch.broken else {}
    return Outcome({SHARED: watch.best}, watch.validation, watch.epochs, broken, watch.pruned, follow)


def _alone(
    problem: Problem, data: Data, arm: Arm, seed: int, training: Training, report: Report, tick: Callable[[Tick], None]
) -> Outcome:
    """One model a task: what breaks one down is nothing to the others, and none is pruned."""
    watches = {task.name: _Watch(data, None, lambda *_: False, tick) for task in data.tasks}
    for task in data.tasks:
        watch = watches[task.name]
        watch.tasks = (task,)
        try:
            run = train_alone(problem, data, task, arm, seed, training, watch).run
            watch.note([notice.text for notice in run.warnings if notice.kind == "broke down"])
        except ValueError as error:
            watch.broke(error)
    curves = [watch.scores for watch in watches.values() if watch.scores]
    for index in range(max(map(len, curves), default=0)):
        report(index + 1, sum(curve[min(index, len(curve) - 1)] for curve in curves) / len(curves))
    return Outcome(
        scores={name: watch.best for name, watch in watches.items()},
        validation={name: watch.validation[name] for name, watch in watches.items()},
        epochs=max(watch.epochs for watch in watches.values()),
        broken={name: watch.broken for name, watch in watches.items() if watch.broken},
    )


class _Pruned(Exception):  # noqa: N818  as optuna's TrialPruned
    """The trial is ended for its scores."""


class _Watch:
    """Keeps what a trial is judged by, epoch by epoch; the same epoch is the best as in `motet.study.fit`."""

    def __init__(
        self, data: Data, reference: Mapping[str, float] | None, report: Report, tick: Callable[[Tick], None]
    ) -> None:
        self.tasks = data.tasks
        self.reference, self.report, self.tick = reference, report, tick
        self.best, self.epochs, self.broken, self.pruned = -math.inf, 0, "", False
        self.validation = dict.fromkeys((task.name for task in data.tasks), math.nan)
        self.scores: list[float] = []

    def __call__(self, done: Tick) -> None:
        self.epochs += 1
        epoch: Epoch = done.epoch
        found = score(self.tasks, epoch.validation, self.reference)
        self.scores.append(found)
        if found > self.best or self.epochs == 1:
            self.best, self.validation = found, dict(epoch.validation)
        self.tick(done)
        if self.report(epoch.epoch, found):
            self.pruned = True
            raise _Pruned

    def note(self, causes: list[str]) -> None:
        """Training said that it broke down."""
        self.broken = causes[0] if causes else ""

    def broke(self, error: ValueError) -> None:
        """Training could not go on: by its settings, unless it never got anywhere for another reason."""
        if not self.epochs and not isinstance(error.__cause__, NonFiniteError):
            raise error
        self.broken = str(error)
