"""How validation went while training."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from motet.metrics.tasks import METRICS
from motet.problems.base import Task
from motet.report.figures.theme import GRID, PAPER, WIDTH, Style, drawn, label, legend, nothing, panels, styles
from motet.study.results import SINGLE, SUM, Run

_HEIGHT, _LEFT, _TOP, _BOTTOM = 230, 48, 44, 38
_SLOT = 7
"""Pixels for one arm's end point in the margin."""


@drawn
def learning_curves(runs: Sequence[Run], tasks: Sequence[Task], columns: int = 3, key: bool = True) -> Figure:
    """One panel a task: its metric on the validation split over epochs, a line an arm, the mean over seeds.

    A line goes on while at least half of its arm's seeds still train. The marks in the right margin are the
    arms at the ends of their lines; their bars are one standard deviation over seeds, each way. Where the
    first quarter of training would take more than half of the scale, the scale leaves it out.

    Args:
        runs: All runs of a study, in the order in which the arms shall be listed.
        tasks: Which to draw.
        columns: Panels side by side.
        key: Whether to explain the arms' signs above the panels.
    """
    runs = [run for run in runs if run.curve]
    if not runs or not tasks:
        return nothing("No learning curve was recorded.")
    arms = list(dict.fromkeys(run.arm for run in runs))
    looks = styles(arms)
    margin = _SLOT * len(arms) + 8
    head = 22.0 * -(-len(arms) // 3) if key else 0.0
    grid = panels(len(tasks), _HEIGHT, columns, head=head)
    if key:
        top = type(grid[0])(grid[0].figure, 0, 0)
        legend(top, arms, 72 * grid[0].figure.get_size_inches()[0])
    for panel, task in zip(grid, tasks, strict=True):
        panel.title(label(task.name, 42), _what(task))
        height = _HEIGHT - _TOP - _BOTTOM
        ax = panel.axes(_LEFT, _TOP, WIDTH - _LEFT - margin, height)
        side = panel.axes(WIDTH - margin, _TOP, margin, height)
        curves = {arm: _curve([run for run in runs if run.arm == arm], task.name) for arm in arms}
        # The references last, so that they lie on top: they are what every other line is held against.
        for arm in sorted(arms, key=lambda arm: arm in (SINGLE, SUM)):
            epochs, mean, _ = curves[arm]
            dash = (0, (3, 1.5)) if looks[arm].dashed else "-"
            ax.plot(epochs, mean, color=looks[arm].colour, lw=1.8 if arm in (SINGLE, SUM) else 1.3, ls=dash)
        _ends(side, [(curves[arm], looks[arm]) for arm in arms])
        low, high = _limits(list(curves.values()))
        for part in (ax, side):
            part.set_ylim(low, high)
        ax.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
        panel.text(_LEFT + (WIDTH - _LEFT - margin) / 2, _HEIGHT - 6, "epoch", ha="center")
        ax.grid(axis="y", color=GRID, lw=0.8)
        ax.margins(x=0.01)
    return grid[0].figure


def _what(task: Task) -> str:
    metric = METRICS[task.metric]
    unit = f", {label(task.unit, 12)}" if task.unit else ""
    return f"{metric.title}{unit} on validation, {'higher' if metric.higher_is_better else 'lower'} is better"


Curve = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Epochs, mean and standard deviation, (E,) each."""


def _curve(runs: Sequence[Run], task: str) -> Curve:
    values: dict[int, list[float]] = {}
    for run in runs:
        for row in run.curve:
            value = row.validation.get(task, np.nan)
            if np.isfinite(value):
                values.setdefault(row.epoch, []).append(value)
    kept = sorted(epoch for epoch, seeds in values.items() if 2 * len(seeds) >= len(runs))
    spread = [np.std(values[e], ddof=1) if len(values[e]) > 1 else np.nan for e in kept]
    return np.array(kept), np.array([np.mean(values[e]) for e in kept]), np.array(spread)


def _ends(ax: Axes, curves: Sequence[tuple[Curve, Style]]) -> None:
    ax.set(xlim=(-1.0, len(curves)), xticks=[], yticks=[])
    for x, ((_, mean, spread), look) in enumerate(curves):
        if not len(mean):
            continue
        if np.isfinite(spread[-1]):
            ax.plot([x, x], [mean[-1] - spread[-1], mean[-1] + spread[-1]], color=look.colour, lw=1.2)
        ax.plot([x], mean[-1:], look.marker, color=look.colour, ms=5, mec=PAPER, mew=0.5)


def _limits(curves: Sequence[Curve]) -> tuple[float, float]:
    drawn_curves = [curve for curve in curves if len(curve[0])]
    if not drawn_curves:
        return 0.0, 1.0
    ends = [
        end for _, mean, spread in drawn_curves for end in mean[-1] + np.array([-1, 0, 1]) * np.nan_to_num(spread[-1])
    ]
    last = max(epochs[-1] for epochs, _, _ in drawn_curves)
    whole = np.concatenate([mean for _, mean, _ in drawn_curves] + [np.array(ends)])
    later = np.concatenate([mean[epochs > 0.25 * last] for epochs, mean, _ in drawn_curves] + [np.array(ends)])
    chosen = later if np.ptp(whole) > 2 * np.ptp(later) > 0 else whole
    air = max(0.06 * np.ptp(chosen), 1e-3 * abs(float(chosen.max())), 1e-12)
    return float(chosen.min() - air), float(chosen.max() + air)
