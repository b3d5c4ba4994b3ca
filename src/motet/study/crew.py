"""Several processes that train trials beside each other. What they find goes into the storage; only ticks come back.

They are processes of motet's own, as those of `motet.study.pool`: a script without ``if __name__ == "__main__"`` must
not start itself again, and none may outlive this process.
"""

import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import torch

from motet.study.files import StoreError
from motet.study.fit import Tick

_START = "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); from motet.study.crew import main; main()"
_PATIENCE = 10
"""Seconds that a process has to put its trial back before it is killed."""


class Crew:
    """So many processes at work until all trials are done, or the ``with`` is left.

    Args:
        workers: How many.
        work: A `motet.study.tuning.Work`, sent to each.
        tick: Called in this process after every epoch of any of them.

    Raises:
        ValueError: if the problem can't be sent.
    """

    def __init__(self, workers: int, work: Any, tick: Callable[[Tick], None]) -> None:
        try:
            self._payload = cloudpickle.dumps((work, torch.get_default_dtype()))
        except Exception as error:
            raise ValueError(
                f"the problem {work.problem.name} can't be sent to other processes ({error}): tune with workers=1, or "
                "let its functions open files and connections themselves"
            ) from None
        self.workers, self.tick = workers, tick
        self._messages: queue.Queue[tuple[str, Any]] = queue.Queue()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> "Crew":
        try:
            for _ in range(self.workers):
                self._start()
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
                kind, value = self._messages.get(timeout=left)
            except queue.Empty:
                return
            if kind == "tick":
                self.tick(value)
            elif kind == "failed":
                raise value
            elif kind == "died":
                raise StoreError(
                    f"a process that tuned ended with exit code {value}, as happens where memory runs out: finished "
                    "trials are kept, and --resume goes on; where memory is short, use fewer workers"
                )

    def _start(self) -> None:
        # A session of its own, so that Ctrl-C in the terminal reaches this process alone.
        process = subprocess.Popen(
            [sys.executable, "-c", _START], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        self._processes.append(process)
        thread = threading.Thread(target=self._listen, args=(process,), daemon=True)
        thread.start()
        self._threads.append(thread)
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # It is dead then, and the listening thread says so.
            pickle.dump(sys.path, process.stdin)
            pickle.dump(self._payload, process.stdin)
            process.stdin.flush()

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        while True:
            try:
                kind, value = pickle.load(process.stdout)
            except Exception:  # The pipe is closed, or closed in the middle of a message.
                if code := process.wait():
                    self._messages.put(("died", code))
                return
            self._messages.put((kind, value))

    def _end(self) -> None:
        for process in self._processes:
            process.terminate()  # It puts its trial back.
        for process in self._processes:
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for thread in self._threads:
            thread.join()
        for process in self._processes:
            for pipe in (process.stdin, process.stdout):
                with suppress(BrokenPipeError):
                    pipe.close()  # type: ignore[union-attr]


def main() -> None:
    """One of the processes: train until there is no trial left, and end where the one that started it does."""
    from motet.study.trials import quiet, storage_errors
    from motet.study.tuning import Session

    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # What a problem prints is no message.
    parent = sys.stdin.buffer
    work, dtype = pickle.loads(pickle.load(parent))
    torch.set_default_dtype(dtype)
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()

    def send(kind: str, value: Any) -> None:
        out.write(cloudpickle.dumps((kind, value)))
        out.flush()

    try:
        with quiet(), storage_errors(work.storage):
            Session(work, lambda tick: send("tick", tick)).run()
    except Exception as error:
        error.add_note("".join(traceback.format_exception(error)))
        try:
            send("failed", error)
        except Exception:  # It holds what can't be sent.
            send("failed", RuntimeError("".join(traceback.format_exception(error))))
    finally:
        os._exit(0)  # The thread that follows the parent still reads, and Python would wait for it.


def _leave(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


def _follow(parent: Any) -> None:
    """End at once where the process that started this one has ended: its pipe is closed then."""
    parent.read()
    os._exit(1)
