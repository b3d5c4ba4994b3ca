"""What momentum makes of the gradient: shares by age, cosines with the tasks, and its coefficient over training."""

import math
import statistics
from collections.abc import Iterable, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from motet.report.figures.theme import (
    GRID,
    INK,
    LINE,
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
from motet.report.numbers import plain
from motet.study.results import Momentum, Run

_LEFT, _RIGHT, _TOP = 40.0, 44.0, 46.0
_BARS, _LANE, _BETA, _GAP, _FOOT = 96.0, 19.0, 52.0, 44.0, 34.0


@drawn
def momentum_roles(runs: Sequence[Run], arms: Sequence[str] | None = None, columns: int = 3) -> Figure:
    """One panel an arm, from the few steps in which momentum was measured: medians over these and over seeds.

    On top the share that gradients of each age have in the momentum: the current one, the one before, …, and as one
    pale bar all that are older; they add up to 1, and one that points against the momentum has a negative share. In
    the middle the cosine of the update with each task's gradient: above zero the step helps the task. Below the
    momentum's coefficient β over training.

    Args:
        runs: All runs of a study; the scale of the shares is theirs in common.
        arms: Which panels, in this order. By default every arm with measured steps.
        columns: Panels side by side.
    """
    found = steps_of(runs)
    arms = [arm for arm in (found if arms is None else arms) if found.get(arm)]
    if not arms:
        return nothing("Momentum was measured in no arm.")
    shares = {arm: shares_of(steps) for arm, steps in found.items()}
    drawn_shares = [share for values in shares.values() for share in values]
    low, high = min([0.0, *drawn_shares]), max([0.1, *drawn_shares])
    tasks = {arm: cosines_of(found[arm]) for arm in arms}
    middle = _LANE * max(map(len, tasks.values()))
    grid = panels(len(arms), _TOP + _BARS + _GAP + middle + _GAP + _BETA + _FOOT, columns)
    for panel, arm in zip(grid, arms, strict=True):
        panel.title(label(arm, 36), "share of the momentum by age of the gradient, in steps")
        _shares(panel, shares[arm], (low, high + 0.16 * (high - low)))
        top = _TOP + _BARS + _GAP
        if tasks[arm]:
            panel.text(0, top - 12, "cosine of the update with each task's gradient")
            _cosines(panel, tasks[arm], top)
        top += middle + _GAP
        panel.text(0, top - 12, "coefficient β of the momentum")
        _betas(panel, [run for run in runs if run.arm == arm], top)
    return grid[0].figure


def steps_of(runs: Iterable[Run]) -> dict[str, list[Momentum]]:
    """The measured steps of every arm that has some, over all seeds."""
    found: dict[str, list[Momentum]] = {}
    for run in runs:
        if run.momentum:
            found.setdefault(run.arm, []).extend(run.momentum)
    return found


def middle_of(values: Iterable[float]) -> float:
    """The median of those that are numbers; NaN without any."""
    known = [value for value in values if not math.isnan(value)]
    return statistics.median(known) if known else math.nan


def shares_of(steps: Sequence[Momentum]) -> list[float]:
    """Medians of the shares by age, and of all older gradients' at the end; empty where none is defined."""
    told = [step.shares for step in steps if step.shares]
    ages = max(map(len, told), default=0)
    told = [shares for shares in told if len(shares) == ages]
    if not told:
        return []
    return [*map(statistics.median, zip(*told, strict=True)), statistics.median(1 - sum(shares) for shares in told)]


def cosines_of(steps: Sequence[Momentum]) -> dict[str, float]:
    """Medians of the cosines of the update with the tasks' gradients."""
    names = dict.fromkeys(task for step in steps for task in step.cosine_tasks)
    return {task: middle_of(step.cosine_tasks.get(task, math.nan) for step in steps) for task in names}


def _shares(panel: Panel, shares: Sequence[float], limits: tuple[float, float]) -> None:
    ax = panel.axes(_LEFT, _TOP, WIDTH - _LEFT - 4, _BARS)
    # What is older is many gradients and not one, so it stands apart and is pale.
    last = max(len(shares) - 1, 0)
    places = [*range(last), last + 0.5][: len(shares)]
    colours = [NEGATIVE if share < 0 else POSITIVE for share in shares[:last]]
    ax.bar(places, shares, width=0.72, color=[*colours, LINE][: len(shares)], lw=0)
    ax.axhline(0, color=LINE, lw=0.8)
    ax.set(ylim=limits, xlim=(-0.6, last + 1.1))
    ax.set_xticks(places, ["now", *map(str, range(1, last)), "all older"][: len(shares)])
    ax.yaxis.set_major_locator(MaxNLocator(3))
    ax.grid(axis="y", color=GRID, lw=0.8)
    ax.set_axisbelow(True)
    for place, share in zip(places, shares, strict=True):
        if place in (0, places[-1]):
            above = max(share, 0) + 0.02 * (limits[1] - limits[0])
            ax.text(place, above, plain(share, 2), ha="center", va="bottom", fontsize=SMALL, color=INK)


def _cosines(panel: Panel, tasks: dict[str, float], top: float) -> None:
    left = column(tasks)
    ax = panel.axes(left, top, WIDTH - left - _RIGHT, _LANE * len(tasks))
    ax.set(xlim=(-1, 1), ylim=(len(tasks), 0), yticks=[])
    ax.set_xticks([-1, 0, 1])
    ax.axvline(0, color=LINE, lw=0.8)
    for row, (task, cosine) in enumerate(tasks.items()):
        colour = NEGATIVE if cosine < 0 else POSITIVE
        ax.plot([-1, 1], [row + 0.5] * 2, color=GRID, lw=0.8, zorder=0)
        if not math.isnan(cosine):
            ax.plot([0, cosine], [row + 0.5] * 2, color=colour, lw=2)
            ax.plot([cosine], [row + 0.5], "o", color=colour, ms=5)
        middle = top + _LANE * (row + 0.5)
        panel.text(left - 8, middle, label(task), ha="right", color=INK)
        panel.text(WIDTH - 1, middle, plain(cosine, 2), ha="right", color=INK)


def _betas(panel: Panel, runs: Sequence[Run], top: float) -> None:
    """A thin line a seed."""
    ax = panel.axes(_LEFT, top, WIDTH - _LEFT - 4, _BETA)
    for run in runs:
        if run.momentum:
            steps, betas = [step.step for step in run.momentum], [step.beta for step in run.momentum]
            ax.plot(steps, betas, "o-", color=POSITIVE, lw=1.2, ms=3, alpha=0.7)
    ax.set(ylim=(0, 1.04))
    ax.set_yticks([0, 0.5, 1])
    ax.set_xlim(left=0)
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.grid(axis="y", color=GRID, lw=0.8)
    panel.text(_LEFT + (WIDTH - _LEFT) / 2, top + _BETA + 27, "optimizer step", ha="center")
