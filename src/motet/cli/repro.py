"""``motet repro``: train one run of a study again, and say whether it comes out the same."""

from dataclasses import asdict

from rich.console import Console
from rich.text import Text

from motet.cli import chosen
from motet.cli.output import print_json
from motet.study import repro as again
from motet.study.fit import Tick
from motet.study.repro import ReproOptions


def repro(options: ReproOptions) -> int:
    """Train, compare and print; 0 where it is the same, 1 where it is not."""
    problem = None
    if options.problem is not None:
        problem = chosen.problem(options.problem, options.table, f"repro {options.run} --problem")
    else:
        chosen.refuse_columns(options.table, "none is named with --problem")
    console = Console(stderr=True, highlight=False)
    with console.status(f"Training {options.run.name} again …") as status:

        def tick(found: Tick) -> None:
            task = f", {found.task}" if found.task else ""
            status.update(f"Training {options.run.name} again: epoch {found.epoch.epoch}{task} …")

        if options.quiet:
            status.stop()
        result = again.repro(options.run, problem, tick)
    if options.json:
        print_json({**asdict(result), "sentences": result.sentences()})
    else:
        Console(highlight=False).print(Text("\n".join(result.sentences())))
    return result.exit_code
