"""What the command line shows of a study: tables that fit 80 columns."""

import math
import re

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from motet.problems.table import TableProblem
from motet.study import controls
from motet.study.pairing import joined
from motet.study.results import SINGLE, SUM, Interval, Summary, Verdict
from motet.study.sequential import look_at

_STYLES = {"ADOPT": "green", "KEEP SUM": "blue", "KEEP SINGLE": "magenta", "UNDECIDED": "yellow"}
_PIECE = re.compile("[^:,+@]*[:,+@]|[^:,+@]+")
_WORD = re.compile("[^:,+@=_-]*[:,+@=_-]|[^:,+@=_-]+")


def summary(console: Console, title: str, found: Summary, caution: str = "") -> None:
    """The arms' table, the rule, what the problem can't show, and the verdict."""
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    uneven = len({arm.seeds for arm in found.arms}) > 1  # Then columns are of other seeds than those beside them.
    names = ("arm", *(("seeds",) if uneven else ()), "Δm %", "vs sum", "p", "worst task %", "step")
    for name in names:
        left = name in ("arm", "worst task %")
        # An arm's name is folded and never cut: two that differ in their last option would look the same.
        table.add_column(name, justify="left" if left else "right", no_wrap=name != "arm", overflow="fold")
    rows = []
    for arm in sorted(found.arms, key=lambda arm: (math.isnan(arm.delta_m.mean), arm.delta_m.mean)):
        reference = arm.arm in (SINGLE, SUM)
        worst = f"{_clip(arm.worst_task, 12)} {_signed(arm.worst_change)}" if arm.arm != SINGLE else ""
        change = _interval(arm.delta_m) if arm.arm != SINGLE else "0"
        over_sum = _signed(arm.over_sum.mean) if arm.arm != SUM else ""
        p = "" if reference else _p(arm.p_sum_holm)
        count = (str(arm.seeds),) if uneven else ()
        rows.append((arm.arm, *count, change, over_sum, p, worst, _times(arm.step_cost)))
    taken = sum(max(map(cell_len, column)) for column in list(zip(names, *rows, strict=True))[1:])
    room = console.width - taken - 3 * len(names) + 1  # three spaces between columns, one at each edge
    for label, *cells in rows:
        folded = Text(_folded(label, room), style="bold" if label == found.verdict.arm else "")
        table.add_row(folded, *map(Text, cells))
    console.print(table)
    level, look = f"{100 * found.level:.3g}", look_at(found.rule, found.verdict.seeds)
    over = "" if look.share == 1 else " over the share of this look"
    console.print(
        Text(
            f"Δm: mean change against one model a task (stl), with its {level} % interval; positive is worse. "
            f"vs sum: in points of Δm, p after Holm{over}. step: time over the sum's step.\n"
        ),
        width=80,
    )
    if missed := _detectable(found):
        console.print(Text(missed + "\n"), width=80)
    rule = found.rule
    looks = f" The verdict may be read at {joined(map(str, rule.looks))} seeds." if rule.looks else ""
    console.print(
        Text(
            f"Rule, fixed beforehand: p < {rule.alpha:g}; less than {rule.margin:g} in Δm does not matter; no task may "
            f"lose more than {rule.worst_task:g} %.{looks}\n"
        ),
        width=80,
    )
    if said := controls.sentences(found):
        console.print(Text("\n".join(said.values()) + "\n"), width=80)
    if caution:
        console.print(Text(f"Caution: {caution}\n", style="yellow"))
    verdict = found.verdict
    lines = Text(verdict.headline + "\n")
    for reason in verdict.reasons:
        lines.append(f"\n· {reason}")
    style = _STYLES[verdict.decision]
    console.print(Panel(lines, title=Text(title_of(verdict), style=f"bold {style}"), border_style=style, width=80))


def title_of(verdict: Verdict) -> str:
    """The decision, and what is missing where there is none."""
    if verdict.refused:
        return "NO VERDICT"
    if verdict.more_seeds is None:
        return verdict.decision
    return f"{verdict.decision} (needs {verdict.more_seeds} more seed{'' if verdict.more_seeds == 1 else 's'})"


def table_problem(console: Console, problem: TableProblem) -> None:
    """How a table was understood, and what is doubtful about it."""
    for line in problem.describe():
        console.print(Text(line))
    for warning in problem.warnings:
        console.print(Text(f"Warning: {warning}", style="yellow"))


def _detectable(found: Summary) -> str:
    """What the study would have shown of every candidate, in a line or two."""
    sizes = {row.arm: row.mde_sum for row in found.arms if not math.isnan(row.mde_sum)}
    if not sizes:
        return ""
    if all(map(math.isinf, sizes.values())):
        return f"With {found.verdict.seeds} seeds no gain on the sum could be shown, however large."
    listed = [f"{arm} {size:.1f}" for arm, size in sorted(sizes.items(), key=lambda item: item[1]) if size < math.inf]
    return f"Least gain on the sum, in points, that such a study shows 4 times in 5: {', '.join(listed)}."


def _folded(label: str, width: int) -> str:
    """An arm's label in lines that end behind its punctuation, so that no word is divided that fits a line."""
    pieces = [
        part for piece in _PIECE.findall(label) for part in (_WORD.findall(piece) if len(piece) > width else [piece])
    ]
    lines = [""]
    for piece in pieces:
        if lines[-1] and len(lines[-1]) + len(piece) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(lines)


def _interval(value: Interval) -> str:
    if math.isnan(value.low):
        return _signed(value.mean)
    return f"{_signed(value.mean)} [{_signed(value.low)}, {_signed(value.high)}]"


def _signed(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:+.1f}".replace("-", "−")


def _p(value: float) -> str:
    return "–" if math.isnan(value) else "<.001" if value < 0.001 else f"{value:.3f}".removeprefix("0")


def _times(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1f}×"


def _clip(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
