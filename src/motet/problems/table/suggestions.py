"""Which columns of a table look like outcomes, for whoever has not named any."""

import shlex
from pathlib import Path

import pandas as pd

from motet.columns import some
from motet.problems.table import missing
from motet.problems.table.columns import named_as_identifier, outcome
from motet.problems.table.names import named_as_outcome
from motet.problems.table.reading import read

_MOST = 4
"""Outcomes that are proposed: enough for a first comparison."""


def suggest(path: str | Path, command: str) -> str:
    """One sentence for a table without targets: what there is, what looks like an outcome, and the command to type.

    Names are all that this goes by, and where none tells anything, the last columns: only the user knows.

    Args:
        path: The table.
        command: As far as the table's name.

    Raises:
        ValueError: if the file is no table.
    """
    table, _ = read(Path(path).expanduser())
    table = table.set_axis([str(column) for column in table.columns], axis=1)
    kinds = {name: kind for name in table.columns if (kind := _kind(table, name))}
    if not kinds:
        raise ValueError(f"{path} has no column that could be predicted: each is constant, empty, or text throughout")
    named = [name for name in kinds if named_as_outcome(name)]
    proposed = named[:_MOST] or list(kinds)[-2:]
    why = "by their names, these may be outcomes" if named else "the last ones are often outcomes"
    listed = ", ".join(f"{name} ({kinds[name]})" for name in proposed)
    others = [name for name in table.columns if name not in proposed]
    example = shlex.join([*command.split(), str(path), "--target", *proposed])
    return (
        f"which columns shall be predicted? {path} has {len(table)} rows and {len(table.columns)} columns, and {why}: "
        f"{listed}. Name yours with --target, and leave out with --drop what is known only after them (there are also "
        f"{some(others)}), for example: {example}"
    )


def _kind(table: pd.DataFrame, name: str) -> str | None:
    """What the column would be as a target; None where nothing can be learned from it."""
    if named_as_identifier(name):
        return None
    try:
        column = missing.blank(table[[name]], [name])[0][name]
        return outcome(column, name, None).task.kind
    except ValueError:
        return None
