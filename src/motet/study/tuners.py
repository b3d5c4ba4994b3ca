"""Several processes that train trials beside each other. What they find goes into the storage; only ticks come back."""

import os
import queue
import signal
import time
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

from motet.study.files import StoreError
from motet.study.fit import Tick
from motet.study.process import DONE, Parent, Process, packed, unpacked

_PATIENCE = 10
"""Seconds that a process has to put its trial back before it is killed."""


class Tuners:
    """So many processes at work until all trials are done, or the ``with`` is left.

    Args:
        workers: How many.
        work: A `motet.study.tuning.Work`, sent to each.
        tick: Called in this process after every epoch of any of them.

    Raises:
        ValueError: if the problem can't be sent.
    """

    def __init__(self, workers: int, work: Any, tick: Callable[[Tick], None]) -> None:
        self._work = packed(work, work.problem.name, "tune")
        self.workers, self.tick = workers, tick
        self._messages: queue.Queue[tuple[Process, str, Any]] = queue.Queue()
        self._processes: list[Process] = []

    def __enter__(self) -> "Tuners":
        try:
            for _ in range(self.workers):
                process = Process("motet.study.tuners", self._messages)
                self._processes.append(process)
                process.send(self._work)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def look(self, seconds: float) -> None:
        """Hand over the ticks of so many seconds.

        Raises:
            StoreError: if a process died.
            Exception: what it raised.
        """
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            try:
                process, kind, value = self._messages.get(timeout=left)
            except queue.Empty:
                return
            if kind == "tick":
                self.tick(value)
            elif kind == "failed":
                raise value
            elif kind == "died" and process.code() != DONE:
                raise StoreError(process.obituary("tuned"))

    def _end(self) -> None:
        for process in self._processes:
            process.popen.terminate()  # It puts its trial back.
        for process in self._processes:
            process.end(_PATIENCE)


def main() -> None:
    """One of the processes: train until there is no trial left."""
    from motet.study.trials import quiet, storage_errors
    from motet.study.tuning import Session

    parent = Parent()
    signal.signal(signal.SIGTERM, _leave)
    code = 1
    try:
        work = unpacked(parent.receive())
        with quiet(), storage_errors(work.storage):
            Session(work, partial(parent.tell, "tick")).run()
        code = DONE
    except Exception as error:
        parent.fail(error)
    finally:
        os._exit(code)  # The thread that follows the parent still reads, and Python would wait for it.


def _leave(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)
