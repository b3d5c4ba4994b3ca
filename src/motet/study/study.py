"""A study: arms times paired seeds on one problem, kept on disk as they come, judged and reported at the end."""

import platform
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from motet import problems
from motet.metrics import METRICS
from motet.problems.base import Data, Problem, Task, Training
from motet.problems.table import TableProblem
from motet.study import caveats, history
from motet.study.arms import DEFAULT_ARMS, DEFAULT_SEEDS, Arm, parse_all, parse_seeds
from motet.study.description import Description, read_study
from motet.study.files import StoreError
from motet.study.fit import Trained
from motet.study.inference import seeds_needed
from motet.study.progress import Progress
from motet.study.provenance import command, fingerprint, versions
from motet.study.results import GROUPS, SINGLE, SUM, Rule, Run, Summary, Verdict
from motet.study.statistics import summarise
from motet.study.store import Store, default_folder, read_runs
from motet.study.threads import single_thread
from motet.study.training import train


class Study:
    """Compare ways of training the tasks of one problem together.

    Every arm is trained once a seed. For one seed all arms have the same split and the same order of batches, and those
    with one kind of model the same initial parameters and dropout masks, so their differences are the arms' own.

    Tables, verdict and report are of *all* runs in the folder, also those of arms and seeds that are not named now:
    leaving out what was tried already would make chance findings look surer than they are.

    Args:
        problem: A problem or its name (`motet.problems.available`).
        arms: As `motet.study.arms.parse` reads them; single-task models and the plain sum are always there.
        seeds: How many (from 0), or which. Fewer than 6 can never give p < 0.05.
        out: Folder of the runs. Default: ``runs/PROBLEM``, with a number behind it where that is taken.
        resume: Go on with the runs in ``out``, or in the newest folder of this problem; finished runs are kept.
        training: How every arm trains. Default: the problem's own.
        rule: When to adopt; fix it before you look at results. Default: `Rule()`, or that of the study that is
            resumed, which can't be changed.
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
        arms: str | Sequence[str] = DEFAULT_ARMS,
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
        if not resume and (alone := _alone(self.arms)):
            raise ValueError(alone)
        self.seeds = parse_seeds(seeds)
        self.training = training or self.problem.training
        self.progress = progress
        self.resume = resume
        self.folder = Path(out) if out is not None else default_folder(self.problem.name, resume)
        self._rule = rule
        self._summary: Summary | None = None
        self._data: tuple[int, Data, str] | None = None

    @property
    def rule(self) -> Rule:
        """When to adopt: that of the study in the folder, where it is this one."""
        stored = self._stored()
        return stored.rule if stored is not None else self._rule or Rule()

    def too_few_seeds(self) -> str | None:
        """Why these seeds can't show that an arm is better than the plain sum, however large the difference."""
        try:
            runs = self.runs() if self.resume else []
        except StoreError:
            runs = []  # Whatever is wrong with the folder, `run` says or mends it.
        arms = {arm.label for arm in self.arms} | {run.arm for run in runs}
        seeds = len({*self.seeds, *(run.seed for run in runs)})
        candidates = len(arms - {SINGLE, SUM})
        needed = seeds_needed(self.rule.alpha, max(candidates, 1))
        if seeds >= needed:
            return None
        which = "an arm" if candidates <= 1 else f"one of {candidates} arms"
        return (
            f"{seeds} {'seed' if seeds == 1 else 'seeds'} can't show that {which} is better than the plain sum, "
            f"however large the difference; {needed} can"
        )

    def run(self) -> "Study":
        """Train what is not trained yet. Ctrl-C loses the run in progress and nothing else.

        Raises:
            StoreError: if the folder can't be used, or its runs have other settings, data or another rule.
            ValueError: if single-task or the plain sum can't be trained; see `motet.study.training.train`.
        """
        description = self._describe()
        for arm in self.arms:
            arm.check([task.name for task in description.tasks])
            arm.check_model(self.problem, self._load(description.first_seed)[0], self.training)
        with Store(self.folder, description, self.resume) as store:
            self.resume = True  # A second call goes on with what the first one did.
            self._summary = None
            todo = [(arm, seed) for seed in self.seeds for arm in self.arms if (arm.label, seed) not in store]
            for seed in self.seeds:
                arms = [arm for arm, other in todo if other == seed]
                if alone := _alone(arms, (GROUPS, seed) in store):
                    raise ValueError(alone)
            # Within a seed, what takes its number of groups from another arm comes after it.
            todo.sort(key=lambda item: (self.seeds.index(item[1]), item[0].follows))
            with single_thread(), Progress(self.progress, len(todo), self.training.epochs) as progress:
                for count, (arm, seed) in enumerate(todo):
                    data, known = self._load(seed)
                    store.check_data(seed, known)
                    if arm.follows:
                        arm = arm.settled(store.get(GROUPS, seed))
                    progress.start(f"{arm.label}, seed {seed}", arm.longer)
                    reference = None if arm.label == SINGLE else store.get(SINGLE, seed).validation
                    trained = train(self.problem, data, arm, seed, self.training, reference, progress.epoch)
                    if count == 0:
                        history.started(self.folder, command())
                    store.put(
                        _with_provenance(
                            trained,
                            id=store.path(arm.label, seed).name,
                            study=description.digest(),
                            data=known,
                            finished=datetime.now(UTC).isoformat(timespec="seconds"),
                            **description.versions,
                        )
                    )
                    progress.finish()
            history.looked(self.folder, store.seeds((SINGLE, SUM)))
        return self

    def runs(self) -> list[Run]:
        """All finished runs in the folder: this study's arms in their order, then arms of earlier starts."""
        labels = [arm.label for arm in self.arms]
        place = {label: i for i, label in enumerate(labels)}
        return sorted(read_runs(self.folder), key=lambda run: (place.get(run.arm, len(place)), run.arm, run.seed))

    def finished(self) -> int:
        """How many runs of this study's own arms and seeds are done."""
        wanted = {(arm.label, seed) for arm in self.arms for seed in self.seeds}
        return len(wanted & {(run.arm, run.seed) for run in self.runs()})

    def tasks(self) -> tuple[Task, ...]:
        """The problem's tasks."""
        return tuple(read_study(self.folder).tasks)

    def summary(self) -> Summary:
        """All statistics of the finished runs.

        Raises:
            StoreError: if there is no study in the folder, or one whose rule is another.
        """
        if self._summary is None:
            stored = read_study(self.folder)
            if self._rule is not None:
                replace(stored, rule=self._rule).must_equal(stored, self.folder)
            runs = self.runs()
            self._summary = summarise(
                stored.tasks,
                runs,
                higher_is_better={task.name: METRICS[task.metric].higher_is_better for task in stored.tasks},
                rule=stored.rule,
                notes=[
                    *caveats.of_optimizers(list(dict.fromkeys(run.arm for run in runs))),
                    *caveats.of_architectures(runs),
                    *caveats.of_seeds(runs, stored.table),
                    *caveats.of_looks(history.read_history(self.folder).looks),
                ],
            )
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

        stored, runs = read_study(self.folder), self.runs()
        return report.write(
            Path(path),
            title=stored.title,
            problem={key: getattr(stored, key) for key in ("title", "source", "caution", "notes")},
            tasks=stored.tasks,
            summary=self.summary(),
            runs=runs,
            provenance={
                "command": history.read_history(self.folder).commands,
                "seeds": sorted({run.seed for run in runs}),
                "arms": list(dict.fromkeys(run.arm for run in runs)),
                "rule": asdict(stored.rule),
                "training": asdict(stored.training),
                "versions": stored.versions,
                "data": {run.seed: run.provenance.get("data", "") for run in runs if run.arm == SINGLE},
                "machine": f"{platform.system()} {platform.machine()}, one thread",
                "finished": max((run.provenance.get("finished", "") for run in runs), default=""),
                "folder": str(self.folder),
            },
        )

    def _load(self, seed: int) -> tuple[Data, str]:
        """The data of one seed with their fingerprint; the last ones are kept, since all arms of a seed need them."""
        if self._data is None or self._data[0] != seed:
            data = self.problem.load(seed)
            self._data = (seed, data, fingerprint(data))
        return self._data[1:]

    def _stored(self) -> Description | None:
        """The study in the folder, where this one goes on with it; None where there is none, or it is damaged."""
        try:
            return read_study(self.folder) if self.resume and self.folder.exists() else None
        except StoreError:
            return None  # Whatever is wrong with the folder, `run` says or mends it.

    def _describe(self) -> Description:
        stored = self._stored()
        first = stored.first_seed if stored is not None else self.seeds[0]
        data, known = self._load(first)
        return Description(
            problem=self.problem.name,
            title=self.problem.title,
            source=self.problem.source,
            caution=self.problem.caution,
            notes=list(data.notes),
            tasks=[replace(task, scale=1.0) for task in data.tasks],
            table=isinstance(self.problem, TableProblem),
            training=self.training,
            rule=self._rule or (stored.rule if stored is not None else Rule()),
            versions=versions(),
            first_seed=first,
            data=known,
        )


def opened(folder: str | Path) -> Study:
    """The study in a folder, with the arms and seeds that it holds, for its table, verdict and report.

    Raises:
        StoreError: if the folder holds no study, or no finished run.
    """
    stored = read_study(folder)
    runs = read_runs(folder)
    if not runs:
        raise StoreError(f"{folder} holds no finished run yet")
    problem = Problem(stored.problem, stored.title, stored.source, load=_no_data, caution=stored.caution)
    arms = list(dict.fromkeys(run.arm for run in runs))
    seeds = sorted({run.seed for run in runs})
    return Study(problem, arms, seeds, out=folder, resume=True, training=stored.training)


def _with_provenance(trained: Trained, **known: str) -> Trained:
    return replace(trained, run=replace(trained.run, provenance=known))


def _alone(arms: Sequence[Arm], here: bool = False) -> str:
    """Why the controls among these arms can't be trained without the arm `groups`; empty where it is there too."""
    following = [arm.label for arm in arms if arm.follows]
    if here or not following or any(arm.label == GROUPS for arm in arms):
        return ""
    return (
        f"{following[0]} takes its number of groups from the arm {GROUPS}, which is not in this study: add {GROUPS} to "
        "the arms, or write a number, as in sum:steps=3, sum:epochs=3 or groups:random=3"
    )


def _no_data(seed: int) -> Data:
    raise StoreError(f"a study that was opened for reading has no data to train seed {seed} on")
