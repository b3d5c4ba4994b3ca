"""What ``motet select`` shows in a terminal: tables that fit 80 columns, and plain sentences."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table as Grid
from rich.text import Text

from motet.selecting import sentences
from motet.selecting.analysis import Analysis
from motet.selecting.fitting import Tick
from motet.selecting.table import Table

ROWS = 20
"""Features that are listed at most."""


@contextmanager
def stage(name: str, *, shown: bool) -> Iterator[Tick]:
    """A bar of fits on standard error, with the time left."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("fits ·"),
        TimeElapsedColumn(),
        TextColumn("· left"),
        TimeRemainingColumn(elapsed_when_finished=False),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not shown, transient=True) as bar:
        task = bar.add_task(name, total=None)

        def tick(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield tick


def understood(console: Console, table: Table) -> None:
    """How the table was read."""
    for line in table.overview:
        console.print(Text(line))


def summary(console: Console, found: Analysis) -> None:
    """Outcomes, selected features, what it is worth."""
    _outcomes(console, found)
    console.print(Text(sentences.headline(found) + "\n", style="bold"), width=80)
    _features(console, found)
    for check in (found.stability, found.control):
        if check is not None:
            names = (found.net.features_.names_,) if check is found.stability else ()
            console.print(Text(check.explain(*names) + "\n"), width=80)
    for sentence in sentences.cautions(found):
        console.print(Text(f"Note: {sentence}", style="yellow"), width=80)


def _outcomes(console: Console, found: Analysis) -> None:
    table = Grid(box=box.SIMPLE_HEAD, title="Outcomes", title_justify="left", pad_edge=False)
    table.add_column("outcome", overflow="fold", min_width=8)
    table.add_column("kind", no_wrap=True)
    events = any(one.kind == "survival" for one in found.outcomes)
    table.add_column("rows\n(events)" if events else "rows", justify="right", no_wrap=True)
    table.add_column("concordance", justify="right", no_wrap=True)
    some = any(not math.isnan(one.held[0]) for one in found.outcomes)
    if some:
        table.add_column("in interval", justify="right", no_wrap=True)
    new = any(not math.isnan(one.new) for one in found.outcomes)
    if new:
        table.add_column("new rows", justify="right", no_wrap=True)
    for one in found.outcomes:
        rows = f"{one.rows}" + (f" ({one.rare})" if one.kind == "survival" else "")
        cells = [one.name, one.kind + (" *" if one.inferred else ""), rows]
        cells.append(pair(one.concordance, one.standard_error, 3))
        if some:
            cells.append(_share(*one.held))
        if new:
            cells.append(number(one.new, 3))
        table.add_row(*map(Text, cells))
    console.print(table)
    held = sentences.intervals(found.options.level) if some else ""
    guessed = "* inferred: say COLUMN:KIND where it is wrong. " if any(one.inferred for one in found.outcomes) else ""
    console.print(Text(f"{guessed}{sentences.CONCORDANCE} {held}\n"), width=80)


def _features(console: Console, found: Analysis) -> None:
    table = found.features
    keep = table["selected"] | table["stable"] if "stable" in table else table["selected"]
    shown = table[keep]
    if not len(shown):
        return
    grid = Grid(
        box=box.SIMPLE_HEAD, title="Features, the last to leave the path first", title_justify="left", pad_edge=False
    )
    grid.add_column("feature", overflow="fold")
    grid.add_column("exit λ", justify="right", no_wrap=True)
    if "stable" in table:
        grid.add_column("stability", justify="right", no_wrap=True)
    names = [one.name for one in found.outcomes if f"importance {one.name}" in table]
    if names:
        grid.add_column("matters most for (importance)", overflow="fold")
    for feature, row in shown.head(ROWS).iterrows():
        cells = [Text(str(feature)), Text(f"{row['exit_lambda']:.3g}")]
        if "stable" in table:
            share = f"{row['probability']:.2f}{' *' if row['stable'] else '  '}"
            cells.append(Text(share))
        if names:
            ranked = sorted(((row[f"importance {name}"], name) for name in names), reverse=True)
            cells.append(Text(", ".join(f"{name} {drop:.3f}" for drop, name in ranked[:2] if drop > 0.0005) or "–"))
        grid.add_row(*cells)
    console.print(grid)
    if len(shown) > ROWS:
        console.print(Text(f"… and {len(shown) - ROWS} more; selected.csv has them all."))
    foot = "exit λ: where it leaves the model. "
    if "stable" in table:
        assert found.stability is not None
        foot += f"stability: share of half-samples that select it, * from {found.stability.threshold:g} on. "
    console.print(Text(foot + (sentences.IMPORTANCE if names else "") + "\n"), width=80)


def _share(value: float, error: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.0f} ± {100 * error:.0f} %"


def number(value: float, digits: int) -> str:
    """A number, or a dash."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"


def pair(value: float, error: float, digits: int) -> str:
    """A value ± its standard error."""
    return "–" if math.isnan(value) else f"{number(value, digits)} ± {number(error, digits)}"
