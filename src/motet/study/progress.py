"""A progress bar over a whole study, with the time left."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from motet.study.fit import Tick


class Progress:
    """Counts epochs of ``runs`` runs; a run that stops early jumps to its end.

    Args:
        shown: Nothing is drawn where this is false.
        runs: How many runs there are to do.
        epochs: The most epochs a run takes.
    """

    def __init__(self, shown: bool, runs: int, epochs: int) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("runs ·"),
            TimeElapsedColumn(),
            TextColumn("· left"),
            TimeRemainingColumn(elapsed_when_finished=False),
        )
        # Standard error, so that a table or JSON on standard output can be piped.
        self._bar = Bar(*columns, console=Console(stderr=True), disable=not shown, transient=True)
        self._task = self._bar.add_task("", total=runs)
        self._step = self._part = 1 / epochs
        self._done = 0

    def start(self, name: str, longer: int = 1) -> None:
        """A run begins that takes ``longer`` times the epochs."""
        self._part = self._step / longer
        self._bar.update(self._task, description=name)

    def epoch(self, tick: Tick) -> None:
        """An epoch of the present run is over."""
        if tick.counts:
            self._bar.advance(self._task, self._part)

    def finish(self) -> None:
        """The present run is over."""
        self._done += 1
        self._bar.update(self._task, completed=self._done)

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
