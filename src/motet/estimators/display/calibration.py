"""Whether predictions mean what they say: probabilities against frequencies, quantiles against coverage."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from motet.estimators.display import drawing
from motet.estimators.display.drawing import Floats
from motet.estimators.display.survival import kaplan_meier
from motet.estimators.held_out import HeldOut
from motet.estimators.outcomes import Encoded
from motet.theme import COLOURS, INK, LINE, MARKERS, PAPER

BINS = 8
"""Groups of rows by their predicted probability, at most."""
ROWS = 15
"""Of a group, at least, where there are enough."""
REACHED = 10
"""Rows whose time reaches a level, without which nothing is said of it."""
LEVELS = np.linspace(0.05, 0.95, 19)


@dataclass(frozen=True, eq=False)
class Reliability:
    """Frequencies of an event by its predicted probability.

    Attributes:
        label: Of the event, such as a class.
        predicted: Mean probability of each group of rows (B,).
        observed: Frequency (B,).
        low, high: Ends of its 95 % interval (Wilson) (B,).
        rows: Of each group (B,).
    """

    label: str
    predicted: Floats
    observed: Floats
    low: Floats
    high: Floats
    rows: Floats


@dataclass(frozen=True, eq=False)
class Coverage:
    """The share of outcomes below each predicted quantile.

    Attributes:
        levels: Of the quantiles (Q,).
        below: Share of the outcomes below them (Q,), by Kaplan and Meier's estimate where some are censored.
        error: Standard error of a share of so many rows if the predictions are right (Q,); of a censored outcome
            Greenwood's, and NaN for levels that fewer than 10 rows are observed to reach.
        rows: With an observed outcome.
    """

    levels: Floats
    below: Floats
    error: Floats
    rows: int


@dataclass(eq=False)
class CalibrationDisplay:
    """A panel for each outcome; on the diagonal predictions mean what they say.

    Binary and nominal outcomes: the frequency of a class among rows with about the same probability of it. Ordinal
    ones: the same of "this class or a higher one". Continuous outcomes, counts and survival: the share of the outcomes
    below the predicted quantiles, with the band that holds 95 % of all correct predictions at each level.

    Attributes:
        panels: {outcome: what its panel shows}.
        held: {outcome: share of its intervals that hold it, standard error}; empty without conformal intervals.
        level: That the intervals promise.
    """

    panels: dict[str, list[Reliability] | Coverage]
    held: dict[str, tuple[float, float]]
    level: float = 0.9

    @classmethod
    def from_estimator(cls, net: Any, X: Any, Y: Any, ax: Any = None, *, level: float = 0.9) -> Self:
        """Draw the calibration of a fitted `MixedOutcomeNet`.

        Args:
            net: With calibration.
            X: New rows, or None for the rows of the fit, each predicted without it: see `HeldOut`.
            Y: Their outcomes.
            ax: As many axes as there are outcomes.
            level: Of the intervals whose coverage is told.
        """
        return cls.from_predictions(HeldOut(net, X, Y), level).plot(ax)

    @classmethod
    def from_predictions(cls, held_out: HeldOut, level: float = 0.9) -> Self:
        """What the panels show, not drawn yet."""
        panels: dict[str, list[Reliability] | Coverage] = {}
        for k, task in enumerate(held_out.tasks):
            name = task.outcome.name
            if task.kind in ("binary", "ordinal"):
                found = panels.setdefault(name, [])
                assert isinstance(found, list)
                found += _reliabilities(held_out, k, task)
            else:
                panels[name] = _coverage(held_out, k, task)
        return cls(panels, coverage(held_out, level), level)

    def plot(self, ax: Any = None) -> Self:
        """Draw, into given axes or a new figure."""
        with drawing.style():
            grid = drawing.axes(ax, len(self.panels), columns=3, size=(3.3, 3.5))
            for panel, (name, shown) in zip(grid, self.panels.items(), strict=True):
                words = ""
                if name in self.held:
                    share, error = (f"{100 * value:.0f} %" for value in self.held[name])
                    words = f"{100 * self.level:.4g} % intervals hold {share} ± {error}"
                drawing.bare(panel, drawing.short(name), words)
                panel.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
                panel.set(xticks=[0, 0.25, 0.5, 0.75, 1], yticks=[0, 0.25, 0.5, 0.75, 1])
                panel.set_xticklabels(["0", "0.25", "0.5", "0.75", "1"])
                panel.set_yticklabels(["0", "0.25", "0.5", "0.75", "1"])
                panel.plot([0, 1], [0, 1], color=LINE, lw=1.2, zorder=1)
                if isinstance(shown, Coverage):
                    _quantiles(panel, shown)
                else:
                    _probabilities(panel, shown)
        self.ax_, self.figure_ = np.array(grid, dtype=object), grid[0].figure
        return self


def coverage(held_out: HeldOut, level: float = 0.9) -> dict[str, tuple[float, float]]:
    """{outcome: share of its intervals that hold it, standard error}; survival has none that can be counted."""
    intervals, found = held_out.predict_interval(level), {}
    for task in held_out.tasks:
        if task.outcome.kind in ("survival", "nominal") or intervals.empty:
            continue
        ends = intervals[task.outcome.name]
        low, high = (_codes(task, ends[end]) for end in ("lower", "upper"))
        seen = task.observed & np.isfinite(high + low) | task.observed & (np.isinf(high) | np.isinf(low))
        if seen.any():
            share = float(((task.y >= low) & (task.y <= high))[seen].mean())
            found[task.outcome.name] = share, float(np.sqrt(share * (1 - share) / seen.sum()))
    return found


def _codes(task: Encoded, values: pd.Series) -> Floats:
    if not task.outcome.classes:
        return np.asarray(values, dtype=np.float64)
    codes = {label: float(code) for code, label in enumerate(task.outcome.classes)}
    return np.array([codes.get(value, np.nan) for value in values], dtype=np.float64)


def _reliabilities(held_out: HeldOut, k: int, task: Encoded) -> list[Reliability]:
    proba = held_out.law(k, lambda law, u, _: law.proba(u))
    seen = task.observed & np.isfinite(proba).all(axis=1)
    proba, y = proba[seen], task.y[seen]
    if task.kind == "binary":
        positive = task.label if task.label is not None else task.outcome.classes[1]
        return [_reliability(str(positive), proba[:, 1], y == 1)]
    classes = task.outcome.classes
    # The probability to reach the highest classes, summed from above, so that no difference of sums is below 0.
    reach = proba[:, ::-1].cumsum(axis=1)[:, ::-1]
    return [_reliability(f"{classes[c]} or more", reach[:, c], y >= c) for c in range(1, len(classes))]


def _reliability(label: str, p: Floats, hit: NDArray[np.bool_]) -> Reliability:
    """Groups of about equal size, in which rows of the same probability stay together."""
    bins = int(np.clip(len(p) // ROWS, 1, BINS))
    edges = np.unique(np.quantile(p, np.linspace(0, 1, bins + 1)[1:-1])) if bins > 1 else np.zeros(0)
    group = np.unique(np.searchsorted(edges, p, side="left"), return_inverse=True)[1].reshape(-1)
    rows = np.bincount(group).astype(np.float64)
    predicted, observed = np.bincount(group, p) / rows, np.bincount(group, hit) / rows
    z = 1.96
    centre = (observed + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z * np.sqrt(observed * (1 - observed) / rows + z**2 / (4 * rows**2)) / (1 + z**2 / rows)
    return Reliability(label, predicted, observed, centre - half, centre + half, rows)


def _coverage(held_out: HeldOut, k: int, task: Encoded) -> Coverage:
    """Of F(y|u), which is uniform if F is right; where it jumps, at a random place of the jump."""
    ends = held_out.law(k, lambda law, u, rows: _limits(law, u, task.y[rows]))
    seen = task.observed & np.isfinite(ends).all(axis=1)
    below, upto = ends[seen].T
    place = below + np.random.default_rng(0).random(len(below)) * (upto - below)
    event = np.ones(len(place)) if task.event is None else task.event[seen]
    times, survival = kaplan_meier(place, event)
    share = 1 - np.append(1.0, survival)[np.searchsorted(times, LEVELS, side="right")]
    error = np.sqrt(LEVELS * (1 - LEVELS) / len(place))
    if task.event is not None:
        risk = (place[:, None] >= place[None, :]).sum(axis=0)
        steps = np.where(event == 1, 1 / (risk * np.maximum(risk - 1, 1)), 0.0)
        greenwood = (1 - share) * np.sqrt((steps[:, None] * (place[:, None] <= LEVELS)).sum(axis=0))
        reached = (place[:, None] >= LEVELS).sum(axis=0) >= REACHED
        share, error = np.where(reached, share, np.nan), np.where(reached, greenwood, np.nan)
    return Coverage(LEVELS, share, error, int(seen.sum()))


def _limits(law: Any, u: Floats, y: Floats) -> Floats:
    known = np.isfinite(y)
    out = np.full((len(y), 2), np.nan)
    if known.any():
        out[known] = np.stack(law.law.limits(u[known], y[known]), axis=1)
    return out


def _probabilities(ax: Any, shown: list[Reliability]) -> None:
    for i, one in enumerate(shown):
        colour = COLOURS[i % len(COLOURS)]
        ax.vlines(one.predicted, one.low, one.high, color=colour, lw=1.4, alpha=0.6, zorder=2)
        ax.plot(
            one.predicted, one.observed, color=colour, lw=1.2, marker=MARKERS[i % len(MARKERS)], ms=5.5, mec=PAPER,
            mew=0.6, label=drawing.short(one.label, 16), zorder=3,
        )  # fmt: skip
    ax.set_xlabel("predicted probability", loc="right")
    ax.set_ylabel("observed frequency", loc="top")
    drawing.key(ax, loc="lower right", borderaxespad=0.1, labelspacing=0.25)


def _quantiles(ax: Any, shown: Coverage) -> None:
    low, high = (np.clip(shown.levels + side * 1.96 * shown.error, 0, 1) for side in (-1, 1))
    ax.fill_between(shown.levels, low, high, color=LINE, alpha=0.35, lw=0, zorder=1)
    ax.plot(shown.levels, shown.below, color=INK, lw=1.2, marker="o", ms=4, mec=PAPER, mew=0.5, zorder=3)
    ax.set_xlabel("predicted quantile", loc="right")
    ax.set_ylabel("outcomes below it", loc="top")
    drawing.note(ax, 0.97, 0.05, f"{shown.rows} rows", ha="right")
