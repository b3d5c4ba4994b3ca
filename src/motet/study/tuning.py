"""Equal tuning: every arm of a study gets the same number of trials, of the same epochs, from the same search space.

Most gains of multi-task methods over the plain sum were found with a sum that was tuned less (Xin et al., NeurIPS 2022,
arXiv 2209.11379; Kurin et al., NeurIPS 2022, arXiv 2201.04122), and methods differ in the length of their steps by a
factor of ten, so that one learning rate for all favours some. Here all arms are tuned alike, single-task models first:
their tuned results on validation data are what the shared arms' scores refer to.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import optuna

from motet.problems.base import Data, Problem, Training
from motet.study.arms import Arm, parse
from motet.study.fit import Tick
from motet.study.provenance import fingerprint
from motet.study.results import GROUPS, SINGLE, Tuning
from motet.study.spaces import Space, checked
from motet.study.threads import single_thread
from motet.study.trials import Median, Outcome, Trials, open_storage, quiet, settings_of, storage_errors
from motet.study.trying import attempt, blind
from motet.study.tuned import SHARED, Choice, Point, Tuned
from motet.study.tuners import Tuners

DEFAULT_TRIALS = 16
"""Of each arm, where a study is tuned and nobody says with how many."""
_WAITS = (0.05, 2.0)
"""Least and most seconds between two looks at whether others are done; the longer nothing happens, the more."""


def tune(
    problem: Problem,
    data: Data,
    arms: Sequence[Arm],
    training: Training,
    tuning: Tuning,
    *,
    storage: str | None,
    folder: Path,
    name: str,
    workers: int = 1,
    tick: Callable[[Tick], None] = lambda _: None,
    finished: Callable[[str, int], None] = lambda *_: None,
) -> dict[str, Tuned]:
    """Tune all arms, or go on with it, and choose the best trial of each.

    Trial 0 has the study's own settings, and the others are the points of `motet.study.spaces`. A trial is trained on
    the training part and judged by its best epoch on the validation part; nothing sees the test part. Of single-task
    models each takes the best trial for its own task, which makes the baseline as strong as it can be. Trials that are
    clearly worse than the first ones are pruned (`motet.study.trials.Median`), and one that breaks down is the worst;
    both count. The result is the same however often it was interrupted, and whoever trained which trial.

    Args:
        data: Of the seed ``tuning.seed``.
        arms: Single-task models, and `groups` where a control follows it, are added where they are missing.
        training: The study's own settings, which are those of trial 0. No trial is longer than these runs.
        storage: URL of a database that several machines may share; None for a file in ``folder``.
        folder: Of the study, held by this process alone.
        name: Of the study, in the storage: its trials are found again by it.
        workers: Processes on this machine.
        tick: Called after each epoch of a trial.
        finished: Called with an arm's label and a trial's number for each trial that is done, once; also for those
            that were done before, or by another machine.

    Returns:
        What was chosen, by the arms' labels.

    Raises:
        StoreError: if the storage can't be used, or holds trials with other settings.
        ValueError: if all trials of an arm broke down, or a method refuses the losses.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    job = Work(problem, blind(data), _complete(arms), training, checked(tuning), storage, Path(folder), name)
    with quiet(), single_thread(), storage_errors(storage):
        session = Session(job, tick, finished, mend=True)
        if workers == 1:
            session.run()
        else:
            with Tuners(workers, job, tick) as tuners:
                while not session.done():
                    tuners.look(_WAITS[1] / 4)
        return {arm.label: session.chosen(arm) for arm in job.arms}


def _complete(arms: Sequence[Arm]) -> list[Arm]:
    """In the order of tuning: single-task models, on which all scores rest, and `groups` before what follows it."""
    found = {arm.label: arm for arm in arms}
    found.setdefault(SINGLE, parse(SINGLE))
    if any(arm.follows for arm in arms):
        found.setdefault(GROUPS, parse(GROUPS))
    return sorted(found.values(), key=lambda arm: (arm.label != SINGLE, arm.follows))


@dataclass(frozen=True)
class Work:
    """What a process must know to take part; see `tune`. ``data`` has no test part."""

    problem: Problem
    data: Data
    arms: list[Arm]
    training: Training
    tuning: Tuning
    storage: str | None
    folder: Path
    name: str

    @property
    def tasks(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(task.name for task in self.data.tasks)

    @property
    def short(self) -> Training:
        """The study's settings, with the epochs of a trial."""
        return replace(self.training, epochs=min(self.training.epochs, self.tuning.epochs))


class Session:
    """One process that trains trials, or watches others do so.

    Args:
        work: What there is to do.
        tick, finished: As `tune` has them.
        mend: Whether trials that run now are those of dead processes, where a file holds them.
    """

    def __init__(
        self,
        work: Work,
        tick: Callable[[Tick], None],
        finished: Callable[[str, int], None] = lambda *_: None,
        mend: bool = False,
    ) -> None:
        self.work, self.tick, self.finished = work, tick, finished
        storage = open_storage(work.storage, work.folder, mend)
        settings = {
            "tuning": asdict(work.tuning),
            "training": asdict(work.training),
            "problem": work.problem.name,
            "tasks": work.tasks,
            "data": fingerprint(work.data),
        }
        self.trials: dict[str, Trials] = {}
        for arm in work.arms:
            space = Space(arm, work.training, work.tuning, work.tasks)
            warmup = -(-work.short.epochs * arm.longer // 4)
            pruner = Median(space.generation, warmup) if arm.method is not None else None
            self.trials[arm.label] = Trials(storage, f"{work.name}/{arm.label}", space, settings_of(settings), pruner)
            if mend:
                self.trials[arm.label].recover(all_running=work.storage is None)
            self.trials[arm.label].enqueue()
        self._told: dict[str, set[int]] = {arm.label: set() for arm in work.arms}
        self._done: set[str] = set()

    def run(self) -> None:
        """Train until all trials are finished, by this process or another."""
        wait = _WAITS[0]
        while not self.done():
            if self.step():
                wait = _WAITS[0]
            else:
                time.sleep(wait)
                wait = min(2 * wait, _WAITS[1])

    def done(self) -> bool:
        """Whether all trials of all arms are finished.

        Raises:
            ValueError: if all those of one broke down.
        """
        for arm in self.work.arms:
            if arm.label in self._done or not self._ready(arm):
                continue  # What can't have begun need not be asked for: a database is slow to tell of many trials.
            outcomes = self.trials[arm.label].outcomes()
            for point in sorted(outcomes.keys() - self._told[arm.label]):
                self._told[arm.label].add(point)
                self.finished(arm.label, point)
            if len(outcomes) == self.work.tuning.trials:
                self._done.add(arm.label)
                self._check(arm, outcomes)
        return len(self._done) == len(self.work.arms)

    def step(self) -> bool:
        """Train one trial; False where there is none to be trained now."""
        for arm in self.work.arms:
            if arm.label in self._done or not self._ready(arm):
                continue
            trials = self.trials[arm.label]
            if (claimed := self._claim(arm)) is None:
                # A trial may have been interrupted elsewhere, or the next generation be known.
                trials.recover(all_running=False)
                trials.enqueue()
                claimed = self._claim(arm)
            if claimed is not None:
                self._train(arm, *claimed)
                return True
        return False

    def chosen(self, arm: Arm) -> Tuned:
        """The best trial of an arm, the first of equal ones."""
        trials, tasks = self.trials[arm.label], self.work.tasks
        outcomes, points = trials.outcomes(), trials.points()
        best = {}
        for of in (SHARED,) if arm.method is not None else tasks:
            able = [trial for trial in sorted(outcomes) if of not in outcomes[trial].broken]
            number = max(able, key=lambda trial: (outcomes[trial].score(of), -trial))
            best[of] = Choice(number, points[number], outcomes[number].score(of))
        epochs = sum(outcome.epochs for outcome in outcomes.values())
        return Tuned(arm.label, self.work.tuning.trials, epochs, best, tasks)

    def _ready(self, arm: Arm) -> bool:
        """Whether what an arm needs of others is known."""
        return (arm.method is None or SINGLE in self._done) and (not arm.follows or GROUPS in self._done)

    def _claim(self, arm: Arm) -> tuple[int, int] | None:
        trials = self.trials[arm.label]
        first = trials.space.generation
        judged = arm.method is None or set(range(first)) <= trials.outcomes().keys()
        return trials.claim(self.work.tuning.trials if judged else first)

    def _train(self, arm: Arm, number: int, place: int) -> None:
        trials = self.trials[arm.label]
        trial = trials.begin(number)

        def report(epoch: int, score: float) -> bool:
            if score in (float("inf"), float("-inf")):
                return False
            trial.report(score, epoch)
            return trial.should_prune()

        work = self.work
        try:
            point: Point = trials.points()[place]
            if arm.follows:
                arm = self._settled(arm)
            with trials.living(trial):
                outcome = attempt(
                    work.problem,
                    work.data,
                    arm,
                    work.tuning.seed,
                    work.short,
                    point,
                    self._reference() if arm.method is not None else None,
                    report,
                    self.tick,
                )
                trials.finish(trial, outcome)
        except optuna.exceptions.UpdateFinishedTrialError:
            pass  # Others took this process for dead, and give the point to another.
        except BaseException:
            trials.abandon(trial)
            raise

    def _reference(self) -> Mapping[str, float]:
        """The tuned single-task models' validation metrics."""
        best = self.chosen(parse(SINGLE)).best
        outcomes = self.trials[SINGLE].outcomes()
        return {task: outcomes[choice.trial].validation[task] for task, choice in best.items()}

    def _settled(self, arm: Arm) -> Arm:
        """A control of `groups`, with the numbers of its best trial."""
        best = self.chosen(parse(GROUPS)).best[SHARED]
        follow = self.trials[GROUPS].outcomes()[best.trial].follow
        assert follow is not None
        return arm.settled(follow)

    def _check(self, arm: Arm, outcomes: Mapping[int, Outcome]) -> None:
        for of in (SHARED,) if arm.method is not None else self.work.tasks:
            if all(of in outcome.broken for outcome in outcomes.values()):
                whose = f"task {of!r} of arm" if of else "arm"
                low, high = self.work.tuning.learning_rate
                raise ValueError(
                    f"every trial of {whose} {arm.label!r} broke down ({len(outcomes)} of {len(outcomes)}), the first "
                    f"one so: {outcomes[0].broken[of]}. Leave the arm out, or search smaller learning rates than "
                    f"{low:g} to {high:g}"
                )
