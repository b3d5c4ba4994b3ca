"""Two tasks against each other: which arms give up one for the other, and which are better in both."""

import math

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from motet.pareto import nondominated
from motet.report.figures.theme import (
    BETTER,
    GRID,
    INK,
    LINE,
    PAPER,
    WIDTH,
    drawn,
    label,
    nothing,
    panels,
    styles,
)
from motet.study.results import SINGLE, ArmSummary, Interval, Summary

_LEFT, _RIGHT, _TOP, _BOTTOM, _HEIGHT = 44, 10, 40, 44, 330
_ZERO = Interval(0.0, 0.0, 0.0)


@drawn
def arms_front(summary: Summary, first: str, second: str) -> Figure:
    """Every arm's change in two tasks, in per cent against single-task: best is down and to the left.

    The line joins the arms with one shared model that no other such arm betters in both means. Single-task lies at
    zero.
    """
    arms = {arm.arm: pair for arm in summary.arms if (pair := _pair(arm, first, second))}
    shared = [[one.mean for one in pair] for arm, pair in arms.items() if arm != SINGLE]
    if len(shared) < 2:
        return nothing("Fewer than two arms have results of both tasks.")
    panel = panels(1, _HEIGHT, 1)[0]
    panel.title(f"{label(first, 19)} and {label(second, 19)}", "change against single-task, %; lower is better")
    width, height = WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    ax = panel.axes(_LEFT, _TOP, width, height)
    means = np.array([[one.mean for one in pair] for pair in arms.values()])
    low, high = means.min(0), means.max(0)
    air = np.maximum(0.08 * (high - low), 0.5)
    low, high = low - air, high + air
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    ax.grid(color=GRID, lw=0.8)
    ax.set_axisbelow(True)
    ax.axvline(0, color=LINE, lw=1.2, zorder=1)
    ax.axhline(0, color=LINE, lw=1.2, zorder=1)
    edge = np.unique(np.array(shared)[nondominated(shared).numpy()], axis=0)
    xs, ys = np.repeat(edge[:, 0], 2), np.repeat(edge[:, 1], 2)
    xs, ys = np.concatenate([xs, [high[0]]]), np.concatenate([[high[1]], ys])
    ax.fill_between(xs, ys, high[1], color=BETTER, alpha=0.08, lw=0, zorder=0)
    ax.plot(xs, ys, color=BETTER, lw=1.2, zorder=2)
    looks = styles(arm.arm for arm in summary.arms)
    for arm, (x, y) in arms.items():
        colour = looks[arm].colour
        if not (math.isnan(x.low) or math.isnan(y.low)):
            ax.plot([x.low, x.high], [y.mean, y.mean], color=colour, lw=1.1, alpha=0.6, zorder=2)
            ax.plot([x.mean, x.mean], [y.low, y.high], color=colour, lw=1.1, alpha=0.6, zorder=2)
        ax.plot([x.mean], [y.mean], looks[arm].marker, color=colour, ms=7.5, mec=PAPER, mew=0.7, zorder=3)
    panel.text(_LEFT + width / 2, _HEIGHT - 8, f"{label(first, 30)}, worse →", ha="center", color=INK)
    panel.text(7, _TOP + height / 2, f"{label(second, 30)}, worse →", ha="center", va="center", rotation=90, color=INK)
    return panel.figure


def _pair(arm: ArmSummary, first: str, second: str) -> tuple[Interval, Interval] | None:
    if arm.arm == SINGLE:
        return _ZERO, _ZERO
    pair = arm.per_task.get(first), arm.per_task.get(second)
    if any(one is None or not math.isfinite(one.mean) for one in pair):
        return None
    return pair  # type: ignore[return-value]
