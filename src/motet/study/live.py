"""A study while it runs: a bar, or a line now and then, and a file that tells other programs of it."""

import math
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from motet.study import lock
from motet.study.estimate import Estimate, Running
from motet.study.files import StoreError, read_json, write_json

NAME = "progress.json"
TUNING, TRAINING = "tuning", "training"
_EVERY = 1.0
"""Seconds between two states of the file, at least."""
_LINE = 30.0
"""Seconds between two lines where there is no terminal to draw in."""


@dataclass(frozen=True)
class Now:
    """One run or trial that is being trained.

    Attributes:
        name: For people.
        share: Of the most epochs that it may take.
    """

    name: str
    share: float


@dataclass(frozen=True)
class State:
    """A study that runs.

    Attributes:
        done: Runs and trials that are finished, those of earlier starts included.
        total: How many there are to be, up to the next look at the verdict.
        seconds_left: NaN where nothing can be said yet.
        running: What is being trained now.
        what: What the study does: tunes, trains, or waits for other participants.
        updated: When this was written, UTC.
    """

    done: int
    total: int
    seconds_left: float
    running: list[Now] = field(default_factory=list)
    what: str = TRAINING
    updated: str = ""


def read_state(folder: str | Path) -> State | None:
    """What the study in a folder is doing; None where no motet is at work there."""
    try:
        state = read_json(Path(folder) / NAME, State)
    except StoreError:
        return None
    return state if lock.is_held(Path(folder)) else None


class Live:
    """Counts runs and trials, and estimates the time left from how long each arm's own took.

    Args:
        folder: Of the study.
        shown: Whether to draw a bar on standard error; where that is no terminal, a line every half minute.
        workers: How many runs are trained at once.
        before: Arms with the seconds of their finished runs.
    """

    def __init__(self, folder: Path, shown: bool, workers: int = 1, before: Iterable[tuple[str, float]] = ()) -> None:
        self.folder, self.workers = folder, workers
        # Standard error, so that a table or JSON on standard output can be piped.
        self._console = Console(stderr=True, highlight=False)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[counted]} ·"),
            TimeElapsedColumn(),
            TextColumn("· left {task.fields[left]}"),
        )
        drawn = shown and self._console.is_terminal
        self._bar = Bar(*columns, console=self._console, disable=not drawn, transient=True)
        self._task = self._bar.add_task("", total=1.0, counted="", left="?")
        self._lines = shown and not drawn
        self._said = time.monotonic()
        self._written = -math.inf
        self._estimate = Estimate(before)
        self._waiting: Counter[str] = Counter()
        self._running: dict[str, Running] = {}
        self._epochs: dict[str, int] = {}
        self._done, self._total, self._what, self._told = 0, 0, "", ""
        self.tuned = 0
        """Trials that were done before the runs: they count as well."""

    def plan(self, done: int, waiting: Iterable[str], what: str = TRAINING) -> None:
        """What there is to do from now on.

        Args:
            done: How many runs and trials are finished.
            waiting: The kind of every one that is not: arms' labels, or whatever takes equally long.
            what: What the study does now: tunes, trains, waits.
        """
        self._waiting = Counter(waiting)
        self._running.clear()
        self._done, self._what, self._told = done + self.tuned, what, ""
        self._total = self._done + self._waiting.total()
        self._update(force=True)

    def expect(self, kinds: Iterable[str]) -> None:
        """More than that is to come."""
        self._waiting.update(kinds)
        self._total = self._done + self._waiting.total()
        self._update(force=True)

    def tell(self, text: str) -> None:
        """What is being done, where this is nothing that was started here."""
        self._told = text
        self._update()

    def start(self, name: str, kind: str, epochs: int) -> None:
        """One of a kind begins; it takes so many epochs at most."""
        self._waiting[kind] -= 1
        self._running[name] = Running(kind, time.monotonic())
        self._epochs[name] = epochs
        self._update()

    def epoch(self, name: str) -> None:
        """One epoch of what is being trained is over."""
        if (running := self._running.get(name)) is not None:
            running.share = min(1.0, running.share + 1 / self._epochs[name])
        self._update()

    def finish(self, name: str) -> None:
        """It is done."""
        running = self._running.pop(name)
        self._estimate.add(running.kind, time.monotonic() - running.since)
        self._done += 1
        self._update()

    def did(self, kind: str, seconds: float | None = None) -> None:
        """One of a kind is done that was not started here; it took so long, if that is known."""
        self._waiting[kind] -= 1
        self._done += 1
        if seconds is not None:
            self._estimate.add(kind, seconds)
        self._update()

    def seconds_left(self) -> float:
        """NaN where nothing can be said yet."""
        left = self._estimate.left(self._waiting.elements(), self._running.values(), time.monotonic(), self.workers)
        return math.nan if left is None else left

    def __enter__(self) -> "Live":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        (self.folder / NAME).unlink(missing_ok=True)

    def _update(self, force: bool = False) -> None:
        now = time.monotonic()
        if not force and now - self._written < _EVERY:
            return
        left = self.seconds_left()
        running = [Now(name, work.share) for name, work in self._running.items()]
        stamp = datetime.now(UTC).isoformat(timespec="seconds")
        state = State(self._done, self._total, left, running, self._what, stamp)
        write_json(self.folder / NAME, asdict(state))
        names = " and ".join(self._running) or self._told or self._what
        counted, spoken = f"{self._done}/{self._total} {self._unit()}", _spoken(left)
        done = self._done + sum(work.share for work in self._running.values())
        self._bar.update(
            self._task, description=escape(names), completed=done, total=self._total, counted=counted, left=spoken
        )
        self._written = now
        if self._lines and now - self._said >= _LINE:
            self._console.print(f"{counted} · left {spoken} · {escape(names)}", soft_wrap=True)
            self._said = now

    def _unit(self) -> str:
        return "trials and runs" if self.tuned or self._what == TUNING else "runs"


def _spoken(seconds: float) -> str:
    """A time as people say it, and no more exact than it is known."""
    if math.isnan(seconds):
        return "?"
    if seconds < 90:
        return f"{max(5 * round(seconds / 5), 5):d} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
