"""One writer a folder, and no lock that outlives its process."""

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
        StoreError: if another motet holds it.
    """

    def __init__(self, folder: Path) -> None:
        self._held = sqlite3.connect(folder / NAME, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
        try:
            self._held.execute("begin exclusive")
        except sqlite3.OperationalError:
            self._held.close()
            raise StoreError(
                f"another motet is writing in {folder}: wait until it is done, or name another folder with --out"
            ) from None
        except sqlite3.DatabaseError:
            self._held.close()
            raise StoreError(f"{folder / NAME} is damaged: delete this file; it holds nothing") from None

    def release(self) -> None:
        """Let others write."""
        self._held.close()


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
