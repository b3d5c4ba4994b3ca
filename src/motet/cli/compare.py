"""``motet compare``: train the arms, print the verdict and write the report."""

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from motet.cli import checks, chosen
from motet.cli.output import INTERRUPTED, print_json
from motet.problems import factory
from motet.problems.base import Problem, Training
from motet.problems.table import TableProblem
from motet.study import loggers, terminal
from motet.study.arms import DEFAULT_ARMS, DEFAULT_SEEDS
from motet.study.description import read_study
from motet.study.files import StoreError
from motet.study.history import History, read_history
from motet.study.options import Compare
from motet.study.store import default_folder, holds_study
from motet.study.study import Study


def compare(options: Compare) -> int:
    """Train what is not trained yet; the exit code."""
    problem = chosen.problem(options.problem, options.table, "compare")
    folder = options.out or default_folder(problem.name, options.resume)
    resumed = folder if options.resume and holds_study(folder) else None
    training = replace(_usual(problem, options, resumed), **_given(options))
    checks.check(training, options)
    arms, seeds = _planned(options, resumed)
    console = Console(stderr=options.running.json, highlight=False)
    if isinstance(problem, TableProblem):
        terminal.table_problem(console, problem)
    told = loggers.chosen(options.running.log)
    study = Study(
        problem,
        arms,
        seeds,
        out=options.out,
        resume=options.resume,
        training=training,
        rule=checks.rule(options),
        progress=not options.running.quiet,
        tuning=options.trials,
        storage=options.running.storage,
        workers=options.running.workers,
        max_seeds=options.rule.max_seeds,
        loggers=told,
    )
    if options.resume and resumed is None:
        raise ValueError(f"there is nothing to resume in {study.folder}: leave --resume out to start a study there")
    if warning := study.too_few_seeds():
        console.print(f"Note: {warning}.\n")
    try:
        with ExitStack() as stack:
            for logger in told:
                stack.callback(logger.close)
            study.run()
    except KeyboardInterrupt:
        console.print(f"\nInterrupted: {_kept(study)}.", soft_wrap=True)
        return INTERRUPTED
    path = study.report(options.report)
    if options.running.json:
        print_json({**result(study), "report": str(path), "folder": str(study.folder)})
    else:
        terminal.summary(console, study.problem.title, study.summary(), study.problem.caution)
        console.print(f"Report: {path}\nRuns:   {study.folder}", soft_wrap=True)
        if more := study.verdict().more_seeds:
            seeds = study.verdict().seeds + more
            console.print(f"To add {more} seeds, repeat the command with", soft_wrap=True)
            console.print(f"--seeds {seeds} --resume --out {study.folder}", soft_wrap=True)
    return 0


def result(study: Study) -> dict[str, Any]:
    """A study's summary for machines."""
    return {"problem": study.problem.name, **asdict(study.summary())}


def _kept(study: Study) -> str:
    """What is left of an interrupted study, and how to go on."""
    if not holds_study(study.folder):
        return "nothing was trained yet; the same command starts anew"
    done = study.finished()
    what = f"{done} of {len(study.arms) * len(study.seeds)} runs are"
    if not done and read_study(study.folder).tuning is not None:
        what = "what was finished of its tuning is"
    return f"{what} kept in {study.folder}; the same command with --resume --out {study.folder} goes on"


def _usual(problem: Problem, options: Compare, resumed: Path | None) -> Training:
    """What was not said about training: as the problem has it, or the study that is resumed.

    A function of the user's own may have been edited since, and that must be noticed.
    """
    if resumed is not None:
        with suppress(StoreError):  # Whatever is wrong with the folder, `Study.run` says or mends it.
            stored = read_study(resumed)
            if stored.usual == problem.training or not factory.is_factory(options.problem):
                return stored.training
    return problem.training


def _planned(options: Compare, resumed: Path | None) -> tuple[Sequence[str], int | Sequence[int]]:
    """Arms and seeds: as they were named, or all of the study that is resumed, or the usual ones."""
    past = History() if resumed is None else read_history(resumed)
    seeds = past.seeds if options.rule.max_seeds is None else []  # Looks are counted from --seeds.
    return options.arms or past.arms or DEFAULT_ARMS, options.seeds or seeds or DEFAULT_SEEDS


def _given(options: Compare) -> dict[str, Any]:
    """What was said about training."""
    chosen_ = options.training
    return {field.name: value for field in fields(Training) if (value := getattr(chosen_, field.name)) is not None}
