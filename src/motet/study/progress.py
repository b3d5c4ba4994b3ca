"""A progress bar over pieces of work that take about as long each, with the time left."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    """Counts runs. A study, whose runs differ in cost, has `motet.study.live.Live`.

    Args:
        shown: Nothing is drawn where this is false.
        runs: How many runs there are to do.
    """

    def __init__(self, shown: bool, runs: int) -> None:
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

    def start(self, name: str) -> None:
        """A run begins."""
        self._bar.update(self._task, description=name)

    def finish(self) -> None:
        """The present run is over."""
        self._bar.advance(self._task)

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
