"""How an arm weighted the tasks as training went."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from motet.report.figures.theme import (
    GRID,
    INK,
    LINE,
    NEGATIVE,
    POSITIVE,
    WIDTH,
    column,
    drawn,
    label,
    nothing,
    panels,
)
from motet.report.numbers import ratio
from motet.study.results import Run

_LANE, _TOP, _FOOT, _RIGHT = 25, 42, 38, 50
_BINS = 48
_CLIP = 3.0
"""Lanes end at 8 times and at an eighth of an equal share."""


@drawn
def weight_streams(runs: Sequence[Run], arms: Sequence[str] | None = None, columns: int = 3) -> Figure:
    """One panel an arm and one lane a task: the task's share of the weights over training, the mean over seeds.

    A share is K·wₖ / Σ|wⱼ|, so that 1 is equal weighting; the lane's middle line. Above it (filled in one
    colour) the task has more than its equal share, below it less, on a logarithmic scale that all panels
    have in common. A weight of zero or below lies at the lane's floor. The figure at the end is the share
    over the last quarter of training.

    Args:
        runs: All runs of a study. Those without weights are left out.
        arms: Which panels, in this order. By default every arm whose weights are not always equal.
        columns: Panels side by side.
    """
    shares = {arm: _shares([run for run in runs if run.arm == arm]) for arm in dict.fromkeys(r.arm for r in runs)}
    arms = uneven(runs) if arms is None else arms
    arms = [arm for arm in arms if shares.get(arm)]
    if not arms:
        return nothing("No arm has weights that change or differ.")
    reach = max((abs(_logs(s)).max() for found in shares.values() for _, s in found.values()), default=1.0)
    reach = min(_CLIP, max(1.0, math.ceil(2 * reach) / 2))
    grid = panels(len(arms), _TOP + _LANE * max(len(shares[arm]) for arm in arms) + _FOOT, columns)
    for panel, arm in zip(grid, arms, strict=True):
        lanes = shares[arm]
        panel.title(label(arm, 42), "share of the weight, log scale")
        panel.text(WIDTH, 25, "late", ha="right")
        left = column(lanes)
        last = max(steps[-1] for steps, _ in lanes.values())
        for i, (task, (steps, share)) in enumerate(lanes.items()):
            top = _TOP + _LANE * i
            ax = panel.axes(left, top, WIDTH - left - _RIGHT, _LANE - 3)
            _lane(ax, steps, np.clip(_logs(share), -reach, reach))
            ax.set(ylim=(-reach, reach), yticks=[], xlim=(0, max(last, 1)))
            ax.xaxis.set_major_locator(MaxNLocator(3, integer=True))
            ax.tick_params(labelbottom=i == len(lanes) - 1)
            panel.text(left - 8, top + (_LANE - 3) / 2, label(task), ha="right", color=INK)
            if i == len(lanes) - 1:
                panel.text((left + WIDTH - _RIGHT) / 2, top + _LANE + 28, "step", ha="center")
            late = float(share[steps >= 0.75 * steps[-1]].mean())
            panel.text(WIDTH - 1, top + (_LANE - 3) / 2, ratio(late), ha="right", color=INK)
    return grid[0].figure


def uneven(runs: Sequence[Run]) -> list[str]:
    """The arms whose weights are not equal all the time: those that have something to show."""
    found = {arm: _shares([run for run in runs if run.arm == arm]) for arm in dict.fromkeys(r.arm for r in runs)}
    return [arm for arm, lanes in found.items() if any(np.abs(share - 1).max() > 1e-3 for _, share in lanes.values())]


Lane = tuple[np.ndarray, np.ndarray]
"""Steps and shares, (≤ 48,) each."""


def _shares(runs: Sequence[Run]) -> dict[str, Lane]:
    """{task: lane}, with the steps in bins, over all seeds of one arm."""
    rows = [row for run in runs for row in run.weights]
    tasks = list(dict.fromkeys(name for row in rows for name in row.of))
    if len(tasks) < 2:
        return {}
    steps = np.array([row.step for row in rows], dtype=float)
    weights = np.array([[row.of.get(task, np.nan) for task in tasks] for row in rows], dtype=float)
    total = np.nansum(np.abs(weights), 1, keepdims=True)
    # An absent task has no weight to share, so K counts those that are there.
    present = np.isfinite(weights).sum(1, keepdims=True)
    share = np.divide(weights * present, total, out=np.full_like(weights, np.nan), where=total > 0)
    bins = np.minimum((steps / max(steps.max(), 1) * _BINS).astype(int), _BINS - 1)
    lanes: dict[str, Lane] = {}
    for k, task in enumerate(tasks):
        good = np.isfinite(share[:, k])
        count = np.bincount(bins[good], minlength=_BINS)
        if not count.any():
            continue
        middle = np.bincount(bins[good], steps[good], _BINS)[count > 0] / count[count > 0]
        lanes[task] = middle, np.bincount(bins[good], share[good, k], _BINS)[count > 0] / count[count > 0]
    return lanes


def _logs(share: np.ndarray) -> np.ndarray:
    return np.asarray(np.log2(np.maximum(share, 2.0**-_CLIP)))


def _lane(ax: Axes, steps: np.ndarray, logs: np.ndarray) -> None:
    ax.axhspan(-_CLIP, _CLIP, color=GRID, alpha=0.35, lw=0)
    for part, colour in ((np.maximum(logs, 0), POSITIVE), (np.minimum(logs, 0), NEGATIVE)):
        if np.any(part):
            ax.fill_between(steps, part, 0, color=colour, lw=0, alpha=0.85)
    ax.axhline(0, color=LINE, lw=0.8)
    if len(steps) == 1:
        ax.plot(steps, logs, "_", color=INK, ms=8)
