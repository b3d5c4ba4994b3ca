"""The command ``motet``: compare, affinity, select, report, repro, methods, problems; one file each."""

import errno
import sqlite3
import sys
from collections.abc import Callable
from typing import Any

import tyro
from rich.console import Console
from safetensors import SafetensorError
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes

from motet.cli.affinity import affinity
from motet.cli.compare import compare
from motet.cli.lists import list_methods, list_problems
from motet.cli.output import BAD_INPUT, INTERRUPTED, is_disk_full, log, print_error, print_json
from motet.cli.report import report
from motet.cli.repro import repro
from motet.cli.spelling import UsageError, check_spelling
from motet.selecting.options import Select
from motet.study.options import Affinity, Compare, Methods, Problems, Report
from motet.study.repro import ReproOptions


def main(arguments: list[str] | None = None) -> int:
    """Run the command. Exit codes: 0 done, 1 not reproduced, 2 wrong input, 130 interrupted."""
    try:
        return _run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED
    except UsageError as error:
        print_error(error)
        raise SystemExit(BAD_INPUT) from None  # As the parser does for what it finds itself.
    except (ValueError, ArithmeticError, OSError, ImportError) as error:
        print_error(error)
        return BAD_INPUT
    except (SafetensorError, sqlite3.Error) as error:
        if not is_disk_full(error):
            raise
        print_error(OSError(errno.ENOSPC, "no space left"))
        return BAD_INPUT


def _run(arguments: list[str]) -> int:
    commands: dict[str, type] = {
        "compare": Compare,
        "affinity": Affinity,
        "select": Select,
        "report": Report,
        "repro": ReproOptions,
        "methods": Methods,
        "problems": Problems,
    }
    check_spelling(commands, arguments)
    chosen = tyro.extras.subcommand_cli_from_dict(
        dict(commands),
        prog="motet",
        description="Multi-task learning: train one model for many outcomes, and see whether it was worth it.",
        args=arguments,
        config=(OmitArgPrefixes, FlagCreatePairsOff),
    )
    log()
    actions: dict[type, Callable[[Any], int]] = {
        Compare: compare,
        Affinity: affinity,
        Select: _select,
        Report: report,
        ReproOptions: repro,
        Methods: list_methods,
        Problems: list_problems,
    }
    return actions[type(chosen)](chosen)


def _select(options: Select) -> int:
    # Imported here: estimators and figures take a second, which other commands should not wait for.
    from motet.selecting.command import select

    found, result = select(options, Console(stderr=options.json, highlight=False))
    if options.json:
        print_json(result)
    return INTERRUPTED if found.unfinished else 0
