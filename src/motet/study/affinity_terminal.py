"""What ``motet affinity`` shows in a terminal: a progress bar, then tables that fit 80 columns."""

import math
from collections.abc import Collection
from types import TracebackType

from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from motet.study.measured import HIGH, LOW, Measured, Pair
from motet.study.sentences import (
    agreement,
    by_chance,
    cost,
    parted,
    percent,
    proof,
    proposal,
    sureness,
)

_MOST = 5


class Bar:
    """Batches done and to do, on standard error, so that what is printed can be piped."""

    def __init__(self, shown: bool) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("batches ·"),
            TimeElapsedColumn(),
            TextColumn("· left"),
            TimeRemainingColumn(elapsed_when_finished=False),
        )
        self._bar = Progress(*columns, console=Console(stderr=True), disable=not shown, transient=True)
        self._task = self._bar.add_task("measuring", total=None)

    def update(self, done: int, total: int) -> None:
        """So many batches are done."""
        # Not before: what goes wrong at the start would be printed below an empty bar.
        self._bar.start()
        self._bar.update(self._task, completed=done, total=total)

    def __enter__(self) -> "Bar":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar.live.is_started:
            self._bar.stop()


def summary(console: Console, found: Measured, said: Collection[str] = ()) -> None:
    """The strongest pairs, where measures disagree, what is greyed, the proposed groups and what they are worth.

    Args:
        found: What was measured.
        said: Notes that stand above already.
    """
    helping, hurting = found.helping(), found.hurting()
    _pairs(console, f"{found.title}: helping, strongest first", helping)
    _pairs(console, "Hurting, strongest first", hurting)
    console.print(
        "What one update for the left task does to the loss of the right one, in per cent\n"
        "of that loss, ± 2 SE; at the end of the training. look-ahead: the same by its\n"
        "definition, one plain gradient step. cosine: of the shared gradients.\n"
    )
    console.print(Text(by_chance(found) + "\n"))
    if found.disagreements:
        console.print("Where measures disagree, both with a clear sign:")
        for pair, other in found.disagreements[:_MOST]:
            console.print(
                Text(
                    f"· {pair.source} → {pair.target}: affinity {percent(pair.affinity, pair.error)} %, against "
                    f"{'hurts' if pair.affinity > 0 else 'helps'} of {other}"
                )
            )
        _more(console, len(found.disagreements), "pair")
    console.print(Text(agreement(found) + "\n"))
    if found.greyed:
        console.print("Left out, since too little is shared:")
        for one, other, why in found.greyed[:_MOST]:
            console.print(Text(f"· {one} and {other}: {why}"))
        _more(console, len(found.greyed), "pair")
        console.print()
    lines = Text()
    for group in found.groups:
        lines.append(f"· {', '.join(group.tasks)}", style="bold")
        lines.append(f": {sureness(group)}\n")
    if found.undecided:
        lines.append(f"\nUndecided, together in {100 * LOW:.0f} to {100 * HIGH:.0f} % of the draws:\n")
        for one, other, share in sorted(found.undecided, key=lambda item: abs(item[2] - 0.5))[:_MOST]:
            lines.append(f"· {one} and {other}: {100 * share:.0f} %\n")
        if len(found.undecided) > _MOST:
            lines.append(f"· … and {len(found.undecided) - _MOST} more\n")
    lines.append("\n" + " ".join(filter(None, (parted(found), proof(found, "the command below")))))
    console.print(Panel(lines, title=Text(proposal(found), style="bold"), width=80))
    if found.command:  # Alone on its line and never broken, to be copied.
        console.print(Text(found.command + "\n"), soft_wrap=True)
    for note in [note for note in found.notes if note not in said]:
        console.print(Text(f"Note: {note}"))
    console.print(Text(f"Cost: {cost(found)}"))


def _pairs(console: Console, title: str, pairs: list[Pair]) -> None:
    if not pairs:
        console.print(Text(f"{title}: none with a clear sign.\n"))
        return
    # As Text: in a plain string ":loop:" would be a picture, and "[a]" a style.
    table = Table(box=box.SIMPLE_HEAD, title=Text(title), title_justify="left", pad_edge=False)
    table.add_column("update for", overflow="fold")
    table.add_column("changes", overflow="fold")
    for name in ("affinity %", "look-ahead %", "cosine"):
        table.add_column(name, justify="right", no_wrap=True)
    for pair in pairs[:_MOST]:
        table.add_row(
            Text(pair.source),
            Text(pair.target),
            percent(pair.affinity, pair.error),
            percent(pair.lookahead, pair.lookahead_error),
            "–" if math.isnan(pair.cosine) else f"{pair.cosine:+.2f}".replace("-", "−"),
        )
    console.print(table)
    _more(console, len(pairs), "pair")


def _more(console: Console, count: int, noun: str) -> None:
    if count > _MOST:
        console.print(f"… and {count - _MOST} more {noun}{'' if count == _MOST + 1 else 's'}; the page has them all.\n")
