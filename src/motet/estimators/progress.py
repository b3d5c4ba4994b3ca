"""A progress bar over paths."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

Callback = Callable[[int, float, int], None]


@contextmanager
def shown(verbose: int, paths: int) -> Iterator[Callable[[str], Callback | None] | None]:
    """While it is open, a bar of so many paths; what it yields gives the callback of a path by its name.

    A path has no known length, so that the bar counts paths, and its text says how many features are left.
    """
    if not verbose:
        yield None
        return
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:.0f}/{task.total:.0f} paths")
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=paths)
        begun: list[str] = []

        def path(name: str) -> Callback:
            begun.append(name)
            progress.update(task, completed=len(begun) - 1, description=name)

            def step(_: int, lambda_: float, left: int) -> None:
                progress.update(task, description=f"{name}: λ {lambda_:.2g}, {left} features")

            return step

        yield path
        progress.update(task, completed=paths, description="done")
