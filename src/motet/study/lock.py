"""One writer a folder, and no lock that outlives its process."""

import sqlite3
from pathlib import Path

from motet.study.files import StoreError

NAME = "lock.sqlite"


class Lock:
    """Held from its making to `release`, or to the end of the process, however it ends.

    The lock is SQLite's own, on an empty database, since the operating system drops it with the process; a file
    whose mere existence locks would stay behind after SIGKILL.

    Raises:
        StoreError: if another motet holds it.
    """

    def __init__(self, folder: Path) -> None:
        self._held = sqlite3.connect(folder / NAME, timeout=0, isolation_level=None, check_same_thread=False)
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
