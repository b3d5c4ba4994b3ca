"""Outcomes of every kind, and the definition of the rank losses written out over all pairs, in plain Python."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from motet.losses.rank import Pairs

PHI = {
    "drelu": lambda u: 1 - min(max(u + 0.5, 0.0), 1.0),
    "epanechnikov": lambda u: 1 - (0.0 if u <= -1 else 1.0 if u >= 1 else 0.5 + 0.75 * u - 0.25 * u**3),
    "squared_hinge": lambda u: max(0.0, 1 - u) ** 2,
    "exponential": lambda u: math.exp(-u),
    "logistic": lambda u: math.log1p(math.exp(-abs(u))) + max(-u, 0.0),
    "sigmoid": lambda u: 1 / (1 + math.exp(u)),
}
SLOPE = {
    "drelu": lambda u: -1.0 * (abs(u) < 0.5),
    "epanechnikov": lambda u: -0.75 * (1 - u**2) * (abs(u) < 1),
    "squared_hinge": lambda u: -2 * max(0.0, 1 - u),
    "exponential": lambda u: -math.exp(-u),
    "logistic": lambda u: -1 / (1 + math.exp(u)),
    "sigmoid": lambda u: -math.exp(u) / (1 + math.exp(u)) ** 2,
}


@dataclass
class Case:
    """An outcome as a caller gives it."""

    y: np.ndarray
    event: np.ndarray | None = None
    weight: np.ndarray | None = None
    censoring: str = "harrell"
    tau: float | None = None
    norm: str = "comparable"

    def pairs(self, **changes: Any) -> Pairs:
        return Pairs(**(vars(self) | changes))


def censoring_survival(case: Case, c: np.ndarray, time: float) -> float:
    """G(time-): the product over earlier times, of equal times the events first."""
    seen = ~np.isnan(case.y)
    g = 1.0
    for s in np.unique(case.y[seen & (case.y < time)]):
        at_risk = c[seen & (case.y >= s)].sum() - c[seen & (case.y == s) & (case.event == 1)].sum()
        censored = c[seen & (case.y == s) & (case.event == 0)].sum()
        g *= 1 - censored / at_risk if censored else 1.0
    return g


def weighted_pairs(case: Case) -> list[tuple[int, int, float]]:
    """(better, worse, weight) of all comparable pairs, by the definition."""
    n = len(case.y)
    c = np.ones(n) if case.weight is None else case.weight
    found = []
    for i in range(n):
        for j in range(n):
            p = c[i] * c[j]
            if case.event is None:
                comparable = case.y[i] > case.y[j]
            else:
                later = case.y[i] > case.y[j] or (case.y[i] == case.y[j] and case.event[i] == 0)
                comparable = i != j and case.event[j] == 1 and later
                if comparable and case.censoring == "uno":
                    in_time = case.tau is None or case.y[j] < case.tau
                    p = p / censoring_survival(case, c, case.y[j]) ** 2 if in_time and p > 0 else 0.0
            if comparable and p > 0:
                found.append((i, j, p))
    return found


def dense(case: Case, f: np.ndarray, kind: str, bandwidth: float) -> tuple[float, np.ndarray, float]:
    """Loss, gradient and concordance by the definition."""
    pairs = weighted_pairs(case)
    total = math.fsum(p for _, _, p in pairs)
    divisor = total
    if case.norm == "all":
        c = (np.ones(len(f)) if case.weight is None else case.weight)[~np.isnan(case.y)]
        divisor = float(np.outer(c, c).sum() - (c**2).sum())
    terms, gradient, order = [], np.zeros(len(f)), []
    for i, j, p in pairs:
        u = (f[i] - f[j]) / bandwidth
        # 1 minus a concordance where the loss is one.
        terms.append(p * (1 - PHI[kind](u) if kind in ("drelu", "epanechnikov", "sigmoid") else PHI[kind](u)))
        slope = p * SLOPE[kind](u) / (bandwidth * divisor)
        gradient[i] += slope
        gradient[j] -= slope
        order.append(p * (0.5 if f[i] == f[j] else float(f[i] > f[j])))
    value = math.fsum(terms) / divisor
    concordance = math.fsum(order) / total
    return (1 - value if kind in ("drelu", "epanechnikov", "sigmoid") else value), gradient, concordance


OUTCOMES = ("continuous", "binary", "ordinal", "count", "survival", "uno", "tau")


def case_of(outcome: str, n: int, seed: int, *, weighted: bool = False, missing: float = 0.0, norm: str = "comparable"):
    """A random outcome of a kind, with ties in survival times; some weights are 0."""
    rng = np.random.default_rng(seed)
    y = {
        "continuous": rng.standard_normal(n),
        "binary": (rng.random(n) < 0.3).astype(float),
        "ordinal": rng.integers(0, 4, n).astype(float),
        "count": rng.poisson(3, n).astype(float),
    }.get(outcome, np.ceil(rng.exponential(10, n)))
    event = (rng.random(n) < 0.6).astype(float) if outcome in ("survival", "uno", "tau") else None
    y[:2] = 1.0, 0.0  # a comparable pair, whatever the draw
    if event is not None:
        event[:2] = 1.0
    y[2:][rng.random(n - 2) < missing] = np.nan
    weight = rng.integers(0, 4, n) * rng.random(n) if weighted else None
    if weight is not None:
        weight[:2] = 1.0, 0.5
    censoring, tau = ("uno", 12.0 if outcome == "tau" else None) if outcome in ("uno", "tau") else ("harrell", None)
    return Case(y, event, weight, censoring, tau, norm)


def scores_of(n: int, seed: int, *, tied: bool = False) -> np.ndarray:
    """Scores; with ties they are eighths, so that differences are at the losses' kinks, exactly."""
    f = np.random.default_rng(seed + 1000).standard_normal(n) * 1.5
    return np.round(f * 3) / 3 + 1e-3 * np.round(f) if tied else f
