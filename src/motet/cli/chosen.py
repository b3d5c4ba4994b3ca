"""The problem that a command's arguments mean: one of motet's, a table, or a function of one's own."""

from pathlib import Path

from motet import problems
from motet.problems import factory
from motet.problems.base import Problem
from motet.problems.table import from_table
from motet.problems.table.suggestions import suggest
from motet.study.options import Columns

_ENDINGS = (".csv", ".tsv", ".txt", ".parquet", ".pq", ".gz", ".xlsx", ".xls", ".ods", ".json", ".sav", ".dta")


def problem(name: str, table: Columns, command: str) -> Problem:
    """Load or look up what is to be trained on.

    Args:
        name: As it was given.
        table: Its columns, where it is a table.
        command: The command's name, for the advice to a table without targets.

    Raises:
        ValueError: that says what is wrong with the name, the table or the function.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        tables = sorted(entry.name for entry in path.glob("*.csv"))[:3]
        here = f"it has {', '.join(tables)}" if tables else "there is no CSV file in it"
        raise ValueError(f"{name} is a folder, and a table is one file: {here}")
    if path.suffix == ".py":
        raise ValueError(f"{name} is code: name the function in it that returns the problem, as in {name}:problem")
    if factory.is_factory(name):
        refuse_columns(table, f"{name} is a problem with its own tasks")
        return factory.load(name)
    if path.suffix.lower() in _ENDINGS or path.is_file():
        if not table.target:
            raise ValueError(suggest(path, f"motet {command}"))
        return from_table(path, table.target, group=table.group, time=table.time, drop=table.drop)
    if "/" in name:
        raise ValueError(f"there is no file {name}, and no problem has a name like this: `motet problems` lists them")
    found = problems.get(name)
    refuse_columns(table, f"{found.name} is a problem with its own tasks")
    return found


def refuse_columns(table: Columns, reason: str) -> None:
    """Columns of what has none."""
    for option in ("target", "group", "time", "drop"):
        if getattr(table, option):
            raise ValueError(f"--{option} is for tables, and {reason}: leave it out")
