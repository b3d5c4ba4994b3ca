"""Training in several processes at once, with the numbers of one.

The processes are motet's own and not those of `concurrent.futures`: it must be known which run a process died of,
epochs are shown while they pass, and a script without ``if __name__ == "__main__"`` must not start itself again.
"""

import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import torch

from motet.problems.base import Problem
from motet.study.files import StoreError
from motet.study.fit import Tick, Trained
from motet.study.jobs import Bench, Job
from motet.study.payload import unpack

_START = "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); from motet.study.worker import main; main()"


class WorkerError(StoreError):
    """A process that trained a run ended before the run did."""


class Inline:
    """This process itself: one run at a time.

    Args:
        bench: What trains.
        train: `motet.study.training.train`.
        tick: Called after every epoch.
    """

    def __init__(self, bench: Bench, train: Callable[..., Trained], tick: Callable[[Tick], None]) -> None:
        self.bench, self.train, self.tick = bench, train, tick
        self._jobs: list[Job] = []

    @property
    def free(self) -> int:
        """How many jobs can be started now."""
        return 1 - len(self._jobs)

    def start(self, job: Job) -> None:
        """Take a job."""
        self._jobs.append(job)

    def wait(self, timeout: float | None) -> tuple[Job, Trained] | None:  # noqa: ARG002  as the pool's
        """The next run to be finished."""
        job = self._jobs.pop()
        return job, self.bench.train(job, self.train, self.tick)

    def close(self) -> None:
        """Nothing is left behind."""


class Pool:
    """So many processes, each with one thread, that end with this one.

    Args:
        workers: How many.
        problem: Sent to each of them, so that it may be one of a script or notebook.
        folder: Of the study, for errors.
        tick: Called in this process after every epoch of any of them.

    Raises:
        ValueError: if the problem can't be sent.
    """

    def __init__(self, workers: int, problem: Problem, folder: Path, tick: Callable[[Tick], None]) -> None:
        try:
            known = cloudpickle.dumps((problem, folder, torch.get_default_dtype()))
        except Exception as error:
            raise ValueError(
                f"the problem {problem.name} can't be sent to other processes ({error}): train with workers=1, or let "
                "its functions open files and connections themselves"
            ) from None
        self.workers, self.tick, self._known = workers, tick, known
        self._messages: queue.Queue[tuple[_Process, str, Any]] = queue.Queue()
        self._processes: list[_Process] = []

    @property
    def free(self) -> int:
        """How many jobs can be started now."""
        return self.workers - sum(process.job is not None for process in self._processes)

    @property
    def pids(self) -> list[int]:
        """Of the processes."""
        return [process.popen.pid for process in self._processes]

    def start(self, job: Job) -> None:
        """Give a job to a process that has none; the first jobs start them."""
        process = next((process for process in self._processes if process.job is None), None)
        if process is None:
            process = _Process(self._messages)
            self._processes.append(process)
            process.send(sys.path)
            process.send(self._known)
        process.job = job
        process.send(cloudpickle.dumps(job))

    def wait(self, timeout: float | None) -> tuple[Job, Trained] | None:
        """The next run to be finished; None if none was within these seconds.

        Raises:
            WorkerError: that names the run whose process died.
            Exception: what training raised.
        """
        until = time.monotonic() + timeout if timeout is not None else None
        while until is None or time.monotonic() < until:
            try:
                # Not for ever: where a wait can't be interrupted, Ctrl-C comes between two.
                process, kind, value = self._messages.get(timeout=0.5)
            except queue.Empty:
                continue
            if kind == "tick":
                self.tick(value)
            elif kind == "finished" and process.job is not None:
                job, process.job = process.job, None
                return job, unpack(value)
            elif kind == "failed":
                raise value
            elif kind == "died":
                raise WorkerError(process.obituary())
        return None

    def close(self) -> None:
        """End all processes at once, whatever they are doing."""
        for process in self._processes:
            process.popen.kill()
        for process in self._processes:
            process.end()


class _Process:
    """One worker and the thread that listens to it."""

    def __init__(self, messages: "queue.Queue[tuple[_Process, str, Any]]") -> None:
        self.job: Job | None = None
        # A session of its own, so that Ctrl-C in the terminal reaches this process alone.
        self.popen = subprocess.Popen(
            [sys.executable, "-c", _START], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        self._thread = threading.Thread(target=self._listen, args=(messages,), daemon=True)
        self._thread.start()

    def send(self, message: object) -> None:
        assert self.popen.stdin is not None
        try:
            pickle.dump(message, self.popen.stdin)
            self.popen.stdin.flush()
        except BrokenPipeError:
            pass  # It is dead, and the listening thread says so.

    def obituary(self) -> str:
        try:
            code = self.popen.wait(5)
        except subprocess.TimeoutExpired:  # It closed its pipe, or wrote what is no message, and lives.
            self.popen.kill()
            code = self.popen.wait()
        cause = f"with exit code {code}"
        if code < 0:
            name = signal.Signals(-code).name
            cause = f"by {name}" + (", as happens where memory runs out" if name == "SIGKILL" else "")
        during = f"that trained {self.job.name} " if self.job is not None else ""
        return (
            f"the process {during}ended {cause}: finished runs are kept, and --resume goes on; where memory is short, "
            "use fewer workers"
        )

    def end(self) -> None:
        self.popen.wait()
        self._thread.join()
        for pipe in (self.popen.stdin, self.popen.stdout):
            with suppress(BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]

    def _listen(self, messages: "queue.Queue[tuple[_Process, str, Any]]") -> None:
        assert self.popen.stdout is not None
        while True:
            try:
                kind, value = pickle.load(self.popen.stdout)
            except Exception:  # The pipe is closed, or closed in the middle of a message.
                messages.put((self, "died", None))
                return
            messages.put((self, kind, value))
