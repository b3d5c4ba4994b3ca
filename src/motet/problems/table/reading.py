"""Read a CSV or Parquet file, and say in one sentence what is wrong with one that is neither."""

import csv
import gzip
import io
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import TextIO

import pandas as pd

from motet.problems.table.decimals import decimal_commas, may_have_commas

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}


def read(path: Path, text: Collection[str] = ()) -> tuple[pd.DataFrame, list[str]]:
    """The table, and notes on how it was read.

    A file is Parquet or gzip by its first bytes, whatever it is called; everything else must be CSV in UTF-8
    with a header, separated by commas, semicolons or tabs; with the last two, decimal commas are understood
    (`motet.problems.table.decimals`). Empty cells and pandas' usual marks ("NA",
    "null", "None", "NaN" …) are missing values.

    Args:
        path: The file.
        text: Columns of a CSV that are names, whatever they look like: "007" stays "007".

    Raises:
        ValueError: if there is no such file or it is not a table.
    """
    if not path.is_file():
        near = ", ".join(sorted(entry.name for entry in path.parent.glob("*.csv"))[:3]) if path.parent.is_dir() else ""
        raise ValueError(f"there is no file {path}" + (f"; its folder has {near}" if near else ""))
    try:
        with path.open("rb") as file:
            start = file.read(4096)
        if not start.strip():
            raise ValueError(f"{path} is empty: write the table to it again")
        if start.startswith(b"PAR1"):
            return _parquet(path), []
        return _csv(path, start, text)
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error.strerror or error}") from error


def _parquet(path: Path) -> pd.DataFrame:
    import pyarrow

    try:
        table = pd.read_parquet(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} is a damaged Parquet file: {str(error).splitlines()[0]}") from error
    # An index with a name is a column to whoever wrote the file.
    return table.reset_index(drop=table.index.names == [None])


def _csv(path: Path, start: bytes, text: Collection[str]) -> tuple[pd.DataFrame, list[str]]:
    zipped = start.startswith(b"\x1f\x8b")
    if not zipped and b"\0" in start:
        kind = "an Excel or zip file" if start.startswith(b"PK") else "a binary file"
        raise ValueError(f"{path} is {kind} and not a CSV: save it as CSV (UTF-8, with a header) or Parquet")
    try:
        with _open(path, zipped) as file:
            header = file.readline()
        delimiter = _delimiter(path, header)
        with _open(path, zipped) as file:
            _check_shape(path, file, delimiter)
        with _open(path, zipped) as file:
            table = pd.read_csv(file, sep=delimiter, low_memory=False, dtype=dict.fromkeys(text, str))
        notes = [] if delimiter == "," else [f"read with {_DELIMITERS[delimiter]} between the columns"]
        if delimiter != "," and may_have_commas(table):
            with _open(path, zipped) as file:
                raw = pd.read_csv(file, sep=delimiter, dtype=str)
            table, more = decimal_commas(table, raw, semicolons=delimiter == ";")
            notes += more
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text (byte 0x{error.object[error.start]:02x}): save it as CSV in UTF-8"
        ) from error
    except (EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is a damaged gzip file: {error}") from error
    except (csv.Error, pd.errors.ParserError) as error:
        raise ValueError(f"{path} is not a CSV: {error}") from error
    return table, notes


def _open(path: Path, zipped: bool) -> TextIO:
    # utf-8-sig drops the byte-order mark that Excel writes, which would become part of the first name.
    if zipped:
        return io.TextIOWrapper(gzip.open(path), encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _delimiter(path: Path, header: str) -> str:
    found = max(_DELIMITERS, key=header.count)
    if found not in header:
        raise ValueError(
            f"{path} has one column only, since its first line has no comma, semicolon or tab: {header.strip()[:60]!r}"
        )
    return found


def _check_shape(path: Path, file: TextIO, delimiter: str) -> None:
    """Names that occur twice, and rows of another length: pandas would rename the first and fill up the second."""
    rows = csv.reader(file, delimiter=delimiter)
    header = next(rows)
    if twice := [name for name, count in Counter(header).items() if count > 1 and name]:
        raise ValueError(f"{path} has the column {twice[0]!r} twice: rename one of them")
    empty, start = True, rows.line_num + 1
    for row in rows:
        if row and len(row) != len(header):
            if rows.line_num > start:
                raise ValueError(
                    f'{path} is not a regular CSV: line {start} opens a quote (") that goes on to line '
                    f"{rows.line_num}: "
                    "close it, or write a quote within a text twice"
                )
            raise ValueError(
                f"{path} is not a regular CSV: line {rows.line_num} has {len(row)} fields and the header {len(header)}"
            )
        empty, start = empty and not row, rows.line_num + 1
    if empty:
        raise ValueError(f"{path} has a header and no rows: write the table to it again")
