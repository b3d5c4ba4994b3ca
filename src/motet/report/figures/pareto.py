"""A Pareto front: points in the space of two losses, or one line a point over an axis for each of more."""

from collections.abc import Sequence
from typing import Any

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
    SMALL,
    Panel,
    column,
    drawn,
    label,
    panels,
    styles,
)
from motet.report.numbers import short

_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM, _HEIGHT = 420, 52, 16, 44, 44, 380
_APART = 13
"""Pixels that two labels keep between their middles."""
_AXIS = 84


@drawn
def pareto_front(
    tasks: Sequence[str],
    preferences: Sequence[Sequence[float]],
    points: Sequence[Sequence[float]],
    nondominated: Sequence[bool],
    reference: Sequence[float],
) -> Figure:
    """The points of a sweep over preferences, lower is better.

    Args:
        tasks: Names of the K tasks.
        preferences: (N, K), rows sum to 1.
        points: (N, K) losses.
        nondominated: Which points no other one betters.
        reference: (K,): up to where the hypervolume counts.
    """
    values, shares, best = np.asarray(points, float), np.asarray(preferences, float), np.asarray(nondominated, bool)
    if len(tasks) == 2:
        return _plane(tasks, shares, values, best, np.asarray(reference, float))
    return _parallel(tasks, shares, values, best)


_Array = np.ndarray[Any, np.dtype[np.float64]]


def _plane(tasks: Sequence[str], shares: _Array, points: _Array, best: Any, corner: _Array) -> Figure:
    panel = panels(1, _HEIGHT, 1, width=_WIDTH)[0]
    panel.title("Pareto front", f"numbers: preference of {label(tasks[0], 24)} in per cent; hollow: dominated")
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    ax = panel.axes(_LEFT, _TOP, width, height)
    shown = points[(points <= corner).all(1) & best]
    low = np.minimum(points.min(0), corner)
    high = np.maximum(points.max(0), corner)
    air = 0.06 * np.where(high > low, high - low, np.maximum(np.abs(high), 1.0))
    low, high = low - air, high + air
    # Where the origin is near, it's shown: the rays come from there.
    low = np.where((low > 0) & (low < 0.5 * (high - low)), 0.0, low)
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    ax.grid(color=GRID, lw=0.8)
    ax.set_axisbelow(True)
    if (points > 0).all():
        _rays(ax, shares, high)
    if len(shown):
        ordered = np.unique(shown, axis=0)
        xs = np.concatenate([np.repeat(ordered[:, 0], 2), [corner[0]]])
        ys = np.concatenate([[corner[1]], np.repeat(ordered[:, 1], 2)])
        ax.fill_between(xs, ys, corner[1], color=BETTER, alpha=0.1, lw=0, zorder=1)
        ax.plot(xs, ys, color=BETTER, lw=1.4, zorder=2)
    ax.plot(*corner, "x", color=MUTED, ms=6, zorder=3)
    at = (corner[0], corner[1])
    ax.annotate("reference", at, (-8, -3), textcoords="offset pixels", ha="right", va="top", color=MUTED, size=SMALL)
    ax.plot(*points[~best].T, "o", mfc=PAPER, mec=MUTED, mew=1.2, ms=6.5, zorder=3, ls="")
    ax.plot(*points[best].T, "o", color=BETTER, mec=PAPER, mew=0.7, ms=7.5, zorder=4, ls="")
    _names(panel, ax, shares, points)
    panel.text(_LEFT + width / 2, _HEIGHT - 9, f"{label(tasks[0], 32)}, lower is better", ha="center")
    panel.text(8, _TOP + height / 2, label(tasks[1], 32), ha="center", rotation=90, va="center")
    return panel.figure


def _rays(ax: Axes, shares: _Array, high: _Array) -> None:
    """Where preference times loss is the same for both tasks, from the origin to the edge."""
    for share in shares:
        along = 1 / share
        end = along * (high / along).min()
        ax.plot([0, end[0]], [0, end[1]], color=LINE, lw=0.8, ls=(0, (1, 3)), zorder=1)


def _names(panel: Panel, ax: Axes, shares: _Array, points: _Array) -> None:
    """The first task's preference beside each point, left out where it would lie on another."""
    scale = panel.figure.dpi / 72
    taken: list[_Array] = []
    for share, point in zip(shares, points, strict=True):
        at = ax.transData.transform(point) / scale + (8, 8)
        if all(np.abs(at - other).max() >= _APART for other in taken):
            taken.append(at)
            panel.text(at[0], _HEIGHT - at[1], short(round(100 * share[0], 1)), color=INK)


def _parallel(tasks: Sequence[str], shares: _Array, points: _Array, best: Any) -> Figure:
    names = list(tasks)
    left, right = 34, max(column([*names, "all alike"], 16) + 42, 108)
    wide = _AXIS * (len(names) - 1)
    panel = panels(1, _HEIGHT, 1, width=max(left + wide + right, 320))[0]
    panel.title("Pareto front", "one line a model, lower is better; dashed: dominated")
    height = _HEIGHT - _TOP - _BOTTOM - 16
    ax = panel.axes(left, _TOP + 16, wide, height)
    low, high = points.min(0), points.max(0)
    place = (points - low) / np.where(high > low, high - low, 1.0)
    ax.set(xlim=(0, len(names) - 1), ylim=(-0.02, 1.02), xticks=[], yticks=[])
    looks = styles(names)
    for k, name in enumerate(names):
        ax.axvline(k, color=LINE, lw=1, zorder=1)
        x = left + k * _AXIS
        panel.text(x, _TOP + 8, short(float(f"{high[k]:.3g}")), ha="center")
        panel.text(x, _HEIGHT - _BOTTOM + 12, short(float(f"{low[k]:.3g}")), ha="center")
        panel.text(x, _HEIGHT - 12, label(name, 12), ha="center", color=INK)
    even = np.isclose(shares.max(1), shares.min(1))
    for row, share, good, alike in zip(place, shares, best, even, strict=True):
        look = looks[names[int(share.argmax())]]
        style = "-" if good else (0, (3, 2))
        colour = MUTED if alike else look.colour
        ax.plot(row, color=colour, lw=1.6 if good else 1, ls=style, alpha=1 if good else 0.7, zorder=2, clip_on=False)
    panel.text(left + wide + 30, _TOP + 8, "prefers most")
    words = [*names, *(["all alike"] if even.any() else [])]
    for i, name in enumerate(words):
        y = _TOP + 28 + 18 * i
        key = panel.axes(left + wide + 30, y - 6, 18, 12)
        key.set(xlim=(0, 1), ylim=(0, 1), xticks=[], yticks=[])
        key.plot([0, 1], [0.5, 0.5], color=MUTED if i == len(names) else looks[name].colour, lw=2)
        panel.text(left + wide + 54, y, label(name, 16), color=INK)
    return panel.figure
