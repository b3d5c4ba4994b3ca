"""``motet select`` from its options to its files."""

import math
import shlex
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.text import Text

from motet.report.select import write
from motet.selecting import sentences, terminal
from motet.selecting.analysis import Analysis, analyse
from motet.selecting.files import NAMES, write_files
from motet.selecting.fitting import holds_analysis
from motet.selecting.options import Select, check_select
from motet.selecting.table import open_new, open_table
from motet.study.provenance import command


def select(options: Select, console: Console) -> tuple[Analysis, dict[str, Any]]:
    """Do what was asked for; what was found, and the same as a dictionary for JSON.

    Raises:
        ValueError: in one sentence, for what can't be done.
    """
    check_select(options)
    table = open_table(options.table, options.outcome, options.drop, options.group)
    if options.predict is not None:
        open_new(options.predict, table)  # What is wrong with it shall be said now and not after the fit.
    folder = Path("runs") / f"{table.name}-select" if options.out is None else options.out
    _check_folder(folder, options)
    terminal.understood(console, table)
    folder.mkdir(parents=True, exist_ok=True)
    if options.jobs > 1:
        torch.set_num_threads(1)
    bar = not options.quiet
    if (halves := 2 * options.stability) and bar:
        again = shlex.join(["--resume", "--out", str(folder)])
        console.print(Text(f"{halves} fits on halves of the rows follow; Ctrl-C keeps them, and {again} goes on."))
    found = analyse(table, options, folder, lambda name: terminal.stage(name, shown=bar), bar=bar)
    files = write_files(folder, found)
    write(folder / "report.html", found, command())
    terminal.summary(console, found)
    console.print(Text(f"\nIn {folder}:"), soft_wrap=True)
    for name in files:
        console.print(Text(f"  {name:<20} {NAMES[name]}"), soft_wrap=True)
    return found, _json(found, folder, files)


def _check_folder(folder: Path, options: Select) -> None:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: name another folder with --out")
    there = holds_analysis(folder)
    if there and not options.resume:
        raise ValueError(f"{folder} holds an earlier analysis: add --resume to go on with it, or give another --out")
    if options.resume and not there:
        raise ValueError(f"there is nothing to resume in {folder}: leave --resume out to start there")


def _json(found: Analysis, folder: Path, files: list[str]) -> dict[str, Any]:
    features = found.features.reset_index()
    keep = features["selected"] | features["stable"] if "stable" in features else features["selected"]
    return {
        "headline": sentences.headline(found),
        "outcomes": [
            {
                "name": one.name,
                "kind": one.kind,
                "inferred": one.inferred,
                "rows": one.rows,
                "concordance": one.concordance,
                "standard_error": one.standard_error,
                "interval_holds": one.held[0],
                "new_rows": one.new,
            }
            for one in found.outcomes
        ],
        "lambda": found.net.lambda_best_,
        "selected": found.selected,
        "stable": found.stable,
        "expected_false": None if found.stability is None else found.stability.bound(),
        "permuted_p": None if found.control is None else found.control.p_mean,
        "features": features[keep].to_dict("records"),
        "notes": sentences.cautions(found),
        "interrupted": bool(found.unfinished),
        "folder": str(folder),
        "files": files,
        "seconds": math.ceil(found.seconds),
    }
