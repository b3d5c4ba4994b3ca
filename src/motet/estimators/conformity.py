"""How ill an outcome fits its predicted law, and which outcomes fit no worse than a given amount."""

import math
import warnings

import numpy as np

from motet.estimators.calibration_rows import Floats, Rows
from motet.estimators.isotonic import FUZZ
from motet.estimators.outcome_scale import OutcomeScale

Random = np.random.Generator | int | None


def off_centre(scale: OutcomeScale, rows: Rows, random_state: Random) -> Floats:
    r"""Distributional conformal prediction: Chernozhukov, Wüthrich & Zhu, PNAS 2021.

        V = |F(y-) + ξ (F(y) - F(y-)) - ½|,   ξ uniform: a point of the jump at y, where there is one,

    and V = ½ + the distance to [a, b] over the calibration's interquartile range, for an outcome outside the values
    [a, b] to which F(·|u) gives mass: without the second part all of these would tie, and an interval that has to
    hold some of them would be the whole line.
    """
    below, upto = scale.law.limits(rows.u, rows.y)
    draw = np.random.default_rng(random_state).random(len(rows.y))
    a, b = _support(scale, rows.u)
    outside = np.maximum(a - rows.y, rows.y - b)
    inside = np.abs(below + draw * (upto - below) - 0.5)
    return np.where(outside > 0, 0.5 + outside / scale.spread_, inside)


def band(scale: OutcomeScale, u: Floats, radius: Floats) -> tuple[Floats, Floats]:
    """Lower and upper ends of {y : V(y) ≤ radius for some ξ}: (N,), (R,) → (N, R) each; whole numbers of a count."""
    inner = np.minimum(radius, 0.5) + FUZZ
    a, b = _support(scale, u)
    beyond = np.maximum(radius - 0.5, 0) * scale.spread_
    central = radius < 0.5
    lower = np.where(central, scale.law.quantiles(u, 0.5 - inner), a[:, None] - beyond)
    upper = np.minimum(scale.law.quantiles(u, 0.5 + inner, strictly=True), b[:, None])
    upper = np.where(central, upper, b[:, None] + beyond)
    if scale.kind == "count":
        return np.maximum(np.ceil(lower - 1e-9), 0.0), np.floor(upper + 1e-9)
    return lower, upper


def _support(scale: OutcomeScale, u: Floats) -> tuple[Floats, Floats]:
    ends = scale.law.quantiles(u, np.array([2 * FUZZ, 1.0]))
    return ends[:, 0], ends[:, 1]


def unlikely(scale: OutcomeScale, u: Floats) -> Floats:
    r"""One minus the probability of each class, with no class less likely than the classes on both of its sides.

        V(c) = 1 - min( max_{b ≤ c} p(b), max_{b ≥ c} p(b) )

    so that {c : V(c) ≤ r}, the classes at least as likely as 1 - r with all that lie between, has no gap: (N, C).
    """
    p = scale.proba(u)
    return 1 - np.minimum(np.maximum.accumulate(p, 1), np.maximum.accumulate(p[:, ::-1], 1)[:, ::-1])


def conformal_quantile(values: Floats, weight: Floats, miss: float) -> float:
    """The smallest value with a weight of (1 - miss)(W + 1) at or below it; infinite if W is too small for that."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weight[order])
    place = int(np.searchsorted(reached, (1 - miss) * (reached[-1] + 1) * (1 - FUZZ)))
    return float(values[order][place]) if place < len(values) else math.inf


def miss_of(level: float, outcomes: int) -> float:
    """The error that each of several simultaneous statements may have: Bonferroni's (1 - level) / outcomes.

    Raises:
        ValueError: for a level outside (0, 1) or no outcome.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}")
    if outcomes < 1:
        raise ValueError(f"outcomes is how many are to hold at once, at least 1, not {outcomes}")
    return (1 - level) / outcomes


def misfits(scale: OutcomeScale, rows: Rows, random_state: Random) -> Floats:
    """V of each row, (n,): `unlikely` for classes, else `off_centre`."""
    if not len(scale.classes_):
        return off_centre(scale, rows, random_state)
    place = np.searchsorted(scale.classes_, rows.y).clip(max=len(scale.classes_) - 1)
    if (scale.classes_[place] != rows.y).any():
        raise ValueError("a calibration row has a class that the scale does not know")
    return np.take_along_axis(unlikely(scale, rows.u), place[:, None], 1)[:, 0]


def unbounded(scale: OutcomeScale, rows: int) -> Floats:
    """The interval that says nothing, (rows, 2)."""
    return np.tile([0.0 if scale.kind == "count" else -math.inf, math.inf], (rows, 1))


def only(scale: OutcomeScale, what: str, *kinds: str) -> None:
    """Refuse kinds that a statement is not for.

    Raises:
        ValueError: if the scale's kind is none of these.
    """
    if scale.kind not in kinds:
        raise ValueError(f"a {scale.kind} outcome has no conformal {what}: it is for {' and '.join(kinds)} outcomes")


def warn_too_few(weight: float, miss: float) -> None:
    """Say that a statement is empty, and how many rows it needs."""
    warnings.warn(
        f"{weight:g} calibration rows are too few for the level {1 - miss:g}, which needs "
        f"{math.ceil((1 - miss) / miss * (1 - FUZZ))}: the statement is empty (infinite ends, every class, time 0)",
        UserWarning,
        stacklevel=4,
    )
