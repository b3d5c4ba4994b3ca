"""How much better or worse every task became, with intervals: the picture of the verdict."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from motet.report.figures.theme import (
    BETTER,
    GRID,
    INK,
    LINE,
    MUTED,
    PAPER,
    WIDTH,
    WORSE,
    Panel,
    Style,
    column,
    drawn,
    label,
    nothing,
    panels,
    styles,
)
from motet.report.numbers import change
from motet.study.results import SINGLE, Interval, Summary

ALL = "All tasks: Δm"
_ROW, _RIGHT = 20, 48


def worst_first(summary: Summary) -> list[str]:
    """The tasks by their largest change over all arms but single-task: the worst comes first."""
    others = [arm.per_task for arm in summary.arms if arm.arm != SINGLE]

    def largest(task: str) -> float:
        return max((p[task].mean for p in others if task in p and not math.isnan(p[task].mean)), default=-math.inf)

    return sorted(summary.baseline, key=lambda task: -largest(task))


@drawn
def forest(summary: Summary, tasks: Sequence[str | None] | None = None, columns: int = 3) -> Figure:
    """One panel a task and one row an arm: the change against single-task in per cent, positive = worse.

    All panels share one scale, whichever of them are drawn, unless one task's changes are so much larger
    than another's that this would hide the smaller: see `share_scale`. A far outlier does not stretch a
    scale: an arrow at the edge stands for it, and the figure at the row's end gives its mean.

    Args:
        summary: Of the study.
        tasks: Which panels, in this order; None among them is the mean over tasks, Δm. By default that
            first, then every task, the worst first.
        columns: Panels side by side.

    Raises:
        ValueError: for a task that the summary does not have.
    """
    arms = [arm for arm in summary.arms if arm.arm != SINGLE]
    if not arms:
        return nothing("No arm besides single-task.")
    tasks = [None, *worst_first(summary)] if tasks is None else tasks
    if unknown := [task for task in tasks if task is not None and task not in summary.baseline]:
        raise ValueError(f"the summary has no task {unknown[0]!r}: it has {', '.join(map(repr, summary.baseline))}")
    rows, limits = _rows(summary), _scales(summary)
    own = not share_scale(summary)
    looks = styles(arm.arm for arm in summary.arms)
    left = column(arm.arm for arm in arms)
    grid = panels(len(tasks), 26 + _ROW * len(arms) + 40, columns)
    for panel, task in zip(grid, tasks, strict=True):
        panel.title(ALL if task is None else label(task, 34 if own else 42))
        if own:
            panel.text(WIDTH, 9, "own scale", ha="right")
        ax = panel.axes(left, 24, WIDTH - left - _RIGHT, _ROW * len(arms))
        _scale(ax, limits[task], len(arms), summary.rule.worst_task if task is not None else None)
        for y, (arm, interval) in enumerate(zip(arms, rows[task], strict=True)):
            panel.text(left - 8, 24 + _ROW * (y + 0.5), label(arm.arm), ha="right", color=INK)
            _row(ax, y, interval, looks[arm.arm], limits[task])
            _figure(panel, 24 + _ROW * (y + 0.5), interval)
        foot = 24 + _ROW * len(arms) + 32
        panel.text(left, foot, "← better")
        panel.text((left + WIDTH - _RIGHT) / 2, foot, "%", ha="center")
        panel.text(WIDTH - _RIGHT, foot, "worse →", ha="right")
    return grid[0].figure


def share_scale(summary: Summary) -> bool:
    """Whether no panel of the forest would need more than six times the width of another."""
    widths = [high - low for low, high in map(_limits, _rows(summary).values())]
    return max(widths) <= 6 * min(widths)


def _rows(summary: Summary) -> dict[str | None, list[Interval]]:
    """The changes of every arm but single-task, by task; Δm under None."""
    arms = [arm for arm in summary.arms if arm.arm != SINGLE]
    absent = Interval(math.nan, math.nan, math.nan)
    rows: dict[str | None, list[Interval]] = {None: [arm.delta_m for arm in arms]}
    return rows | {task: [arm.per_task.get(task, absent) for arm in arms] for task in summary.baseline}


def _scales(summary: Summary) -> dict[str | None, tuple[float, float]]:
    rows = _rows(summary)
    if share_scale(summary):
        return dict.fromkeys(rows, _limits([interval for row in rows.values() for interval in row]))
    return {task: _limits(row) for task, row in rows.items()}


def _limits(intervals: Iterable[Interval]) -> tuple[float, float]:
    """A scale that holds zero and all but far outliers (Tukey's outer fences), with a little air."""
    ends = np.array([[i.mean, i.low, i.high] for i in intervals]).ravel()
    ends = np.append(ends[np.isfinite(ends)], 0.0)
    quartile = np.quantile(ends, [0.25, 0.75])
    reach = 3 * max(quartile[1] - quartile[0], 0.5)
    low, high = max(ends.min(), quartile[0] - reach, -1e6), min(ends.max(), quartile[1] + reach, 1e6)
    air = max(0.06 * (high - low), 0.25)
    return min(low, 0.0) - air, max(high, 0.0) + air


def _scale(ax: Axes, limits: tuple[float, float], rows: int, worst: float | None) -> None:
    ax.set(xlim=limits, ylim=(rows - 0.5, -0.5), yticks=[])
    ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    ax.grid(axis="x", color=GRID, lw=0.8)
    ax.set_axisbelow(True)
    ax.axvline(0, color=LINE, lw=1.2, zorder=1)
    if worst is not None and limits[0] < worst < limits[1]:
        ax.axvline(worst, color=WORSE, lw=1, ls=(0, (1, 2)), zorder=1)


def _row(ax: Axes, y: int, interval: Interval, style: Style, limits: tuple[float, float]) -> None:
    low, high = limits
    if not (math.isnan(interval.low) or math.isnan(interval.high)):
        left, right = np.clip([interval.low, interval.high], low, high)
        ax.plot([left, right], [y, y], color=style.colour, lw=1.7, solid_capstyle="butt", zorder=2)
    for beyond, edge, arrow in ((interval.mean > high, high, 5), (interval.mean < low, low, 4)):
        if beyond:  # 4 and 5 are matplotlib's caret left and right, whose tips are at the point
            ax.plot([edge], [y], marker=arrow, color=style.colour, ms=7, clip_on=False, zorder=3)
    if low <= interval.mean <= high:
        ax.plot([interval.mean], [y], style.marker, color=style.colour, ms=6.5, mec=PAPER, mew=0.7, zorder=3)


def _figure(panel: Panel, y: float, interval: Interval) -> None:
    colour = WORSE if interval.low > 0 else BETTER if interval.high < 0 else MUTED
    weight = "normal" if colour == MUTED else "bold"
    panel.text(WIDTH - 1, y, change(interval.mean), ha="right", color=colour, fontweight=weight)
