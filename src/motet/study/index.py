"""A SQLite index over a study's runs, for tools of the user. It can always be made anew from the runs' folders."""

import logging
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from motet.study.results import Run

_log = logging.getLogger(__name__)

_SCHEMA = """
create table if not exists runs (
    id text primary key, arm text not null, seed integer not null, seconds real not null, finished text not null
)
"""


def agree(path: Path, runs: Mapping[str, Run]) -> None:
    """Make the index list exactly these runs, by the names of their folders. A damaged one is made anew."""
    try:
        _write(path, runs)
    except sqlite3.OperationalError:
        raise  # Locked or a full disk: nothing is wrong with the file.
    except sqlite3.DatabaseError as error:
        _log.warning("%s is damaged (%s) and is made anew from the runs", path, error)
        path.unlink()
        _write(path, runs)


def _write(path: Path, runs: Mapping[str, Run]) -> None:
    rows = [(n, r.arm, r.seed, r.cost.seconds, str(r.provenance.get("finished", ""))) for n, r in runs.items()]
    with closing(sqlite3.connect(path)) as index, index:
        index.execute(_SCHEMA)
        index.execute("delete from runs")
        index.executemany("insert into runs values (?, ?, ?, ?, ?)", rows)
