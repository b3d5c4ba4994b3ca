"""A study: arms times paired seeds on one problem, kept on disk as they come, judged and reported at the end."""

import hashlib
import platform
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from motet import problems
from motet.metrics import METRICS
from motet.problems.base import Data, Problem, Split, Task, Training
from motet.study.arms import DEFAULT_ARMS, DEFAULT_SEEDS, Arm, parse_all
from motet.study.inference import seeds_needed
from motet.study.progress import Progress
from motet.study.results import SINGLE, SUM, Rule, Run, Summary, Verdict
from motet.study.statistics import summarise
from motet.study.store import Store, StoreError, read_runs, read_study
from motet.study.training import Trained, train


class Study:
    """Compare ways of training the tasks of one problem together.

    Every arm is trained once a seed. For one seed all arms have the same split, the same initial parameters,
    the same order of batches and the same dropout masks, so their differences are the arms' own.

    Args:
        problem: A problem or its name (`motet.problems.available`).
        arms: As `motet.study.arms.parse` reads them; single-task models and the plain sum are always there.
        seeds: How many (from 0), or which. Fewer than 6 can never give p < 0.05.
        out: Folder of the runs. Default: ``runs/PROBLEM``, with a number behind it where that is taken.
        resume: Go on with the runs in ``out``, or in the newest folder of this problem; finished runs are kept.
        training: How every arm trains. Default: the problem's own.
        rule: When to adopt; fix it before you look at results.
        progress: Whether to show a bar with the time left.

    Raises:
        ValueError: for an unknown problem or arm, and where ``out`` holds something else.

    >>> study = Study("digits-overlay", arms=["fair-grad"], seeds=2)
    >>> [arm.label for arm in study.arms]
    ['stl', 'sum', 'fair-grad']
    """

    def __init__(
        self,
        problem: str | Problem,
        arms: Sequence[str] = DEFAULT_ARMS,
        seeds: int | Sequence[int] = DEFAULT_SEEDS,
        *,
        out: str | Path | None = None,
        resume: bool = False,
        training: Training | None = None,
        rule: Rule | None = None,
        progress: bool = False,
    ) -> None:
        self.problem = problems.get(problem) if isinstance(problem, str) else problem
        self.arms: list[Arm] = parse_all(arms)
        self.seeds = list(range(seeds)) if isinstance(seeds, int) else list(dict.fromkeys(seeds))
        if not self.seeds or min(self.seeds) < 0:
            raise ValueError(f"seeds must be a number of at least 1, or a list of numbers from 0, not {seeds!r}")
        self.training = training or self.problem.training
        self.rule = rule or Rule()
        self.progress = progress
        self.resume = resume
        self.folder = Path(out) if out is not None else _folder(self.problem.name, resume)
        self._summary: Summary | None = None
        self._data: tuple[int, Data] | None = None

    def too_few_seeds(self) -> str | None:
        """Why these seeds can't show that an arm is better than the plain sum, however large the difference."""
        candidates = len([arm for arm in self.arms if arm.label not in (SINGLE, SUM)])
        needed = seeds_needed(self.rule.alpha, max(candidates, 1))
        if len(self.seeds) >= needed:
            return None
        return (
            f"{len(self.seeds)} seeds can't show that one of {candidates} arms is better than the plain sum, "
            f"however large the difference; {needed} can"
        )

    def run(self) -> "Study":
        """Train what is not trained yet. Ctrl-C loses the run in progress and nothing else."""
        store = Store(self.folder, self._config(), self.resume)
        self.resume = True  # A second call goes on with what the first one did.
        todo = [(arm, seed) for seed in self.seeds for arm in self.arms if (arm.label, seed) not in store]
        with _single_thread(), Progress(self.progress, len(todo), self.training.epochs) as progress:
            checked: tuple[int, str] | None = None
            for arm, seed in todo:
                data = self._load(seed)
                if checked is None or checked[0] != seed:
                    checked = (seed, fingerprint(data))
                    self._check_data(store, *checked)
                progress.start(f"{arm.label}, seed {seed}")
                reference = None if arm.label == SINGLE else store.get(SINGLE, seed).validation
                trained = train(self.problem, data, arm, seed, self.training, reference, progress.epoch)
                now = datetime.now(UTC).isoformat(timespec="seconds")
                store.put(_with_provenance(trained, store.path(arm.label, seed).name, checked[1], now), now)
                progress.finish()
        self._summary = None
        return self

    def runs(self) -> list[Run]:
        """The finished runs of this study's arms and seeds."""
        labels = [arm.label for arm in self.arms]
        wanted = [run for run in read_runs(self.folder) if run.arm in labels and run.seed in self.seeds]
        return sorted(wanted, key=lambda run: (labels.index(run.arm), run.seed))

    def tasks(self) -> tuple[Task, ...]:
        """The problem's tasks."""
        described = read_study(self.folder)["tasks"]
        return tuple(Task(**{**task, "labels": tuple(task["labels"])}) for task in described)

    def summary(self) -> Summary:
        """All statistics of the finished runs."""
        if self._summary is None:
            tasks = self.tasks()
            directions = {task.name: METRICS[task.metric].higher_is_better for task in tasks}
            self._summary = summarise(tasks, self.runs(), higher_is_better=directions, rule=self.rule)
        return self._summary

    def verdict(self) -> Verdict:
        """ADOPT, KEEP SUM, KEEP SINGLE or UNDECIDED, with reasons."""
        return self.summary().verdict

    def table(self) -> pd.DataFrame:
        """One row an arm: Δm with its interval, the comparison with the plain sum, worst task and cost."""
        rows = [
            {
                "arm": arm.arm,
                "seeds": arm.seeds,
                "delta_m": arm.delta_m.mean,
                "delta_m_low": arm.delta_m.low,
                "delta_m_high": arm.delta_m.high,
                "mean_rank": arm.mean_rank,
                "over_sum": arm.over_sum.mean,
                "p_sum_holm": arm.p_sum_holm,
                "worst_task": arm.worst_task,
                "worst_change": arm.worst_change,
                "harmed": len(arm.harmed),
                "step_cost": arm.step_cost,
                "peak_memory_mib": arm.peak_memory_mib,
            }
            for arm in self.summary().arms
        ]
        return pd.DataFrame(rows).set_index("arm")

    def report(self, path: str | Path = "report.html") -> Path:
        """Write the report, one HTML file that needs nothing else."""
        from motet import report

        described = read_study(self.folder)
        return report.write(
            Path(path),
            title=described["title"],
            problem={key: described[key] for key in ("title", "source", "caution", "notes")},
            tasks=self.tasks(),
            summary=self.summary(),
            runs=self.runs(),
            provenance={
                "command": shlex.join(["motet", *sys.argv[1:]]),
                "seeds": self.seeds,
                "arms": [arm.label for arm in self.arms],
                "training": described["training"],
                "versions": described["versions"],
                "data": {run.seed: run.provenance.get("data", "") for run in self.runs() if run.arm == SINGLE},
                "machine": f"{platform.system()} {platform.machine()}, one thread",
                "finished": max((run.provenance.get("finished", "") for run in self.runs()), default=""),
                "folder": str(self.folder),
            },
        )

    def _load(self, seed: int) -> Data:
        """The data of one seed; those of the last one are kept, since all its arms need them."""
        if self._data is None or self._data[0] != seed:
            self._data = (seed, self.problem.load(seed))
        return self._data[1]

    def _config(self) -> dict[str, Any]:
        """What all runs in one folder must share."""
        data = self._load(self.seeds[0])
        return {
            "problem": self.problem.name,
            "title": self.problem.title,
            "source": self.problem.source,
            "caution": self.problem.caution,
            "notes": list(data.notes),
            # Standardisation differs between splits, so the scale of one seed describes no study.
            "tasks": [asdict(replace(task, scale=1.0)) for task in data.tasks],
            "training": asdict(self.training),
            "versions": versions(),
        }

    @staticmethod
    def _check_data(store: Store, seed: int, data: str) -> None:
        if (SINGLE, seed) in store:
            before = store.get(SINGLE, seed).provenance.get("data")
            if before != data:
                raise StoreError(
                    f"the data of seed {seed} are not those that the finished runs in {store.folder} were trained on: "
                    "start anew in another folder with --out"
                )


def opened(folder: str | Path) -> Study:
    """The study in a folder, with the arms and seeds that it holds, for its table, verdict and report.

    Raises:
        StoreError: if the folder holds no study, or no finished run.
    """
    described = read_study(Path(folder))
    runs = read_runs(Path(folder))
    if not runs:
        raise StoreError(f"{folder} holds no finished run yet")
    name = described["problem"]
    problem = Problem(name, described["title"], described["source"], load=_no_data, caution=described["caution"])
    arms = list(dict.fromkeys(run.arm for run in runs))
    seeds = sorted({run.seed for run in runs})
    training = Training(**described["training"])
    return Study(problem, arms, seeds, out=folder, resume=True, training=training)


def versions() -> dict[str, str]:
    """The versions on which numbers depend."""
    found = {name: version(name) for name in ("motet", "torch", "numpy", "scikit-learn")}
    return {"python": platform.python_version(), **found}


def fingerprint(data: Data) -> str:
    """SHA-256 over all tensors of the three splits, 16 hex digits of it."""
    digest = hashlib.sha256()
    for split in (data.train, data.validation, data.test):
        for name, tensor in _tensors(split):
            digest.update(name.encode())
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _tensors(split: Split) -> Iterator[tuple[str, torch.Tensor]]:
    yield "inputs", split.inputs
    yield from sorted(split.targets.items())


def _with_provenance(trained: Trained, name: str, data: str, finished: str) -> Trained:
    known = {"id": name, "data": data, "finished": finished, **versions()}
    return replace(trained, run=replace(trained.run, provenance=known))


def _no_data(seed: int) -> Data:
    raise StoreError(f"a study that was opened for reading has no data to train seed {seed} on")


def _folder(problem: str, resume: bool) -> Path:
    """``runs/PROBLEM``, with the first number that is free; the newest one that exists, to go on with."""
    base, number = Path("runs") / problem, 1
    place = base
    while place.exists():
        newest, number = place, number + 1
        place = base.with_name(f"{base.name}-{number}")
        if resume and not place.exists():
            return newest
    return place


@contextmanager
def _single_thread() -> Iterator[None]:
    """Small models are fastest on one thread, and sums in another order would be other numbers."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
