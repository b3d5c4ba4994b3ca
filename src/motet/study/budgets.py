"""Results at equal cost: what every arm would have kept, had its training been stopped when so much was spent.

Cost is counted by four clocks, and its unit is what the plain sum's whole training took by that clock *in the same
seed*. So the plain sum is done at 1 in every seed, and a machine that was busy during some seeds, or a sum that stopped
early in some, moves all arms of a seed alike.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import median

import numpy as np
from numpy.typing import NDArray

from motet.study.inference import Observed, Values, observe
from motet.study.pairing import Paired, joined
from motet.study.results import SINGLE, SUM, Epoch, Interval, Run

CLOCKS = {"epoch": "epochs", "updates": "optimizer steps", "seconds": "seconds", "backwards": "backward passes"}
"""Fields of `motet.study.results.Epoch` that count what was spent, and what they count."""
POINTS = 64
"""Most points of a curve."""
_END = "end"
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Kept:
    """One training of an arm, epoch by epoch.

    Attributes:
        spent: {clock: (E,)}, cumulative, in units of the plain sum's; of single-task the sum over its models, which are
            trained side by side, an epoch each.
        delta_m: (E,), Δm of what would be kept if training ended after this epoch, which validation chooses. Against
            the finished single-task models of the same seed, over the tasks that have a change at the end; NaN where
            one of them has none yet.
    """

    spent: dict[str, Values]
    delta_m: Values

    def at(self, clock: str, costs: Values) -> Values:
        """Δm when no more than each of ``costs`` may be spent: a step function, constant after the last epoch and NaN
        before the first is done."""
        place = np.searchsorted(self.spent[clock], costs, side="right") - 1
        return np.where(place >= 0, self.delta_m[np.maximum(place, 0)], np.nan)


@dataclass(frozen=True)
class Curve:
    """Mean Δm over an arm's seeds against what was spent (N,), from where every seed has an epoch to the last one's
    end; with a BCa interval at each point by itself, NaN with one seed."""

    cost: Values
    mean: Values
    low: Values
    high: Values


@dataclass(frozen=True)
class Stopped:
    """An arm that may spend what the plain sum's whole training took with the same seed, by one clock.

    Attributes:
        delta_m: NaN where a seed has no epoch by then, and so is ``over_sum``.
        over_sum: Minus Δm of the plain sum, in points; negative = better than the sum.
        total: Cost of the arm's own whole training, the median over seeds.
        reach: Cost from which on the arm's mean Δm is no worse than the plain sum's final one; NaN for never.
    """

    delta_m: Interval
    over_sum: Interval
    total: float
    reach: float


@dataclass(frozen=True)
class Ledger:
    """What was spent and what it gave.

    Attributes:
        arms: {arm: {seed: its training}}, with the plain sum among them unless nothing is known.
        units: {clock: what the plain sum's whole training took, the median over seeds}, of clocks that moved.
        lacking: Why an arm is not in it.
        broken: Arms in it from which nothing is concluded, since their training broke down.
    """

    arms: dict[str, dict[int, Kept]]
    units: dict[str, float]
    lacking: dict[str, str]
    broken: frozenset[str] = frozenset()
    share: float = 1.0
    """Of the level, at a planned look: as of all other intervals and tests of a study."""

    def values(self, arm: str, clock: str, costs: Values, seeds: Iterable[int] | None = None) -> Values:
        """Δm of each seed at each cost, (S, N)."""
        own = self.arms[arm]
        return np.stack([own[seed].at(clock, costs) for seed in (own if seeds is None else seeds)])

    def curves(self) -> dict[str, dict[str, Curve]]:
        """{clock: {arm: its curve}}; no arm that has no seed with a Δm.

        Cost:
            About 1 s for 8 arms and 10 seeds; each set of values is resampled once, whatever the clock.
        """
        grids: dict[tuple[str, str], tuple[Values, Values]] = {}
        for clock, arm in product(self.units, self.arms):
            costs = _thinned(self._steps(arm, clock))
            if len(costs):
                grids[clock, arm] = costs, self.values(arm, clock, costs)
        rows = {column.tobytes(): column for _, table in grids.values() for column in table.T}
        bands = dict(zip(rows, observe(list(rows.values()), self.share), strict=True))
        found: dict[str, dict[str, Curve]] = {clock: {} for clock in self.units}
        for (clock, arm), (costs, table) in grids.items():
            band = [bands[column.tobytes()] for column in table.T]
            mean, low, high = (np.array([getattr(o, what) for o in band]) for what in ("mean", "low", "high"))
            found[clock][arm] = Curve(costs, mean, low, high)
        return found

    def stopped(self) -> dict[str, dict[str, Stopped]]:
        """{clock: {arm: its results at the plain sum's cost}}."""
        pairs = list(product(self.units, self.arms))
        rows = [row for clock, arm in pairs for row in (self._alone(arm, clock), self.against(arm, clock))]
        intervals = iter(Interval(o.mean, o.low, o.high) for o in observe(rows, self.share))
        found: dict[str, dict[str, Stopped]] = {clock: {} for clock in self.units}
        for clock, arm in pairs:
            total = float(median(kept.spent[clock][-1] for kept in self.arms[arm].values()))
            found[clock][arm] = Stopped(next(intervals), next(intervals), total, self._reach(arm, clock))
        return found

    def _steps(self, arm: str, clock: str) -> Values:
        """The costs at which the arm's mean Δm may change, from where all of its seeds have one."""
        own = self.arms[arm].values()
        defined = [kept.spent[clock][np.isfinite(kept.delta_m)] for kept in own]
        start = max(costs[0] if len(costs) else math.inf for costs in defined)
        costs = np.unique(np.concatenate([kept.spent[clock] for kept in own]))
        return costs[costs >= start]

    def _alone(self, arm: str, clock: str, seeds: Iterable[int] | None = None) -> Values:
        """Δm at the plain sum's cost or, for the clock ``end``, of the finished trainings; NaN unless all have one."""
        clock, cost = ("epoch", math.inf) if clock == _END else (clock, 1.0)
        row = self.values(arm, clock, np.array([cost]), seeds)[:, 0]
        return row if np.isfinite(row).all() else np.full(len(row), np.nan)

    def against(self, arm: str, clock: str) -> Values:
        """Δm minus that of the plain sum, a value a seed: at its cost, or of finished trainings for ``end``."""
        return self._alone(arm, clock) - self._alone(SUM, clock, self.arms[arm])

    def _reach(self, arm: str, clock: str) -> float:
        target = float(self._alone(SUM, _END, self.arms[arm]).mean())
        costs = self._steps(arm, clock)
        if not len(costs):
            return math.nan
        fails = ~(self.values(arm, clock, costs).mean(0) <= target + _ROUNDING * max(1.0, abs(target)))
        first = int(np.flatnonzero(fails)[-1]) + 1 if fails.any() else 0
        return float(costs[first]) if first < len(costs) else math.nan


def ledger(paired: Paired, share: float = 1.0) -> Ledger:
    """Costs and Δm of all paired trainings, epoch by epoch.

    An arm's seeds are those that enter its Δm. An arm is left out if one of their runs does not tell test results and
    costs by epoch, as those of older versions of motet don't, and all arms are if the plain sum is.
    """
    level = np.array(list(paired.baseline.values())) * paired.compared
    scale = 100 * paired.directions / np.abs(level)
    single = dict(zip(paired.seeds, paired.results[SINGLE], strict=True))
    arms: dict[str, dict[int, Kept]] = {}
    lacking: dict[str, str] = {}
    for arm in sorted(paired.runs, key=lambda arm: arm != SUM):
        ends = dict(zip(paired.seeds, paired.results[arm] * scale, strict=True))
        own = {seed: run for seed, run in paired.runs[arm].items() if np.isfinite(ends[seed]).any()}
        if not own:
            lacking[arm] = "it has no result in any seed"
        elif not all(_known(run, paired.tasks) for run in own.values()):
            lacking[arm] = "its runs do not tell test results and costs by epoch"
        elif arm == SUM or SUM in arms:
            arms[arm] = {}
            for seed, run in own.items():
                unit = paired.runs[SUM][seed].curve[-1]
                arms[arm][seed] = _kept(run, paired.tasks, single[seed], scale, np.isfinite(ends[seed]), unit)
    if SUM not in arms:
        return Ledger({}, {}, lacking)
    arms = {arm: arms[arm] for arm in paired.runs if arm in arms}  # in the order given
    totals = {clock: [getattr(paired.runs[SUM][seed].curve[-1], clock) for seed in arms[SUM]] for clock in CLOCKS}
    units = {clock: float(median(values)) for clock, values in totals.items() if min(values) > 0}
    return Ledger(arms, units, lacking, frozenset(paired.broken), share)


def _known(run: Run, tasks: Sequence[str]) -> bool:
    return bool(run.curve) and all(set(tasks) <= set(row.test) and row.updates and row.backwards for row in run.curve)


def _kept(
    run: Run, tasks: Sequence[str], single: Values, scale: Values, counted: NDArray[np.bool_], unit: Epoch
) -> Kept:
    table = np.array([[row.test[task] for task in tasks] for row in run.curve])
    delta_m = ((table - single) * scale)[:, counted].mean(1)
    spent = {
        clock: np.array([getattr(row, clock) for row in run.curve]) / total
        for clock in CLOCKS
        if (total := getattr(unit, clock)) > 0  # Of a training of one step no seconds are known.
    }
    return Kept(spent, np.where(np.isfinite(delta_m), delta_m, np.nan))


def _thinned(costs: Values) -> Values:
    """At most `POINTS` of them, evenly in the logarithm, with the first and the last."""
    if len(costs) <= POINTS:
        return costs
    wanted = np.geomspace(costs[costs > 0][0], costs[-1], POINTS - 1)
    places = np.minimum(np.searchsorted(costs, wanted), len(costs) - 1)
    kept: Values = costs[np.unique(np.concatenate([[0], places, [len(costs) - 1]]))]
    return kept


def disagreements(found: Ledger, alpha: float = 0.05) -> list[str]:
    """One sentence for each arm of which it depends on the clock whether it is better or worse than the plain sum.

    Compared are finished trainings, which the verdict judges, and the four clocks at the plain sum's cost. "Better"
    and "worse" need both the interval of the paired differences and the sign-flip test at ``alpha``, uncorrected.
    That one comparison shows a difference and another does not is no disagreement by itself: the interval of how much
    the two differ, by seed, must exclude zero too.
    """
    said = []
    clocks = [_END, *found.units]
    for arm in found.arms:
        if arm == SUM or arm in found.broken:
            continue
        rows = {clock: row for clock in clocks if np.isfinite(row := found.against(arm, clock)).all()}
        seen = dict(zip(rows, observe(list(rows.values()), found.share), strict=True))
        sides = {clock: _side(o, alpha) for clock, o in seen.items()}
        for side in ("better", "worse"):
            here = [clock for clock, known in sides.items() if known == side]
            others = [clock for clock, known in sides.items() if known != side]
            apart = observe([rows[a] - rows[b] for a, b in product(here, others)], found.share)
            differ = {b for (_, b), o in zip(product(here, others), apart, strict=True) if o.low > 0 or o.high < 0}
            if differ:
                said.append(_sentence(arm, side, here, [clock for clock in others if clock in differ], seen, sides))
                break
    return said


def _side(o: Observed, alpha: float) -> str:
    if not o.p() < alpha:
        return ""
    return "better" if o.high < 0 else "worse" if o.low > 0 else ""


def _sentence(
    arm: str, side: str, here: list[str], others: list[str], seen: dict[str, Observed], sides: dict[str, str]
) -> str:
    def where(clocks: list[str]) -> str:
        return joined(
            ("after its whole training" if clock == _END else f"at equal {CLOCKS[clock]}")
            + f" ({seen[clock].mean:+.1f})".replace("-", "−")
            for clock in clocks
        )

    opposite = [clock for clock in others if sides[clock]]
    unsure = [clock for clock in others if not sides[clock]]
    parts = [f"{'worse' if side == 'better' else 'better'} {where(opposite)}"] if opposite else []
    parts += [f"not shown to be {'either' if opposite else side} {where(unsure)}"] if unsure else []
    return (
        f"{arm} is {side} than {SUM} {where(here)}, but {joined(parts)}, in points of Δm. Each is tested by itself: of "
        "many such comparisons some come out by chance."
    )
