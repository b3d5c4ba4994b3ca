"""Predicted survival beside what was seen, by thirds of the predicted risk."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from motet.estimators.display import drawing
from motet.estimators.display.drawing import Floats
from motet.estimators.held_out import HeldOut
from motet.estimators.outcomes import Encoded
from motet.theme import COLOURS

THIRDS = ("high risk", "middle", "low risk")
_LOOKS = (COLOURS[3], COLOURS[1], COLOURS[6])  # purple, orange, blue: apart in lightness as well
TIMES = 100
AT_RISK = 5
"""Rows without which a curve ends: after that each event would move it by a fifth or more."""


@dataclass(frozen=True, eq=False)
class Third:
    """Rows of one third of the predicted risk.

    Attributes:
        label: Of the third.
        rows, events: How many.
        times, survival: Steps of the Kaplan-Meier curve (m,), as long as at least 5 rows are at risk.
        end: The time at which fewer are.
        at, predicted: Times (T,) up to there, and the mean predicted survival, NaN after the follow-up of the fit.
    """

    label: str
    rows: int
    events: int
    times: Floats
    survival: Floats
    end: float
    at: Floats
    predicted: Floats


@dataclass(eq=False)
class SurvivalDisplay:
    """For each survival outcome, Kaplan and Meier's curves of the thirds of the risk, and the mean predicted curves.

    That the solid curves lie apart shows that risks are told apart; that the dashed ones lie on them, that predicted
    survival is right.

    Attributes:
        panels: {outcome: its thirds, the highest risk first}.
    """

    panels: dict[str, list[Third]]

    @classmethod
    def from_estimator(cls, net: Any, X: Any, Y: Any, ax: Any = None) -> Self:
        """Draw the survival outcomes of a fitted `MixedOutcomeNet`.

        Args:
            net: With calibration.
            X: New rows, or None for the rows of the fit, each predicted without it: see `HeldOut`.
            Y: Their outcomes.
            ax: As many axes as there are survival outcomes.

        Raises:
            ValueError: if there is no survival outcome.
        """
        return cls.from_predictions(HeldOut(net, X, Y)).plot(ax)

    @classmethod
    def from_predictions(cls, held_out: HeldOut) -> Self:
        """What the panels show, not drawn yet."""
        panels = {
            task.outcome.name: _thirds(held_out, k, task)
            for k, task in enumerate(held_out.tasks)
            if task.kind == "survival"
        }
        if not panels:
            raise ValueError("no outcome is a survival time: declare one as motet.Survival(time, event)")
        return cls(panels)

    def plot(self, ax: Any = None) -> Self:
        """Draw, into given axes or a new figure."""
        with drawing.style():
            grid = drawing.axes(ax, len(self.panels), columns=2, size=(5.4, 4.0))
            for panel, (name, thirds) in zip(grid, self.panels.items(), strict=True):
                detail = f"solid: Kaplan-Meier, to {AT_RISK} at risk; dashed: predicted"
                drawing.bare(panel, f"{drawing.short(name)}: survival by predicted risk", detail)
                for third, colour in zip(thirds, _LOOKS, strict=True):
                    last = third.survival[-1] if len(third.survival) else 1.0
                    steps = [0.0, *third.times, third.end], [1.0, *third.survival, last]
                    label = f"{third.label}: {third.rows} rows, {third.events} events"
                    panel.plot(*steps, drawstyle="steps-post", color=colour, lw=1.9, label=label, zorder=3)
                    panel.plot(third.at, third.predicted, color=colour, lw=1.4, ls=(0, (3, 1.6)), zorder=2)
                panel.set(ylim=(0, 1.02), xlim=(0, max(third.end for third in thirds)))
                panel.set_xlabel("time", loc="right")
                panel.set_ylabel("survival", loc="top")
                drawing.key(panel, loc="best", labelspacing=0.3)
        self.ax_, self.figure_ = np.array(grid, dtype=object), grid[0].figure
        return self


def _thirds(held_out: HeldOut, k: int, task: Encoded) -> list[Third]:
    assert task.event is not None
    u = held_out.ranks(k)
    seen = np.flatnonzero(task.observed & np.isfinite(u))
    # By rank among these rows and not by u, so that ties are divided and thirds are thirds.
    place = np.empty(len(seen), dtype=np.int64)
    place[np.argsort(u[seen], kind="stable")] = np.arange(len(seen)) * 3 // len(seen)
    found = []
    for third, label in enumerate(THIRDS):
        rows = seen[place == third]
        times, survival = kaplan_meier(task.y[rows], task.event[rows])
        end = float(np.sort(task.y[rows])[-min(AT_RISK, len(rows))]) if len(rows) else 0.0
        jumps = (np.diff(survival, prepend=1.0) < 0) & (times <= end)
        at = np.linspace(0, end, TIMES)
        predicted = _curves(held_out, k, at)[rows].mean(axis=0) if len(rows) else np.full(TIMES, np.nan)
        events = int(task.event[rows].sum())
        found.append(Third(label, len(rows), events, times[jumps], survival[jumps], end, at, predicted))
    return found


def _curves(held_out: HeldOut, k: int, at: Floats) -> Floats:
    return held_out.law(k, lambda law, u, _: law.survival(u, at))


def kaplan_meier(time: Floats, event: Floats) -> tuple[Floats, Floats]:
    """Distinct times (m,) and the estimated survival just after each."""
    times, group = np.unique(time, return_inverse=True)
    deaths = np.bincount(group, event, len(times))
    risk = np.bincount(group, minlength=len(times))[::-1].cumsum()[::-1]
    return times, np.cumprod(1 - deaths / risk)
