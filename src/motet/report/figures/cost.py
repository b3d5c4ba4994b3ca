"""What an arm gains against what it costs."""

import math
from typing import Literal

import numpy as np
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator

from motet.report.figures.theme import GRID, INK, LINE, PAPER, drawn, label, nothing, panels, styles
from motet.report.numbers import THIN, seconds, short
from motet.study.results import ArmSummary, Summary

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM, _NAMES = 400, 300, 40, 34, 44, 128
_APART = 14


@drawn
def cost(summary: Summary, against: Literal["step", "total"] = "step") -> Figure:
    """Δm of every arm, with its interval, against the cost of a step or of the whole training.

    Args:
        summary: Of the study.
        against: ``step``: the time of a step over the plain sum's. ``total``: seconds of training in all.
    """

    def price(arm: ArmSummary) -> float:
        return arm.step_cost if against == "step" else arm.total_seconds

    arms = [arm for arm in summary.arms if math.isfinite(arm.delta_m.mean) and 0 < price(arm) < math.inf]
    if not arms:
        return nothing("No arm has both a cost and a Δm.")
    looks = styles(arm.arm for arm in summary.arms)
    panel = panels(1, _HEIGHT, 1, width=_WIDTH)[0]
    panel.title("Δm against the cost of a step" if against == "step" else "Δm against the time of training")
    panel.text(0, 24, "Δm in per cent, lower is better")
    width, height = _WIDTH - _LEFT - _NAMES, _HEIGHT - _TOP - _BOTTOM
    ax = panel.axes(_LEFT, _TOP, width, height)
    _price_axis(ax.xaxis, [price(arm) for arm in arms], against)
    ends = [end for arm in arms for end in (arm.delta_m.mean, arm.delta_m.low, arm.delta_m.high) if math.isfinite(end)]
    air = max(0.06 * (max(ends) - min(ends)), 0.5)
    ax.set_ylim(min(0, *ends) - air, max(0, *ends) + air)
    ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    ax.grid(color=GRID, lw=0.8)
    ax.set_axisbelow(True)
    ax.axhline(0, color=LINE, lw=1.2, zorder=1)
    for arm in arms:
        look, x, change = looks[arm.arm], price(arm), arm.delta_m
        if not (math.isnan(change.low) or math.isnan(change.high)):
            ax.plot([x, x], [change.low, change.high], color=look.colour, lw=1.5, zorder=2)
        ax.plot([x], [change.mean], look.marker, color=look.colour, ms=7.5, mec=PAPER, mew=0.7, zorder=3)
    # Names stand in the margin, in the order of the points and never on each other, each with a thin line to its point.
    points = {arm.arm: ax.transData.transform((price(arm), arm.delta_m.mean)) for arm in arms}
    scale = panel.figure.dpi / 72
    heights = {name: _HEIGHT - point[1] / scale for name, point in points.items()}
    for name, y in _spread(heights, _TOP + 4, _HEIGHT - _BOTTOM - 2).items():
        x = points[name][0] / scale
        line = [(x + 6, heights[name]), (_WIDTH - _NAMES + 4, y), (_WIDTH - _NAMES + 9, y)]
        _leader(panel.figure, line, looks[name].colour)
        panel.text(_WIDTH - _NAMES + 12, y, label(name), color=INK)
    axis = "time of a step, as a multiple of the plain sum's" if against == "step" else "training of one seed"
    panel.text(_LEFT + width / 2, _HEIGHT - 9, axis, ha="center")
    return panel.figure


def _price_axis(axis: Axis, prices: list[float], against: str) -> None:
    low, high = min(prices), max(prices)
    if high > 5 * low:  # one expensive arm would push the rest together
        axis.axes.set_xscale("log")
        axis.set_minor_locator(FixedLocator([]))
        decades = 10.0 ** np.arange(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = np.outer(decades, [1, 2, 5]).ravel()
        axis.axes.set_xlim(low / 1.25, high * 1.25)
        axis.set_major_locator(FixedLocator([t for t in ticks if low / 1.25 <= t <= high * 1.25]))
    else:
        air = max(0.08 * (high - low), 0.05 * high)
        axis.axes.set_xlim(low - air, high + air)
        axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    # Last, since a log scale brings its own.
    axis.set_major_formatter(lambda value, _: f"{short(value)}×" if against == "step" else _seconds(value))


def _seconds(value: float) -> str:
    return f"{short(value)}{THIN}s" if value < 100 else seconds(value)


def _leader(figure: Figure, points: list[tuple[float, float]], colour: str) -> None:
    xs, ys = zip(*points, strict=True)
    line = Line2D([x / _WIDTH for x in xs], [1 - y / _HEIGHT for y in ys], lw=0.7, color=colour, alpha=0.55)
    line.set_transform(figure.transFigure)
    figure.add_artist(line)


def _spread(wanted: dict[str, float], top: float, bottom: float) -> dict[str, float]:
    """Heights as near to those wanted as keeps the names apart and inside: first downwards, then upwards."""
    names = sorted(wanted, key=lambda name: wanted[name])
    apart = min(_APART, (bottom - top) / max(len(names) - 1, 1))
    placed: list[float] = []
    for name in names:
        placed.append(max(wanted[name], placed[-1] + apart if placed else top))
    limit = bottom
    for i in reversed(range(len(placed))):
        placed[i] = min(placed[i], limit)
        limit = placed[i] - apart
    return dict(zip(names, placed, strict=True))
