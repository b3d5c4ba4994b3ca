"""Training in several processes at once, with the numbers of one."""

import queue
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped]

from motet.problems.base import Problem
from motet.study.files import StoreError
from motet.study.fit import Tick, Trained
from motet.study.jobs import Bench, Job
from motet.study.payload import unpack
from motet.study.process import Process, packed


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
        self._known = packed((problem, folder), problem.name, "train")
        self.workers, self.tick = workers, tick
        self._messages: queue.Queue[tuple[Process, str, Any]] = queue.Queue()
        self._jobs: dict[Process, Job | None] = {}

    @property
    def free(self) -> int:
        """How many jobs can be started now."""
        return self.workers - sum(job is not None for job in self._jobs.values())

    @property
    def pids(self) -> list[int]:
        """Of the processes."""
        return [process.popen.pid for process in self._jobs]

    def start(self, job: Job) -> None:
        """Give a job to a process that has none; the first jobs start them."""
        process = next((process for process, other in self._jobs.items() if other is None), None)
        if process is None:
            process = Process("motet.study.worker", self._messages)
            self._jobs[process] = job
            process.send(self._known)
        self._jobs[process] = job
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
                dead = [process for process in self._jobs if process.dead]
                if not dead:
                    continue
                process, kind, value = dead[0], "died", None
            job = self._jobs[process]
            if kind == "tick":
                self.tick(value)
            elif kind == "finished" and job is not None:
                self._jobs[process] = None
                return job, unpack(value)
            elif kind == "failed":
                raise value
            elif kind == "died":
                raise WorkerError(process.obituary(f"trained {job.name}" if job is not None else ""))
        return None

    def close(self) -> None:
        """End all processes at once, whatever they are doing."""
        for process in self._jobs:
            process.kill()
        for process in self._jobs:
            process.end()
