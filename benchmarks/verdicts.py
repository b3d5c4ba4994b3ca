"""Whether verdicts are right: simulated studies of small models, each trained in full and judged by the study's rule.

    python benchmarks/verdicts.py run FOLDER [--conditions null gain …] [--studies 200] [--workers 2]
    python benchmarks/verdicts.py judge FOLDER [--conditions …]
    python benchmarks/verdicts.py quick    # ten studies of each, run and judged
    python benchmarks/verdicts.py check    # that runs are the same with a study's measuring as without
    python benchmarks/verdicts.py planted  # what is true of the planted problems as they are delivered: 12 seeds

Study i has seeds i·1000 + s, so no two studies share rows, noise, initial parameters or order of batches; where the
question allows it, teachers of its own too. `run` appends one line a study to FOLDER/CONDITION.jsonl, with the test
and validation results of every run, and continues where it stopped. `judge` trains nothing.
"""

import argparse
import json
import math
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

from motet.metrics import METRICS
from motet.problems.base import Problem, Task, Training
from motet.problems.planted import PROBLEMS, Recipe, generate
from motet.study import fit, momentum
from motet.study.arms import Arm, parse
from motet.study.results import SINGLE, SUM, Interval, Notice, Rule, Run, RunCost, Summary, Tuning
from motet.study.spaces import Space
from motet.study.statistics import summarise
from motet.study.training import train
from motet.study.trying import attempt
from motet.study.trying import blind as trial_data
from motet.study.tuned import SHARED

STRIDE = 1000
"""Between the first seeds of two studies."""
TWIN = "twin"


@dataclass(frozen=True)
class Condition:
    """What is simulated.

    Attributes:
        about: One line for the table.
        recipe: Of the data.
        training: Of every arm.
        candidates: Arms beside single-task and the sum.
        twins: How many candidates are the plain sum again, with initial parameters and order of batches of their own.
        seeds: Of a study.
        teachers: Whether every study has its own.
        apart: Whether single-task models, too, share neither with the sum.
        trials: Of every arm, to tune it on the data of the first seed; none are pruned.
    """

    about: str
    recipe: Recipe
    training: Training
    candidates: tuple[str, ...] = ()
    twins: int = 0
    seeds: int = 8
    teachers: bool = True
    apart: bool = False
    trials: int = 0

    @property
    def labels(self) -> list[str]:
        """All candidates."""
        return [*self.candidates, *(f"{TWIN}{j + 1}" for j in range(self.twins))]


_USUAL = Training(epochs=12, patience=12, batch_size=40, learning_rate=0.15, width=6, depth=1)

CONDITIONS = {
    "null": Condition(
        "sharing helps, and no candidate is anything but the sum",
        Recipe(rows=80),
        _USUAL,
        twins=5,
        seeds=12,
        apart=True,
    ),
    "tuned": Condition(
        "the same, and every arm, twins too, is tuned once by trainings of its own",
        Recipe(rows=80),
        _USUAL,
        twins=3,
        apart=True,
        trials=12,
    ),
    "gain": Condition(
        "one candidate gains 3 points on the sum, and sharing helps",
        Recipe(rows=80, noise=(0.18, 0.18, 0.46, 0.46)),
        replace(_USUAL, epochs=14, patience=14),
        candidates=("uw",),
        twins=3,
        seeds=10,
        teachers=False,
    ),
    "idle": Condition(
        "tasks have nothing in common and room enough",
        Recipe(tasks=3, rows=80, own=1.0, noise=(0.5,)),
        replace(_USUAL, width=64, learning_rate=0.03),
        candidates=("uw", "famo", "rlw"),
    ),
    "negative": Condition(
        "tasks need three units each, and the trunk has three",
        Recipe(rows=120, own=1.0),
        replace(_USUAL, batch_size=60, width=3),
        candidates=("uw",),
    ),
    "scale": Condition(
        "losses that end apart by a factor of 100 and more",
        Recipe(rows=80, noise=(0.03, 0.03, 3.0, 3.0)),
        _USUAL,
        candidates=("uw", "si"),
    ),
    "conflict": Condition(
        "opposed gradients that do no harm",
        Recipe(rows=80, noise=(0.7,), opposed=1.0, twins=True),
        _USUAL,
        candidates=("pcgrad",),
    ),
    "noise": Condition(
        "40 % of the labels of two tasks are wrong",
        Recipe(rows=80, noise=(0.0,), flipped=0.4),
        _USUAL,
        candidates=("si",),
    ),
}


def study(name: str, number: int, conditions: dict[str, Condition] = CONDITIONS) -> dict[str, Any]:
    """Train all arms of one simulated study."""
    condition = conditions[name]
    teacher = number + 1 if condition.teachers else 0
    load = partial(generate, recipe=replace(condition.recipe, teacher=teacher))
    problem = Problem(f"simulated-{name}", condition.about, "generated", load, "", condition.training, _trunk)
    shared = [(label, label, 0) for label in (SUM, *condition.candidates)]
    shared += [(SUM, f"{TWIN}{j + 1}", 100 * (j + 1)) for j in range(condition.twins)]
    alone = 900 if condition.apart else 0
    chosen = tuned(condition, problem, number * STRIDE, [(SINGLE, SINGLE, alone), *shared]) if condition.trials else {}
    runs = []
    for seed in range(number * STRIDE, number * STRIDE + condition.seeds):
        data = problem.load(seed)

        def trained(arm: Arm, label: str, offset: int = 0, reference: dict[str, float] | None = None) -> Run:
            training = chosen.get(label, condition.training)
            run = train(problem, data, arm, seed + offset, training, reference).run  # noqa: B023
            return replace(run, arm=label, seed=seed)  # noqa: B023

        single = trained(parse(SINGLE), SINGLE, alone)
        runs.append(single)
        runs += [trained(parse(arm), label, offset, single.validation) for arm, label, offset in shared]
    return {"condition": name, "study": number, "teacher": teacher, "runs": [_kept(run) for run in runs]}


def tuned(
    condition: Condition, problem: Problem, seed: int, arms: Sequence[tuple[str, str, int]]
) -> dict[str, Training | dict[str, Training]]:
    """What each arm is to train with, single-task first: the best of as many trials, at the points of a study."""
    data, reference, found = trial_data(problem.load(seed)), None, {}
    tasks = tuple(task.name for task in data.tasks)
    tuning = Tuning(condition.trials, condition.training.epochs, learning_rate=(0.02, 0.6))
    for name, label, offset in arms:
        arm = parse(name)
        points = Space(arm, condition.training, tuning, tasks).points({})
        outcomes = [
            attempt(
                problem,
                data,
                arm,
                seed + offset,
                condition.training,
                point,
                reference,
                lambda *_: False,
                lambda _: None,
            )
            for point in points
        ]
        best = {
            of: max(range(len(points)), key=lambda trial: outcomes[trial].score(of))
            for of in ((SHARED,) if arm.method is not None else tasks)
        }
        given = {of: points[trial].training(condition.training) for of, trial in best.items()}
        if arm.method is None:
            reference = {task: outcomes[trial].validation[task] for task, trial in best.items()}
        found[label] = given.get(SHARED, given)
    return found


def _trunk(inputs: Tensor, training: Training) -> nn.Module:
    """Of the teacher's own form, so that two dozen steps are enough."""
    return nn.Sequential(nn.Linear(inputs.shape[1], training.width), nn.Tanh())


def _kept(run: Run) -> dict[str, Any]:
    """What a verdict is made of, without curves and streams."""
    kept = ("arm", "seed", "test", "validation", "best_epoch", "specialised", "cost", "warnings")
    return {key: value for key, value in asdict(run).items() if key in kept}


def _read(found: dict[str, Any]) -> Run:
    found = {"curve": [], "weights": [], "cosines": [], **found}
    warnings = [Notice(**notice) for notice in found.pop("warnings")]
    return Run(**{**found, "cost": RunCost(**found["cost"])}, warnings=warnings)


@contextmanager
def blind() -> Iterator[None]:
    """Without what a study measures beside training: memory, cosines, step lengths and momentum.

    On models of this size that is half of the time. `python benchmarks/verdicts.py check` shows that results are
    the same to the last bit.
    """
    with (
        mock.patch.object(fit, "peak_memory", lambda work, _: (work(), 0.0)),
        mock.patch.object(fit.Fit, "_probe_cosines", return_value=[]),
        mock.patch.object(fit.Fit, "_plain_length", return_value=0.0),
        mock.patch.object(momentum, "SUPPORTED", ()),
        # The public function also formats stack traces for devices that are not there, three a call.
        mock.patch.object(torch, "manual_seed", torch.default_generator.manual_seed),
    ):
        yield


def _alone() -> None:
    torch.set_num_threads(1)


def _blind_study(key: tuple[str, int]) -> dict[str, Any]:
    with blind():
        return study(*key)


def stored(folder: Path, name: str) -> dict[int, list[Run]]:
    """The runs of every whole study."""
    path = _file(folder, name)
    found = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue  # A kill cut it off.
        found[record["study"]] = [_read(run) for run in record["runs"]]
    return found


def run(folder: Path, names: Sequence[str], studies: int, workers: int) -> None:
    """Train what is not there yet, the first study of every condition first."""
    folder.mkdir(parents=True, exist_ok=True)
    done = {name: set(stored(folder, name)) for name in names}
    keys = [(name, number) for number in range(studies) for name in names if number not in done[name]]
    with ProcessPoolExecutor(workers, initializer=_alone) as pool:
        for (name, _), record in zip(keys, pool.map(_blind_study, keys), strict=True):
            with _file(folder, name).open("a") as file:
                file.write(json.dumps(record) + "\n")


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.jsonl"


@dataclass(frozen=True)
class View:
    """One way to judge the studies of a condition: with these candidates alone, and so many seeds or looks."""

    condition: str
    candidates: tuple[str, ...]
    seeds: int
    looks: tuple[int, ...] = ()

    def summary(self, runs: Sequence[Run]) -> Summary:
        """The verdict of one study: at the first look that decides, or the last."""
        for seeds in self.looks or (self.seeds,):
            found = self._at(runs, seeds)
            if found.verdict.decision != "UNDECIDED":
                break
        return found

    def _at(self, runs: Sequence[Run], seeds: int) -> Summary:
        first = min(run.seed for run in runs)
        arms = (SINGLE, SUM, *self.candidates)
        kept = [run for run in runs if run.arm in arms and run.seed < first + seeds]
        tasks = _tasks(self.condition)
        better = {task.name: METRICS[task.metric].higher_is_better for task in tasks}
        return summarise(tasks, kept, Rule(looks=self.looks), higher_is_better=better)


@lru_cache
def _tasks(name: str) -> tuple[Task, ...]:
    return generate(0, CONDITIONS[name].recipe).tasks


def views(name: str) -> list[View]:
    """All that is judged of a condition; more than once where that is the question."""
    condition = CONDITIONS[name]
    every = tuple(condition.labels)
    if name not in ("null", "tuned", "gain"):
        return [View(name, every, condition.seeds)]
    numbers = [n for n in (6, 8, 10, 12) if n <= condition.seeds]
    return [
        View(name, some, n, looks)
        for some in (every[:1], every)
        for n, looks in [*((n, ()) for n in numbers), (numbers[-1], tuple(numbers))]
    ]


@dataclass(frozen=True)
class Found:
    """What is counted of one verdict."""

    decision: str
    arm: str
    seeds: int
    harmed: tuple[str, ...]
    """Tasks that the plain sum is said to harm."""
    sum_change: float
    over_sum: tuple[float, ...]
    """Mean differences of the candidates to the sum."""


def _found(view: View, runs: Sequence[Run]) -> Found:
    summary = view.summary(runs)
    arms = {row.arm: row for row in summary.arms}
    over_sum = tuple(arms[arm].over_sum.mean for arm in view.candidates)
    verdict = summary.verdict
    return Found(
        verdict.decision, verdict.arm, verdict.seeds, tuple(arms[SUM].harmed), arms[SUM].delta_m.mean, over_sum
    )


RIGHT: dict[str, tuple[str, Callable[[Found], bool]]] = {
    "null": ("false ADOPT", lambda f: f.decision == "ADOPT"),
    "tuned": ("false ADOPT", lambda f: f.decision == "ADOPT"),
    "gain": ("ADOPT of uw", lambda f: f.decision == "ADOPT" and f.arm == "uw"),
    "idle": ("false ADOPT", lambda f: f.decision == "ADOPT"),
    "negative": (
        "KEEP SINGLE, or undecided and harmed tasks named",
        lambda f: f.decision == "KEEP SINGLE" or (f.decision == "UNDECIDED" and bool(f.harmed)),
    ),
    "scale": ("ADOPT of uw or si, or KEEP SINGLE", lambda f: f.decision in ("ADOPT", "KEEP SINGLE")),
    "conflict": ("false alarm: KEEP SINGLE, or a task named", lambda f: f.decision == "KEEP SINGLE" or bool(f.harmed)),
    "noise": ("false alarm: KEEP SINGLE", lambda f: f.decision == "KEEP SINGLE"),
}
"""What is counted of each condition."""


def judge(folder: Path, names: Sequence[str], workers: int) -> None:
    """Print one row for each view, then what is true of the arms, over all studies and seeds."""
    print("| condition | candidates | seeds | studies | ADOPT | KEEP SUM | KEEP SINGLE | UNDECIDED | counted | share |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    truths = []
    with ProcessPoolExecutor(workers, initializer=_alone) as pool:
        for name in names:
            studies = list(stored(folder, name).values())
            for view in views(name) if studies else ():
                found = list(pool.map(partial(_found, view), studies, chunksize=4))
                print(_row(view, found), flush=True)
            if studies:
                truths.append(_truth(view, found))
    print("\n| condition | Δm of the sum | candidates minus the sum, points ± standard error |\n|---|---|---|")
    print("\n".join(truths))


def _row(view: View, found: Sequence[Found]) -> str:
    decisions = Counter(f.decision for f in found)
    what, counts = RIGHT[view.condition]
    hits = sum(map(counts, found))
    share = stats.binomtest(hits, len(found)).proportion_ci()
    seeds = str(view.seeds)
    if view.looks:
        seeds = f"looks {', '.join(map(str, view.looks))} (mean {np.mean([f.seeds for f in found]):.1f})"
    cells = [view.condition, " ".join(view.candidates), seeds, str(len(found))]
    cells += [str(decisions[decision]) for decision in ("ADOPT", "KEEP SUM", "KEEP SINGLE", "UNDECIDED")]
    cells += [what, f"{100 * hits / len(found):.1f} % ({100 * share.low:.1f} to {100 * share.high:.1f})"]
    return f"| {' | '.join(cells)} |"


def _truth(view: View, found: Sequence[Found]) -> str:
    def mean(values: Sequence[float]) -> str:
        return f"{np.mean(values):.2f} ± {np.std(values, ddof=1) / math.sqrt(len(values)):.2f}"

    differences = [
        f"{arm} {mean(values)}"
        for arm, values in zip(view.candidates, zip(*(f.over_sum for f in found), strict=True), strict=True)
    ]
    return f"| {view.condition} | {mean([f.sum_change for f in found])} | {', '.join(differences)} |"


def check() -> None:
    """Whether training without measuring gives the same results to the last bit."""
    small = {name: replace(condition, seeds=1) for name, condition in CONDITIONS.items()}
    for name in small:
        seen = [_results(study(name, 0, small))]
        with blind():
            seen.append(_results(study(name, 0, small)))
        print(f"{name}: {'the same' if seen[0] == seen[1] else 'DIFFERENT'}")


def _results(record: dict[str, Any]) -> list[dict[str, Any]]:
    return [{key: run[key] for key in ("arm", "test", "validation", "best_epoch")} for run in record["runs"]]


REMEDIES = {"planted-scale": ("si", "uw"), "planted-noise": ("si",), "planted-conflict": ("pcgrad",)}
"""What the plain sum of a planted problem is compared with, beside single-task."""


def _delivered(key: tuple[str, int]) -> list[Run]:
    name, seed = key
    problem = PROBLEMS[name]
    data = problem.load(seed)
    with blind():
        runs = [train(problem, data, parse(SINGLE), seed, problem.training).run]
        for label in (SUM, *REMEDIES.get(name, ())):
            runs.append(train(problem, data, parse(label), seed, problem.training, runs[0].validation).run)
    return runs


def planted(workers: int, seeds: int = 12) -> None:
    """Print the changes against single-task of the planted problems, as they are delivered, with 95 % intervals."""
    keys = [(name, seed) for name in PROBLEMS for seed in range(seeds)]
    with ProcessPoolExecutor(workers, initializer=_alone) as pool:
        found = dict(zip(keys, pool.map(_delivered, keys), strict=True))
    print("| problem | arm | Δm | by task |\n|---|---|---|---|")
    for name, problem in PROBLEMS.items():
        tasks = problem.load(0).tasks
        runs = [run for key in keys if key[0] == name for run in found[key]]
        better = {task.name: METRICS[task.metric].higher_is_better for task in tasks}
        for row in summarise(tasks, runs, higher_is_better=better).arms:
            if row.arm != SINGLE:
                each = ", ".join(f"{task} {_interval(change)}" for task, change in row.per_task.items())
                print(f"| {name} | {row.arm} | {_interval(row.delta_m)} | {each} |")


def _interval(change: Interval) -> str:
    return f"{change.mean:.1f} ({change.low:.1f} to {change.high:.1f})"


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "judge", "quick", "check", "planted"])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--conditions", nargs="+", choices=CONDITIONS, default=list(CONDITIONS))
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    _alone()
    if given.command == "check":
        check()
    elif given.command == "planted":
        planted(given.workers)
    elif given.command == "quick":
        with tempfile.TemporaryDirectory() as folder:
            run(Path(folder), given.conditions, 10, given.workers)
            judge(Path(folder), given.conditions, given.workers)
    elif given.folder is None:
        parser.error(f"{given.command} needs a folder")
    elif given.command == "run":
        run(given.folder, given.conditions, given.studies, given.workers)
    else:
        judge(given.folder, given.conditions, given.workers)


if __name__ == "__main__":
    main()
