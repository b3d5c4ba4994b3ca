"""One writer a folder, and no lock that outlives its process."""

import errno
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from motet.study.files import StoreError

NAME = "lock.sqlite"
_PATIENCE = 0.2
"""Seconds: `is_held` touches the lock for a moment, and a start must not fail for that."""


class Lock:
    """Held from its making to `release`, or to the end of the process, however it ends.

    The lock is SQLite's own, on an empty database, since the operating system drops it with the process; a file
    whose mere existence locks would stay behind after SIGKILL.

    Raises:
        StoreError: if another motet holds it, or it can't be used.
        PermissionError: if the folder may not be written in.
    """

    def __init__(self, folder: Path) -> None:
        for place in (folder, folder / NAME):
            if place.exists() and not os.access(place, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(place))
        self._held: sqlite3.Connection | None = None
        try:
            self._held = _connect(folder / NAME)
            self._held.execute("begin exclusive")
        except sqlite3.OperationalError as error:
            self.release()
            if not is_busy(error):
                raise StoreError(f"{folder / NAME} can't be used ({error}): name another folder with --out") from None
            raise StoreError(
                f"another motet is writing in {folder}: wait until it is done, or name another folder with --out"
            ) from None
        except sqlite3.DatabaseError:
            self.release()
            raise StoreError(f"{folder / NAME} is damaged: delete this file; it holds nothing") from None

    def release(self) -> None:
        """Let others write."""
        if self._held is not None:
            self._held.close()


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)


def is_busy(error: sqlite3.OperationalError) -> bool:
    """Whether it is only that somebody else has the file open."""
    return getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def is_held(folder: Path) -> bool:
    """Whether a motet is writing in a folder now."""
    if not (folder / NAME).exists():
        return False
    with closing(sqlite3.connect(f"{(folder / NAME).resolve().as_uri()}?mode=ro", uri=True, timeout=0)) as probe:
        try:
            probe.execute("select count(*) from sqlite_master")
        except sqlite3.OperationalError:
            return True
        except sqlite3.DatabaseError:
            return False
    return False
