"""Which tasks help which, and which were updated together as training went."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from motet.report.figures.theme import (
    COLOURS,
    GRID,
    INK,
    LINE,
    MUTED,
    NEGATIVE,
    POSITIVE,
    SMALL,
    WIDTH,
    Panel,
    column,
    drawn,
    label,
    nothing,
    panels,
)
from motet.report.numbers import plain, plural

_TOP, _SIDE, _LETTERS = 66, 210, 13
_CELL, _LEAST_CELL = 40.0, 9.0
_NUMBERS_FIT = 26
"""Pixels of a cell that hold "−0.12"."""
_LONG_NUMBERS_FIT = 39
"""The same for "−0.012"."""
_HEAD, _LANE, _FOOT, _RIGHT = 42, 19.0, 40, 42
_LETTER_FITS = 15
"""Pixels of a stretch that hold the letter of its group."""


@drawn
def affinity_map(
    tasks: Sequence[str],
    matrix: Any,
    counts: Any = None,
    standard_errors: Any = None,
    *,
    title: str = "Affinity",
    detail: str = "",
    groups: Sequence[Sequence[int | str]] | None = None,
    significance: float = 2.0,
    least: int = 1,
    unit: str = "",
    strongest: float | None = None,
    missing: str = "not measured",
) -> Figure:
    """How much an update of each task (row) lowers the loss of each other one (column).

    Blue helps, red harms, and the stronger the colour the larger the effect, up to the largest value off the
    diagonal. A pair with fewer than ``least`` measurements is an empty grey square; one within ``significance``
    standard errors of zero is grey with its number in it, where there is room for numbers.

    Args:
        tasks: K names.
        matrix: (K, K), row = source and column = target. NaN is not measured.
        counts: (K, K) measurements behind each entry; without it every finite entry counts as measured.
        standard_errors: (K, K); without it no entry is insignificant. An infinite one is.
        title: The panel's name.
        detail: The quieter line below it.
        groups: Task names or numbers. Tasks are put in this order, and each group of several gets a frame.
        significance: In standard errors.
        least: Fewer measurements than this are none.
        unit: What the values are, for the foot, as in "share of the loss".
        strongest: The value of the fullest colour, for maps side by side; numbers then stand without a power of ten.
            By default this map's own largest.
        missing: What is wrong with the empty squares, for the foot.

    Raises:
        ValueError: if a matrix is not K×K, or the groups are no partition of the tasks.
    """
    k = len(tasks)
    values, many, errors = (_square(name, given, k) for name, given in _given(matrix, counts, standard_errors))
    assert values is not None
    if not k:
        return nothing("No affinity was measured.")
    blocks = _blocks(tasks, groups)
    order = [i for block in blocks for i in block]
    pick = np.ix_(order, order)
    measured = np.isfinite(values) & (True if many is None else many >= least)
    clear = measured & (True if errors is None else np.abs(values) > significance * np.where(errors > 0, errors, 0.0))
    values, measured, clear, names = values[pick], measured[pick], clear[pick], [tasks[i] for i in order]
    apart = ~np.eye(k, dtype=bool) & measured
    own = float(np.abs(values[apart if apart.any() else measured]).max(initial=0.0))
    largest = own if strongest is None else strongest
    size = math.floor(math.log10(largest)) if largest > 0 else 0
    power = 0 if -1 <= size <= 1 or strongest is not None else size  # 0.1 … 99 stand as they are
    digits = min(6, max(2, 1 - size + power))

    cell = max(min(_CELL, _SIDE / k), _LEAST_CELL)
    side, left = cell * k, 22 + column(names, _LETTERS)
    wide = max(WIDTH, left + side + 2)
    left = min(left, wide - side)
    panel = panels(1, _TOP + side + 74, 1, width=wide)[0]
    panel.title(label(title, 42), detail)
    panel.text(left + side / 2, _TOP - 20, "effect on", ha="center")
    ax = panel.axes(left, _TOP, side, side)
    ax.set(xlim=(0, k), ylim=(k, 0), xticks=[], yticks=[])
    gap = 1 / cell
    for i in range(k):
        for j in range(k):
            if not measured[i, j]:
                ax.add_patch(Rectangle((j, i), 1 - gap, 1 - gap, lw=0, color=GRID, alpha=0.55))
                continue
            value = float(values[i, j])
            if clear[i, j]:
                ax.add_patch(_cell(j, i, 1 - gap, value / largest if largest else 0.0))
            else:
                ax.add_patch(Rectangle((j, i), 1 - gap, 1 - gap, lw=0, color=GRID))
            if cell >= _NUMBERS_FIT:
                place, colour = (j + 0.5 - gap / 2, i + 0.5), INK if clear[i, j] else MUTED
                words = _number(value / 10.0**power, digits if cell >= _LONG_NUMBERS_FIT else 2)
                ax.text(*place, words, ha="center", va="center_baseline", fontsize=SMALL, color=colour)
    start = 0
    for block in blocks:
        if len(block) > 1:
            span = len(block) - gap
            ax.add_patch(Rectangle((start, start), span, span, fill=False, ec=INK, lw=1.4, clip_on=False))
        start += len(block)
    _names(panel, names, left, cell)
    foot = _TOP + side + 16
    scale = f" · 10{_raised(power)}" if power else ""
    _scale(panel, left, foot, plain(largest / 10.0**power, digits) + scale)
    said = [f"row: task updated; column: task affected{f'; {unit}' if unit else ''}"]
    for i, words in enumerate(said + _grey(measured, clear, significance, missing)):
        panel.text(0, foot + 18 + 16 * i, words)
    return panel.figure


@drawn
def group_timeline(
    tasks: Sequence[str],
    timeline: Sequence[tuple[float, Sequence[Sequence[int | str]]]],
    *,
    end: float | None = None,
    title: str = "Groups",
    detail: str = "",
    unit: str = "batch",
) -> Figure:
    """One lane a task over training: stretches of one colour and letter were updated together, grey ones alone.

    A group keeps its colour and letter as long as most of its tasks stay together. Tasks that end in one group
    stand next to each other.

    Args:
        tasks: K names.
        timeline: (when, groups) in order of time: from then on these groups of task names or numbers. A task that
            is in none of them was not updated: its lane is empty.
        end: Where the last partition ends. By default a little after it began.
        title: The panel's name.
        detail: The quieter line below it.
        unit: Of time.

    Raises:
        ValueError: if a time is before the one above it, or a group names a task that there is not.
    """
    if not timeline or not tasks:
        return nothing("No groups were recorded.")
    times = [float(when) for when, _ in timeline]
    if sorted(times) != times:
        raise ValueError("the timeline must be in order of time")
    parts = [_numbers(tasks, groups) for _, groups in timeline]
    signs = _followed(parts)
    last = max(end if end is not None else -math.inf, times[-1])
    if last <= times[-1]:
        last = times[-1] + max((times[-1] - times[0]) / 20, 1.0)
    order = _together(len(tasks), parts[-1])
    lane = max(min(_LANE, 420 / len(tasks)), 9.0)
    panel = panels(1, _HEAD + lane * len(tasks) + _FOOT, 1)[0]
    panel.title(label(title, 42), detail)
    names = [tasks[i] for i in order]
    left = column(names, _LETTERS)
    width = WIDTH - left - _RIGHT
    ax = panel.axes(left, _HEAD, width, lane * len(tasks))
    ax.set(xlim=(times[0], last), ylim=(len(tasks), 0), yticks=[])
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    per_pixel = (last - times[0]) / width
    for row, task in enumerate(order):
        for start, stop, sign in _stretches([found.get(task) for found in signs], [*times, last]):
            _stretch(ax, start, stop, row, sign, per_pixel, lane)
        panel.text(left - 8, _HEAD + lane * (row + 0.5), label(names[row], _LETTERS), ha="right", color=INK,
                   fontsize=min(SMALL, lane - 1))  # fmt: skip
        panel.text(WIDTH - _RIGHT + 6, _HEAD + lane * (row + 0.5), _word(signs[-1].get(task)),
                   fontsize=min(SMALL, lane - 1))  # fmt: skip
    panel.text(left + width / 2, _HEAD + lane * len(tasks) + 30, unit, ha="center")
    return panel.figure


# Affinity


def _given(matrix: Any, counts: Any, errors: Any) -> list[tuple[str, Any]]:
    return [("matrix", matrix), ("counts", counts), ("standard_errors", errors)]


def _square(name: str, given: Any, k: int) -> np.ndarray | None:
    if given is None and name != "matrix":
        return None
    found = np.asarray(given, dtype=float).reshape(0, 0) if not k else np.asarray(given, dtype=float)
    if found.shape != (k, k):
        raise ValueError(f"{name} must be {k}×{k}, one row and one column a task, not of shape {found.shape}")
    return found


def _blocks(tasks: Sequence[str], groups: Sequence[Sequence[int | str]] | None) -> list[list[int]]:
    if groups is None:
        return [[i] for i in range(len(tasks))]
    blocks = _numbers(tasks, groups)
    if sorted(i for block in blocks for i in block) != list(range(len(tasks))):
        raise ValueError("groups must hold every task exactly once")
    return blocks


def _cell(x: float, y: float, side: float, share: float) -> Rectangle:
    # The opacity is the size: that works on a white page and on a black one, and in print.
    colour = POSITIVE if share > 0 else NEGATIVE
    return Rectangle((x, y), side, side, lw=0, color=colour, alpha=round(0.1 + 0.9 * min(abs(share), 1.0), 2))


def _scale(panel: Panel, left: float, y: float, largest: str) -> None:
    ax = panel.axes(left, y - 5, 72, 10)
    ax.set(xlim=(0, 8), ylim=(0, 1), xticks=[], yticks=[])
    for i, share in enumerate((-1, -0.75, -0.5, -0.25, 0.25, 0.5, 0.75, 1)):
        ax.add_patch(_cell(i, 0, 1, share))
    panel.text(left - 6, y, "harms", ha="right")
    panel.text(left + 78, y, f"helps, ±{largest}")


def _grey(measured: np.ndarray, clear: np.ndarray, significance: float, missing: str) -> list[str]:
    apart = ~np.eye(len(measured), dtype=bool)
    pairs, none, doubtful = int(apart.sum()), int((apart & ~measured).sum()), int((apart & measured & ~clear).sum())
    if not pairs:
        return []
    if not none and not doubtful:
        return [f"all {pairs} effects are clear of zero"]
    said = [f"pale grey: {none} of {pairs} pairs {missing}"] if none else []
    near = f"{doubtful} of {pairs} pairs within {significance:g} standard errors of zero"
    return said + ([f"grey: {near}"] if doubtful else [])


def _number(value: float, digits: int = 2) -> str:
    """Four characters and a sign, whatever its size; one more where three digits are asked for."""
    return plain(value, min(digits, 3) if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0)


def _raised(power: int) -> str:
    return str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _names(panel: Panel, tasks: Sequence[str], left: float, cell: float) -> None:
    size = min(SMALL, cell - 1)
    for i, task in enumerate(tasks):
        middle = _TOP + cell * (i + 0.5)
        panel.text(left - 24, middle, label(task, _LETTERS), ha="right", color=INK, fontsize=size)
        panel.text(left - 6, middle, str(i + 1), ha="right", fontsize=size)
        panel.text(left + cell * (i + 0.5), _TOP - 7, str(i + 1), ha="center", fontsize=min(size, 0.7 * cell))


# Timeline


@dataclass(frozen=True)
class _Sign:
    """How a group is drawn: a number that it keeps over time; −1 for a task that is alone."""

    number: int

    @property
    def letter(self) -> str:
        rounds, rest = divmod(self.number, 26)
        return chr(ord("A") + rest) + (str(rounds + 1) if rounds else "")

    @property
    def colour(self) -> str:
        return COLOURS[self.number % len(COLOURS)]


_ALONE = _Sign(-1)


def _numbers(tasks: Sequence[str], groups: Sequence[Sequence[int | str]]) -> list[list[int]]:
    place = {name: i for i, name in enumerate(tasks)}
    found = [[place.get(task, -1) if isinstance(task, str) else int(task) for task in group] for group in groups]
    for group, numbers in zip(groups, found, strict=True):
        for task, number in zip(group, numbers, strict=True):
            if not 0 <= number < len(tasks):
                raise ValueError(f"the group {list(group)} holds {task!r}, which is none of the tasks {list(tasks)}")
    return found


def _followed(parts: Sequence[Sequence[Sequence[int]]]) -> list[dict[int, _Sign]]:
    """{task: sign} at each time. A group takes over the sign with which it shares most tasks, the largest first."""
    before: dict[int, set[int]] = {}
    used, found = 0, []
    for groups in parts:
        now: dict[int, set[int]] = {}
        several = [set(group) for group in groups if len(group) > 1]
        wanted = sorted(
            ((len(group & old) / len(group | old), -number, i)
             for i, group in enumerate(several) for number, old in before.items() if group & old),
            reverse=True,
        )  # fmt: skip
        given: dict[int, int] = {}
        for _, negative, i in wanted:
            if i not in given and -negative not in given.values():
                given[i] = -negative
        for i, group in enumerate(several):
            if i not in given:
                given[i], used = used, used + 1
            now[given[i]] = group
        signs = {task: _ALONE for group in groups for task in group}
        signs |= {task: _Sign(number) for number, group in now.items() for task in group}
        found.append(signs)
        # A sign that is out of use waits: a group that falls apart and comes back is the same group.
        before = before | now
    return found


def _together(k: int, groups: Sequence[Sequence[int]]) -> list[int]:
    """Tasks of one group side by side; those without a group last."""
    order = [task for group in sorted(groups, key=lambda g: (len(g) == 1, min(g, default=k))) for task in sorted(group)]
    return order + [task for task in range(k) if task not in order]


def _stretches(signs: Sequence[_Sign | None], times: Sequence[float]) -> list[tuple[float, float, _Sign]]:
    """(start, stop, sign) with neighbours of one sign joined."""
    found: list[tuple[float, float, _Sign]] = []
    for sign, start, stop in zip(signs, times[:-1], times[1:], strict=True):
        if sign is None or stop <= start:
            continue
        if found and found[-1][2] == sign and found[-1][1] == start:
            found[-1] = (found[-1][0], stop, sign)
        else:
            found.append((start, stop, sign))
    return found


def _stretch(ax: Axes, start: float, stop: float, row: int, sign: _Sign, per_pixel: float, lane: float) -> None:
    gap = 2 / lane
    if sign == _ALONE:
        ax.add_patch(Rectangle((start, row + 0.36), stop - start, 0.28, lw=0, color=LINE, alpha=0.6))
        return
    ax.add_patch(Rectangle((start, row + gap / 2), stop - start, 1 - gap, lw=0, color=sign.colour, alpha=0.5))
    if (stop - start) / per_pixel >= _LETTER_FITS and lane >= 12:
        middle = (start + stop) / 2
        ax.text(middle, row + 0.5, sign.letter, ha="center", va="center_baseline", fontsize=SMALL, color=INK)


def _word(sign: _Sign | None) -> str:
    return "" if sign is None else "alone" if sign == _ALONE else sign.letter


def counted(groups: float) -> str:
    """A mean number of groups in words: "1 group", "2.4 groups"."""
    whole = round(groups)
    return plural(whole, "group") if abs(groups - whole) < 0.05 else f"{plain(groups, 1)}\u00a0groups"
