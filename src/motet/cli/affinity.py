"""``motet affinity``: measure which tasks help which, and propose groups."""

import shlex
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from motet import loop
from motet.cli import checks, chosen
from motet.cli.output import INTERRUPTED, print_json
from motet.problems.table import TableProblem
from motet.study import terminal
from motet.study.options import Affinity
from motet.study.provenance import command

if TYPE_CHECKING:
    from motet.study.affinity import Source


def affinity(options: Affinity) -> int:
    """Measure, print and write the page; the exit code."""
    # Imported here: figures and template take half a second, which other commands should not wait for.
    from motet.report.affinity import write
    from motet.study import affinity, affinity_terminal

    checks.check_affinity(options)
    console = Console(stderr=options.json, highlight=False)
    make: Callable[[int], Source]
    said: tuple[str, ...] = ()
    if loop.is_factory(options.problem):
        chosen.refuse_columns(options.table, f"{options.problem} makes its own batches")
        make = partial(_loop, options.problem)
    else:
        problem = chosen.problem(options.problem, options.table, "affinity")
        if isinstance(problem, TableProblem):
            if len(options.table.target) < 2:
                raise ValueError(
                    f"affinity is between outcomes, and --target names one column, {options.table.target[0]}: "
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
        print_json({**asdict(found), "report": str(path)})
    else:
        affinity_terminal.summary(console, found, said)
        console.print(f"Page: {path}", soft_wrap=True)
    return INTERRUPTED if found.interrupted else 0


def _loop(name: str, seed: int) -> "Source":  # noqa: ARG001  whoever calls this has seeded the initial weights
    from motet.study.affinity import of_loop

    return of_loop(loop.load(name), name)


def _named(options: Affinity) -> str:
    """The problem or table as `motet compare` takes it."""
    parts = [options.problem]
    for name in ("target", "group", "time", "drop"):
        if value := getattr(options.table, name):
            parts += [f"--{name}", *([value] if isinstance(value, str) else value)]
    return shlex.join(parts)
