"""``motet report``: the page and the verdict of studies on disk, also of one that another process is running."""

import math
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.text import Text

from motet.cli.compare import result
from motet.cli.output import print_json
from motet.study import terminal
from motet.study.description import read_study
from motet.study.files import StoreError
from motet.study.live import State, read_state
from motet.study.options import Report
from motet.study.results import SINGLE, SUM
from motet.study.store import read_runs
from motet.study.study import opened


def report(options: Report) -> int:
    """Read, print and write; the exit code. No lock is taken: runs are there whole or not at all."""
    if not options.run:
        raise ValueError("which study? Name its folder, such as runs/digits-overlay")
    if options.out is not None and len(options.run) > 1:
        raise ValueError("--out is for one study: leave it out, and each report goes into its study's folder")
    console = Console(highlight=False)
    results = []
    for folder in options.run:
        state = read_state(folder) if folder.is_dir() else None
        _check(folder, state)
        study = opened(folder)
        path = study.report(options.out or folder / "report.html")
        running = asdict(state) if state is not None else None
        results.append({**result(study), "report": str(path), "folder": str(folder), "running": running})
        if not options.json:
            terminal.summary(console, study.problem.title, study.summary(), study.problem.caution)
            if state is not None:
                console.print(Text(f"This is the verdict so far: {progress(state)}. Stop when it is done, not when"))
                console.print("you like the verdict: chance has more than one look then.\n")
            console.print(f"Report: {path}", soft_wrap=True)
    if options.json:
        print_json(results)
    return 0


def progress(state: State) -> str:
    """How far a running study is, in a line."""
    left = "" if math.isnan(state.seconds_left) else f", about {max(1, math.ceil(state.seconds_left / 60))} min left"
    return f"{state.done} of {state.total} runs are done{left}"


def _check(folder: Path, state: State | None) -> None:
    """Say which folder holds no study, and what a study lacks for a verdict.

    Raises:
        StoreError: likewise.
    """
    if not folder.exists():
        raise StoreError(f"there is no folder {folder}{_near(folder)}")
    if not folder.is_dir():
        raise StoreError(f"{folder} is a file: name the study's folder, such as runs/digits-overlay")
    read_study(folder)
    runs = read_runs(folder)
    if {SINGLE, SUM} <= {run.arm for run in runs}:
        return
    wait = "wait for more" if state is not None else "go on with the command that made it and --resume"
    far = f" ({progress(state)})" if state is not None else ""
    what = "no finished run yet" if not runs else f"no finished run of {SINGLE} and {SUM} yet, which all is compared to"
    raise StoreError(f"{folder} holds {what}{far}: {wait}")


def _near(folder: Path) -> str:
    beside = folder.parent if folder.parent.is_dir() else Path("runs")
    studies = sorted(str(entry.parent) for entry in beside.glob("*/study.json"))[:3] if beside.is_dir() else []
    return f": there are {', '.join(studies)}" if studies else ": studies are in runs/ unless --out said otherwise"
