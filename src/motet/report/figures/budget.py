"""Δm against what was spent, by each of four clocks."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from motet.report.figures.theme import GRID, INK, LINE, MUTED, PAPER, Panel, drawn, legend, nothing, panels, styles
from motet.report.numbers import change, plain, seconds, short
from motet.study.budgets import CLOCKS, Curve, Ledger
from motet.study.inference import Values
from motet.study.results import SINGLE, SUM

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM, _RIGHT = 380, 290, 40, 44, 40, 12
_EARLY = 0.5
"""Share of its own training before which an arm does not set the scale."""
_FAR = 3.0
"""An arm that ends so many times as far out as all others together stands beyond the scale."""
_BANDS = 4
"""Up to so many arms have their whole band drawn; of more, the ends only."""


@drawn
def budget_curves(
    ledger: Ledger,
    clocks: Sequence[str] = tuple(CLOCKS),
    columns: int = 2,
    key: bool = True,
    arms: Sequence[str] = (),
    curves: Mapping[str, Mapping[str, Curve]] | None = None,
) -> Figure:
    """One panel a clock: mean Δm over seeds of what an arm would have kept, against what it had spent.

    Steps, since what is kept changes at the end of an epoch. The mark is the end of an arm's training, where its last
    seed stops, with its interval. A line that leaves the scale at the top was further out before; an arm that
    ends beyond the scale has its mark and its figure at the top.

    Args:
        ledger: From `motet.study.budgets.ledger`.
        clocks: Of `motet.study.budgets.CLOCKS`, those to draw.
        columns: Panels side by side.
        key: Whether to explain the arms' signs above the panels.
        arms: All arms of the study, which decides how each looks. Default: those of the ledger.
        curves: ``ledger.curves()``, where it is at hand.
    """
    curves = ledger.curves() if curves is None else curves
    clocks = [clock for clock in clocks if curves.get(clock)]
    if not clocks:
        return nothing("No results at equal cost are known.")
    shown = list(ledger.arms)
    head = 22.0 * -(-len(shown) // 3) if key else 0.0
    grid = panels(len(clocks), _HEIGHT, columns, width=_WIDTH, head=head)
    if key:
        legend(Panel(grid[0].figure, 0, 0), shown, 72 * grid[0].figure.get_size_inches()[0])
    for panel, clock in zip(grid, clocks, strict=True):
        _clock(panel, clock, ledger.units[clock], curves[clock], _limits(curves), arms or shown)
    return grid[0].figure


Limits = tuple[float, float]


def _clock(
    panel: Panel, clock: str, unit: float, curves: Mapping[str, Curve], limits: Limits, arms: Sequence[str]
) -> None:
    looks = styles(arms)
    total = seconds(unit) if clock == "seconds" else f"{plain(unit, 0)} {CLOCKS[clock]}"
    panel.title(f"At equal {CLOCKS[clock]}", "Δm in per cent, lower is better")
    ax = panel.axes(_LEFT, _TOP, _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM)
    high = limits[1]
    ax.set_ylim(*limits)
    _cost_axis(ax, curves, high)
    ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    ax.grid(axis="y", color=GRID, lw=0.8)
    ax.set_axisbelow(True)
    ax.axhline(0, color=LINE, lw=1.2, zorder=1)
    ax.axvline(1, color=MUTED, lw=1, ls=(0, (1, 2)), zorder=1)
    # The references last, so that they lie on top: they are what every other line is held against.
    for z, arm in enumerate(sorted(curves, key=lambda arm: arm in (SINGLE, SUM))):
        curve, look = curves[arm], looks[arm]
        dash = (0, (3, 1.5)) if look.dashed else "-"
        if len(curves) <= _BANDS:
            ax.fill_between(curve.cost, curve.low, curve.high, step="post", color=look.colour, alpha=0.13, lw=0)
        xs, ys = _corners(curve.cost, curve.mean)
        ax.plot(xs, ys, color=look.colour, lw=1.9 if arm in (SINGLE, SUM) else 1.4, ls=dash, zorder=3 + z / 100)
        x, end, bar = curve.cost[-1], curve.mean[-1], (curve.low[-1], curve.high[-1])
        if end > high:
            ax.plot([x], [high], look.marker, color=look.colour, ms=7, mec=PAPER, mew=0.7, zorder=5, clip_on=False)
            ax.annotate(f"↑ {change(end)}", (x, high), (-7, -9), textcoords="offset points", ha="right", color=INK)
            continue
        if np.isfinite(bar).all():
            ax.plot([x, x], bar, color=look.colour, lw=1.4, zorder=4)
        ax.plot([x], [end], look.marker, color=look.colour, ms=7, mec=PAPER, mew=0.7, zorder=5, clip_on=False)
    middle = _LEFT + (_WIDTH - _LEFT - _RIGHT) / 2
    panel.text(middle, _HEIGHT - 8, f"1× is the plain sum's whole training: {total}", ha="center")


def _cost_axis(ax: Axes, curves: Mapping[str, Curve], top: float) -> None:
    """From where the first line enters the scale to where the last one ends."""
    ax.set_xscale("log")
    enter = [float(curve.cost[(curve.mean <= top) & (curve.cost > 0)].min(initial=0.5)) for curve in curves.values()]
    low, high = 0.85 * min(enter), 1.12 * max(1.0, *(float(curve.cost[-1]) for curve in curves.values()))
    ax.set_xlim(low, high)
    ticks = np.outer(10.0 ** np.arange(-5, 6), [1, 2, 5] if high < 100 * low else [1]).ravel()
    ax.xaxis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
    ax.xaxis.set_minor_locator(FixedLocator([]))
    ax.xaxis.set_major_formatter(lambda value, _: f"{short(value)}×")  # last: the scale brings its own


def _corners(xs: Values, ys: Values) -> tuple[Values, Values]:
    """The corners of the steps, without those that lie on a straight line."""
    turns = np.flatnonzero(np.diff(ys) != 0) + 1
    across = np.repeat(xs[turns], 2)
    levels = np.stack([ys[turns - 1], ys[turns]], 1).ravel()
    return np.concatenate([xs[:1], across, xs[-1:]]), np.concatenate([ys[:1], levels, ys[-1:]])


def beyond(curves: Mapping[str, Mapping[str, Curve]]) -> list[str]:
    """The arms that end above the scale."""
    top = _limits(curves)[1]
    return list(dict.fromkeys(arm for by_arm in curves.values() for arm, c in by_arm.items() if c.mean[-1] > top))


def _limits(curves: Mapping[str, Mapping[str, Curve]]) -> Limits:
    """One scale for all clocks, of zero, all ends and the later part of every training; but without arms that end far
    out at the top."""
    later: dict[str, list[float]] = {}
    for arm, curve in (pair for by_arm in curves.values() for pair in by_arm.items()):
        later.setdefault(arm, [0.0]).extend(_later(curve))
    names = sorted(later, key=lambda arm: max(later[arm]))
    while len(names) > 2 and names[-1] != SUM:
        rest = [value for arm in names[:-1] for value in later[arm]]
        if max(later[names[-1]]) - min(rest) <= _FAR * (max(rest) - min(rest)):
            break
        names.pop()
    kept = [value for arm in names for value in later[arm]]
    air = max(0.07 * (max(kept) - min(kept)), 0.5)
    return min(kept) - air, max(kept) + air


def _later(curve: Curve) -> list[float]:
    values = [*curve.mean[curve.cost >= _EARLY * curve.cost[-1]], curve.mean[-1], curve.low[-1], curve.high[-1]]
    return [float(value) for value in values if np.isfinite(value)]
