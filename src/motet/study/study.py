"""A study: arms times paired seeds on one problem, kept on disk as they come, judged and reported at the end."""

import platform
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd

from motet import problems
from motet.metrics import METRICS
from motet.problems.base import Data, Problem, Task, Training
from motet.problems.table import TableProblem
from motet.study import caveats, history, looks, recipes, tables
from motet.study.arms import DEFAULT_ARMS, DEFAULT_SEEDS, Arm, parse_all, parse_seeds
from motet.study.database import address
from motet.study.description import Description, read_study, unscaled
from motet.study.exchange import Exchange
from motet.study.files import StoreError
from motet.study.jobs import Bench, Recipe
from motet.study.labels import labels
from motet.study.live import Live, read_state
from motet.study.pool import Inline, Pool
from motet.study.provenance import versions
from motet.study.results import SINGLE, SUM, Rule, Run, Summary, Tuning, Verdict
from motet.study.runner import Crew, Logger, Runner
from motet.study.schedule import alone, check_followers, ordered
from motet.study.sequential import seeds_needed
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
        workers: How many processes train at once, with the numbers of one. Their problem must hold no open files.
        storage: Database through which several machines or processes share the runs, each with its own ``out``:
            ``postgresql://USER@HOST/NAME``, or ``sqlite:///FILE`` on one machine. All name the same arms and seeds and
            end with the complete table. Machines should have alike processors: others differ in the last digits.
        max_seeds: Add seeds until the verdict is decided, up to so many; ``seeds`` are then those of the first look at
            it, and the next ones follow them. Fixed in the rule, which shares its level out between the looks.
        look_every: After how many more seeds to look again.
        tuning: How every arm is tuned first, or in how many trials. Default: not, or as the study that is resumed; with
            an arm that needs it, such as ``sum:tuned``, `motet.study.tuning.DEFAULT_TRIALS`. 0: not in any case.
        loggers: Told of every run that is trained here, as `motet.study.runner.Logger` says.
        progress: Whether to show a bar with the time left, or a line now and then where there is no terminal.

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
        workers: int = 1,
        storage: str | None = None,
        max_seeds: int | None = None,
        look_every: int = looks.DEFAULT_EVERY,
        tuning: Tuning | int | None = None,
        loggers: Sequence[Logger] = (),
        progress: bool = False,
    ) -> None:
        self.problem = problems.get(problem) if isinstance(problem, str) else problem
        self.arms: list[Arm] = parse_all(arms)
        if not resume and (why := alone(self.arms)):
            raise ValueError(why)
        self.seeds = parse_seeds(seeds)
        self.training = training or self.problem.training
        self.workers, self.storage = _whole("workers", workers), storage
        if storage is not None:
            address(storage)
        self.loggers, self.progress = loggers, progress
        self.resume = resume
        self.folder = Path(out) if out is not None else default_folder(self.problem.name, resume)
        self._looks = None if max_seeds is None else looks.plan(len(self.seeds), max_seeds, look_every)
        if rule is not None and self._looks is not None:
            rule = replace(rule, looks=self._looks)
        if rule is not None and rule.looks and len(self.seeds) > rule.looks[-1]:
            raise ValueError(f"the rule looks at {rule.looks[-1]} seeds at most, and {len(self.seeds)} are named")
        self._rule = rule
        self._untuned = tuning == 0 and not isinstance(tuning, bool)
        if self._untuned and (needs := [arm.label for arm in self.arms if arm.needs_tuning]):
            raise ValueError(f"{needs[0]} is tuned, and 0 trials are no tuning: leave the arm out, or give all trials")
        if isinstance(tuning, int):
            tuning = None if self._untuned else Tuning(_whole("tuning", tuning), self.training.epochs)
        self._tuning = tuning
        self._read: _Read | None = None
        self._bench = Bench(self.problem, self.folder)

    @property
    def rule(self) -> Rule:
        """When to adopt: that of the study in the folder, where it is this one."""
        stored = self._stored()
        return stored.rule if stored is not None else self._new_rule(None)

    def too_few_seeds(self) -> str | None:
        """Why these seeds can't show that an arm is better than the plain sum, however large the difference."""
        try:
            runs = self.runs() if self.resume else []
        except StoreError:
            runs = []  # Whatever is wrong with the folder, `run` says or mends it.
        arms = {arm.label for arm in self.arms} | {run.arm for run in runs}
        seeds = len({*self._planned(self.rule), *(run.seed for run in runs)})
        candidates = len(arms - {SINGLE, SUM})
        needed = seeds_needed(self.rule, max(candidates, 1))
        if needed is not None and seeds >= needed:
            return None
        which = "an arm" if candidates <= 1 else f"one of {candidates} arms"
        return (
            f"{seeds} {'seed' if seeds == 1 else 'seeds'} can't show that {which} is better than the plain sum, "
            f"however large the difference; {'more looks' if needed is None else needed} can"
        )

    def run(self) -> "Study":
        """Train what is not trained yet. Ctrl-C loses the runs in progress and nothing else.

        Raises:
            StoreError: if the folder can't be used, or its runs have other settings, data or another rule; if the
                database can't be used, or a process that trains dies.
            ValueError: if single-task or the plain sum can't be trained; see `motet.study.training.train`.
        """
        with single_thread():
            description = self._describe()
            data = self._bench.load(description.first_seed)[0]
            for arm in self.arms:
                arm.check([task.name for task in description.tasks])
                arm.check_model(self.problem, data, self.training)
            with ExitStack() as stack:
                exchange = None
                if self.storage is not None:  # First: where there is none, no folder is left behind.
                    exchange = stack.enter_context(closing(Exchange(self.storage, description)))
                store = stack.enter_context(Store(self.folder, description, self.resume))
                self.resume = True  # A second call goes on with what the first one did.
                self._train(store, exchange)
        return self

    def _train(self, store: Store, exchange: Exchange | None) -> None:
        """Tune, then train up to each look at the verdict in turn, until it is decided."""
        check_followers(ordered(self.arms, self._planned(store.description.rule), store.keys), store.keys)
        seconds = [(arm, store.get(arm, seed).cost.seconds) for arm, seed in store.keys]
        with ExitStack() as stack:
            live = stack.enter_context(Live(self.folder, self.progress, self.workers, seconds))
            runner = Runner(store, self._recipes(store, live), live, exchange, self.loggers)
            crew: Crew = Inline(self._bench, train, runner.tick)
            if self.workers > 1:
                crew = Pool(self.workers, self.problem, self.folder, runner.tick)
            stack.callback(crew.close)
            planned = self._planned(store.description.rule)
            there = {seed for arm, seed in store.keys if arm == SINGLE}
            history.planned(self.folder, [arm.label for arm in self.arms], {*planned, *there})
            for count in store.description.rule.looks or (len(planned),):
                runner.run(crew, self.arms, planned[:count])
                self._read = None
                # Who has gone beyond a look has found it undecided, and would now see seeds that it did not have.
                if not {seed for _, seed in store.keys} - set(planned[:count]) or count == len(planned):
                    history.looked(self.folder, store.seeds((SINGLE, SUM)))
                    if count < len(planned) and self.verdict().decision != "UNDECIDED":
                        break

    def _recipes(self, store: Store, live: Live) -> dict[str, Recipe]:
        """How each arm is trained, after tuning where the study has it."""
        tuning, rule = store.description.tuning, store.description.rule
        if tuning is None:
            return recipes.usual(self.arms, self.training)
        return recipes.tuned(
            self.problem,
            lambda seed: self._bench.load(seed)[0],
            self.arms,
            self.training,
            tuning,
            store=store,
            storage=self.storage,
            workers=self.workers,
            live=live,
            runs=rule.looks[0] if rule.looks else len(self.seeds),
        )

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
        return self._snapshot().summary

    def _snapshot(self) -> "_Read":
        """What is in the folder, read once: while another process trains, a second look would see more."""
        if self._read is None:
            stored = read_study(self.folder)
            if self._rule is not None:
                replace(stored, rule=self._rule).must_equal(stored, self.folder)
            runs, past = self.runs(), history.read_history(self.folder)
            common = [{run.seed for run in runs if run.arm == arm} for arm in (SINGLE, SUM)]
            summary = summarise(
                stored.tasks,
                runs,
                higher_is_better={task.name: METRICS[task.metric].higher_is_better for task in stored.tasks},
                rule=stored.rule,
                tuning=stored.tuning,
                rows_recur=not (stored.fresh or stored.fixed_test),
                notes=[
                    *caveats.of_optimizers(list(dict.fromkeys(run.arm for run in runs)), stored.tuning is not None),
                    *caveats.of_architectures(runs),
                    *caveats.of_seeds(runs, stored.fresh, stored.fixed_test),
                    *caveats.of_looks(past.looks, stored.rule.looks, len(set.intersection(*common)), len(past.seeds)),
                ],
            )
            self._read = _Read(stored, runs, summary)
        return self._read

    def verdict(self) -> Verdict:
        """ADOPT, KEEP SUM, KEEP SINGLE or UNDECIDED, with reasons."""
        return self.summary().verdict

    def table(self) -> pd.DataFrame:
        """One row an arm: Δm with its interval, the comparison with the plain sum, worst task and cost."""
        return tables.table(self.summary())

    def report(self, path: str | Path = "report.html") -> Path:
        """Write the report, one HTML file that needs nothing else."""
        from motet import report

        read = self._snapshot()
        stored, runs = read.stored, read.runs
        return report.write(
            Path(path),
            title=stored.title,
            problem={key: getattr(stored, key) for key in ("title", "source", "caution", "notes")},
            tasks=stored.tasks,
            summary=read.summary,
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
            tuning=stored.tuning,
            running=read_state(self.folder),
            labels=stored.labels,
        )

    def _stored(self) -> Description | None:
        """The study in the folder, where this one goes on with it; None where there is none, or it is damaged."""
        try:
            return read_study(self.folder) if self.resume and self.folder.exists() else None
        except StoreError:
            return None  # Whatever is wrong with the folder, `run` says or mends it.

    def _describe(self) -> Description:
        stored = self._stored()
        first = stored.first_seed if stored is not None else self.seeds[0]
        data, known = self._bench.load(first)
        return Description(
            problem=self.problem.name,
            title=self.problem.title,
            source=self.problem.source,
            caution=self.problem.caution,
            notes=list(data.notes),
            tasks=unscaled(data.tasks),
            table=isinstance(self.problem, TableProblem),
            training=self.training,
            rule=self._new_rule(stored),
            versions=versions(),
            first_seed=first,
            data=known,
            tuning=self._new_tuning(stored),
            fresh=self.problem.fresh,
            fixed_test=self.problem.fixed_test,
            labels=labels(data),
            usual=self.problem.training,
        )

    def _new_rule(self, stored: Description | None) -> Rule:
        """The rule that was asked for; what was not asked for is as it was."""
        rule = self._rule or (stored.rule if stored is not None else Rule())
        return rule if self._looks is None else replace(rule, looks=self._looks)

    def _new_tuning(self, stored: Description | None) -> Tuning | None:
        """As `_new_rule`.

        Raises:
            ValueError: if an arm needs tuning, and the study that is resumed has none.
        """
        if self._tuning is not None or self._untuned:
            return self._tuning
        needs = [arm.label for arm in self.arms if arm.needs_tuning]
        if stored is None:
            from motet.study.tuning import DEFAULT_TRIALS

            return Tuning(DEFAULT_TRIALS, self.training.epochs) if needs else None
        if needs and stored.tuning is None:
            raise ValueError(
                f"{needs[0]} is tuned, and the arms in {self.folder} were not: start anew in another folder with "
                "--out, and all are tuned alike"
            )
        return stored.tuning

    def _planned(self, rule: Rule) -> list[int]:
        """All seeds that may be trained: those of the last look, where looks are planned."""
        return looks.extended(self.seeds, rule.looks[-1]) if rule.looks else self.seeds


@dataclass(frozen=True)
class _Read:
    """A study as it was in its folder at one moment."""

    stored: Description
    runs: list[Run]
    summary: Summary


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


def _whole(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
    return value


def _no_data(seed: int) -> Data:
    raise StoreError(f"a study that was opened for reading has no data to train seed {seed} on")
