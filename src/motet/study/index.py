"""A SQLite index over a study's runs, for tools of the user. It can always be made anew from the runs' folders."""

import logging
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from motet.study.lock import is_busy
from motet.study.results import Run

_log = logging.getLogger(__name__)

_SCHEMA = """
create table if not exists runs (
    id text primary key, arm text not null, seed integer not null, seconds real not null, finished text not null
)
"""


def agree(path: Path, runs: Mapping[str, Run]) -> None:
    """Make the index list exactly these runs, by the names of their folders. A damaged one is made anew.

    One that a user's tool holds open is left as it is: the next run brings it up to date.
    """
    try:
        _write(path, runs)
    except sqlite3.OperationalError as error:
        if not is_busy(error):
            raise  # A full disk: nothing is wrong with the file.
        _log.warning("%s is open elsewhere, so it is brought up to date with the next run", path)
    except sqlite3.DatabaseError as error:
        _log.warning("%s is damaged (%s) and is made anew from the runs", path, error)
        path.unlink()
        _write(path, runs)


def _write(path: Path, runs: Mapping[str, Run]) -> None:
    rows = [(n, r.arm, r.seed, r.cost.seconds, str(r.provenance.get("finished", ""))) for n, r in runs.items()]
    with closing(sqlite3.connect(path, timeout=1)) as index, index:
        index.execute(_SCHEMA)
        index.execute("delete from runs")
        index.executemany("insert into runs values (?, ?, ?, ?, ?)", rows)
