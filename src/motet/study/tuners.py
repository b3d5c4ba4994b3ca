"""Several processes that train trials beside each other. What they find goes into the storage; only ticks come back."""

import os
import queue
import signal
import time
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, BinaryIO

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
                dead = [process for process in self._processes if process.dead and process.code() != DONE]
                if not dead:
                    return
                process, kind, value = dead[0], "died", None
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


def main(pipe: BinaryIO) -> None:
    """One of the processes: train until there is no trial left."""
    from motet.study.trials import quiet, storage_errors
    from motet.study.tuning import Session

    parent = Parent(pipe)
    code = 1
    try:
        signal.signal(signal.SIGTERM, _leave)
        work = unpacked(parent.receive())
        with quiet(), storage_errors(work.storage):
            Session(work, partial(parent.tell, "tick")).run()
        code = DONE
    except _Told:
        pass
    except (Exception, SystemExit) as error:
        parent.fail(error)
    finally:
        os._exit(code)  # The thread that follows the parent still reads, and Python would wait for it.


class _Told(BaseException):
    """The parent wants an end: a trial is put back on the way out."""


def _leave(_signal: int, _frame: FrameType | None) -> None:
    raise _Told
