"""Which tasks' gradients point the same way, early and late."""

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from motet.report.figures.theme import GRID, INK, MUTED, NEGATIVE, POSITIVE, Panel, drawn, label, nothing, panels
from motet.report.numbers import plain, plural
from motet.study.results import Cosines, Run

_LEFT, _TOP, _FOOT, _SIZE = 116, 64, 34, 200
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
        ax = panel.axes(_LEFT, _TOP, side, side)
        _cells(ax, np.tril(first, -1) + np.triu(last, 1), cell)
        _names(panel, tasks, cell)
        panel.text(_LEFT, _TOP + side + 14, f"◣ early: {_epochs(early)}")
        panel.text(_LEFT + side, _TOP - 22, f"late: {_epochs(late)} ◥", ha="right")
        negative = int((last[np.triu_indices(len(tasks), 1)] < 0).sum())
        pairs = plural(len(tasks) * (len(tasks) - 1) // 2, "pair")
        panel.text(_LEFT, _TOP + side + 28, f"{negative} of {pairs} negative late")
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
            # The opacity is the size: it works on a white page and on a black one, and in print.
            look = {"color": POSITIVE if value > 0 else NEGATIVE, "alpha": round(0.06 + 0.94 * abs(value), 2)}
            ax.add_patch(Rectangle((j, i), 1 - gap, 1 - gap, lw=0, **look))
            if cell >= _NUMBERS_FIT:
                centre = (j + 0.5 - gap / 2, i + 0.5)
                ax.text(*centre, plain(value, 2), ha="center", va="center_baseline", fontsize=9, color=INK)


def _names(panel: Panel, tasks: Sequence[str], cell: float) -> None:
    size = min(9.0, cell - 3)
    for i, task in enumerate(tasks):
        middle = _TOP + cell * (i + 0.5)
        panel.text(_LEFT - 22, middle, label(task, 17), ha="right", color=INK, fontsize=size)
        panel.text(_LEFT - 6, middle, str(i + 1), ha="right", fontsize=size)
        panel.text(_LEFT + cell * (i + 0.5), _TOP - 7, str(i + 1), ha="center", fontsize=size, color=MUTED)
