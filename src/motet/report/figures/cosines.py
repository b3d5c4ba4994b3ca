"""Which tasks' gradients point the same way, early and late."""

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from motet.report.figures.theme import (
    GRID,
    INK,
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
from motet.study.results import Cosines, Run

_TOP, _FOOT, _SIZE, _LETTERS = 68, 42, 196, 13
_NUMBERS_FIT = 26
"""Pixels of a cell that hold "−0.12"."""


@drawn
def cosine_matrices(runs: Sequence[Run], arms: Sequence[str] | None = None, columns: int = 3) -> Figure:
    """One panel an arm: cosines between the tasks' gradients, the mean over seeds.

    Below the diagonal stands the first measurement of each run, above it the last. Tasks are numbered; their
    names stand at the rows. All panels share one colour scale, from −1 to 1.

    Args:
        runs: All runs of a study. Those without cosines are left out.
        arms: Which panels, in this order. By default every arm that has cosines.
        columns: Panels side by side.

    Raises:
        ValueError: if the runs of an arm measured different tasks.
    """
    measured = [run for run in runs if run.cosines and len(run.cosines[0].tasks) > 1]
    arms = list(dict.fromkeys(run.arm for run in measured)) if arms is None else arms
    if not arms or not measured:
        return nothing("No cosines between gradients were recorded.")
    size = max(len(run.cosines[0].tasks) for run in measured)
    cell = min(40, _SIZE / size)
    grid = panels(len(arms), _TOP + cell * size + _FOOT, columns)
    for panel, arm in zip(grid, arms, strict=True):
        chosen = [run for run in measured if run.arm == arm]
        if not chosen:
            panel.title(label(arm, 42), "no cosines were recorded")
            continue
        early = [min(run.cosines, key=lambda c: c.epoch) for run in chosen]
        late = [max(run.cosines, key=lambda c: c.epoch) for run in chosen]
        tasks = early[0].tasks
        if any(found.tasks != tasks for found in early + late):
            raise ValueError(f"the runs of the arm {arm!r} measured cosines of different tasks: draw them apart")
        first, last = _mean(early), _mean(late)
        panel.title(label(arm, 42), f"mean cosine {_middle(first)} early, {_middle(last)} late")
        side = cell * len(tasks)
        left = min(22 + column(tasks, _LETTERS), WIDTH - side)
        ax = panel.axes(left, _TOP, side, side)
        _cells(ax, np.tril(first, -1) + np.triu(last, 1), cell)
        _names(panel, tasks, left, cell)
        panel.text(left, _TOP + side + 14, f"◣ early: {_epochs(early)}")
        _scale(panel, WIDTH - 104, _TOP + side + 34)
        panel.text(left + side, _TOP - 22, f"late: {_epochs(late)} ◥", ha="right")
        negative = int((last[np.triu_indices(len(tasks), 1)] < 0).sum())
        pairs = plural(len(tasks) * (len(tasks) - 1) // 2, "pair")
        panel.text(0, _TOP + side + 34, f"{negative} of {pairs} negative late")
    return grid[0].figure


def _mean(measurements: Sequence[Cosines]) -> np.ndarray:
    """(K, K), over seeds; NaN only where no seed has a value."""
    stack = np.array([found.matrix for found in measurements], dtype=float)
    count = np.isfinite(stack).sum(0)
    return np.where(count, np.nansum(stack, 0) / np.maximum(count, 1), np.nan)


def _middle(matrix: np.ndarray) -> str:
    values = matrix[np.triu_indices(len(matrix), 1)]
    values = values[np.isfinite(values)]
    return plain(float(values.mean()) if len(values) else float("nan"), 2)


def _epochs(measurements: Iterable[Cosines]) -> str:
    epochs = sorted({found.epoch for found in measurements})
    return f"epoch {epochs[0]}" if len(epochs) == 1 else f"epochs {epochs[0]}–{epochs[-1]}"


def _cells(ax: Axes, matrix: np.ndarray, cell: float) -> None:
    k = len(matrix)
    ax.set(xlim=(0, k), ylim=(k, 0), xticks=[], yticks=[])
    gap = 1 / cell
    for i in range(k):
        ax.add_patch(Rectangle((i, i), 1 - gap, 1 - gap, color=GRID, lw=0, alpha=0.55))
        for j in range(k):
            if i == j or np.isnan(matrix[i, j]):
                continue
            value = float(np.clip(matrix[i, j], -1, 1))
            ax.add_patch(_cell(j, i, 1 - gap, value))
            if cell >= _NUMBERS_FIT:
                centre = (j + 0.5 - gap / 2, i + 0.5)
                ax.text(*centre, plain(value, 2), ha="center", va="center_baseline", fontsize=SMALL, color=INK)


def _cell(x: float, y: float, side: float, value: float) -> Rectangle:
    # The opacity is the size: that works on a white page and on a black one, and in print.
    colour = POSITIVE if value > 0 else NEGATIVE
    return Rectangle((x, y), side, side, lw=0, color=colour, alpha=round(0.06 + 0.94 * abs(value), 2))


def _scale(panel: Panel, x: float, y: float) -> None:
    """The colours from −1 to 1, 100 pixels wide."""
    ax = panel.axes(x + 16, y - 5, 72, 10)
    ax.set(xlim=(0, 8), ylim=(0, 1), xticks=[], yticks=[])
    for i, value in enumerate((-1, -0.75, -0.5, -0.25, 0.25, 0.5, 0.75, 1)):
        ax.add_patch(_cell(i, 0, 1, value))
    panel.text(x + 12, y, "−1", ha="right")
    panel.text(x + 92, y, "1")


def _names(panel: Panel, tasks: Sequence[str], left: float, cell: float) -> None:
    size = min(SMALL, cell - 3)
    for i, task in enumerate(tasks):
        middle = _TOP + cell * (i + 0.5)
        panel.text(left - 24, middle, label(task, _LETTERS), ha="right", color=INK, fontsize=size)
        panel.text(left - 6, middle, str(i + 1), ha="right", fontsize=size)
        panel.text(left + cell * (i + 0.5), _TOP - 7, str(i + 1), ha="center", fontsize=min(size, 0.6 * cell))
