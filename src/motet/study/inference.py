"""What a few paired seeds allow to be said of a mean: bootstrap intervals, exact sign-flip tests, Holm."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

Values = NDArray[np.float64]

RESAMPLES = 9999
ENUMERATED = 14
"""Up to so many seeds the sign-flip test is exact; beyond it draws `DRAWS` sign patterns."""
DRAWS = 19_999
_SEED = 20_260_711


@dataclass(frozen=True)
class Observed:
    """The mean of paired differences, one a seed, with its BCa interval (NaN below two seeds).

    The interval has the level 1 - 0.05 · ``share``, and p is divided by ``share``: 1 but for a look at a verdict that
    is read several times (`motet.study.sequential`).
    """

    values: Values = field(repr=False)
    low: float
    high: float
    share: float = 1.0

    @property
    def seeds(self) -> int:
        """How many differences there are."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """NaN without a seed."""
        return float(self.values.mean()) if len(self.values) else math.nan

    def p(self, bound: float = 0.0) -> float:
        """Two-sided sign-flip p-value of "the mean is ``bound``", over the share."""
        return _over(sign_flip(self.values - bound), self.share)

    def projected(self, more: int, share: float = 1.0) -> "Projected":
        """What ``more`` seeds would give if mean and standard deviation stayed; needs two seeds."""
        return Projected(self.mean, float(self.values.std(ddof=1)), self.seeds + more, share)


@dataclass(frozen=True)
class Projected:
    """A mean that n seeds would give: Student's t stands in for the bootstrap and for the test.

    The p-value keeps the sign-flip test's floor of 2/2ⁿ, which with many arms is what seeds are needed for.
    """

    mean: float
    deviation: float
    seeds: int
    share: float = 1.0
    """As in `Observed`."""

    @property
    def low(self) -> float:
        """Lower bound of the interval."""
        return self.mean - self._reach

    @property
    def high(self) -> float:
        """Upper bound of the interval."""
        return self.mean + self._reach

    @property
    def _reach(self) -> float:
        quantile = (1 + level(self.share)) / 2
        return float(special.stdtrit(self.seeds - 1, quantile)) * self.deviation / math.sqrt(self.seeds)

    def p(self, bound: float = 0.0) -> float:
        """Two-sided p-value of "the mean is ``bound``", over the share."""
        distance = abs(self.mean - bound)
        if distance == 0:
            return 1.0
        t = distance * math.sqrt(self.seeds) / self.deviation if self.deviation > 0 else math.inf
        return _over(max(2 * float(special.stdtr(self.seeds - 1, -t)), floor(self.seeds)), self.share)


Estimate = Observed | Projected


def level(share: float) -> float:
    """Of the intervals at a look with this share: 95 % for one look."""
    return 1 - 0.05 * share


def _over(p: float, share: float) -> float:
    return 1.0 if p > share else p / share  # NaN stays NaN


def observe(rows: Sequence[Values], share: float = 1.0) -> list[Observed]:
    """Rows of paired differences, each (n,) with NaN where a seed has none, with BCa bootstrap intervals.

    Whole seeds are resampled, the same ones in every row, from a fixed random state: the same data give the
    same interval. Identical values give an interval of no width.

    Note:
        With six to ten seeds BCa intervals are somewhat too short: of normal differences about 87 % (n = 6) to
        91 % (n = 10) hold the mean, not 95 %. So no decision rests on an interval alone.
    """
    samples = [np.asarray(row, dtype=np.float64) for row in rows]
    samples = [row[~np.isnan(row)] for row in samples]
    bounds = [(math.nan, math.nan)] * len(samples)
    spread: dict[int, list[int]] = {}
    for i, row in enumerate(samples):
        if len(row) < 2:
            continue
        if np.ptp(row) <= 1e-12 * np.abs(row).max():
            bounds[i] = (float(row.mean()), float(row.mean()))
        else:
            spread.setdefault(len(row), []).append(i)
    for indices in spread.values():
        found = stats.bootstrap(
            (np.stack([samples[i] for i in indices]),),
            np.mean,
            axis=-1,
            confidence_level=level(share),
            n_resamples=RESAMPLES,
            batch=500,  # keeps 200 rows of 10 seeds under 10 MB
            method="BCa",
            random_state=np.random.default_rng(_SEED),
        ).confidence_interval
        for i, low, high in zip(indices, found.low, found.high, strict=True):
            bounds[i] = (float(low), float(high))
    return [Observed(row, low, high, share) for row, (low, high) in zip(samples, bounds, strict=True)]


def sign_flip(differences: Values) -> float:
    """Two-sided p-value of "the differences are symmetric about zero": how often random signs reach this |mean|.

    Exact over all 2ⁿ patterns of signs up to 14 differences, Monte Carlo with a fixed random state beyond.
    The least p-value is 2/2ⁿ: 0.0625 with five seeds, 0.031 with six, 0.0078 with eight. NaN without a value.
    """
    n = len(differences)
    if n == 0:
        return math.nan
    size = float(np.abs(differences).sum())
    # Sums over patterns that should tie with the observed one differ from it by rounding.
    reached = np.abs(_signs(n) @ differences) >= abs(float(differences.sum())) - 1e-9 * size
    if n <= ENUMERATED:
        return float(reached.mean())
    return float((1 + reached.sum()) / (1 + len(reached)))


@lru_cache(maxsize=32)
def _signs(n: int) -> Values:
    """Patterns of signs (patterns, n). Exact: a pattern and its negative give the same |sum|, so half is enough."""
    if n <= ENUMERATED:
        bits = np.arange(2 ** (n - 1))[:, None] >> np.arange(n) & 1
    else:
        bits = np.random.default_rng(_SEED).integers(0, 2, (DRAWS, n))
    return np.asarray(1 - 2 * bits, dtype=np.float64)


def floor(seeds: int) -> float:
    """The least p-value that the sign-flip test can give with so many seeds."""
    return min(1.0, 2.0 ** (1 - seeds))


def seeds_needed(alpha: float, comparisons: int = 1) -> int:
    """The fewest seeds with which the least of so many Holm-adjusted sign-flip p-values can fall below alpha.

    >>> seeds_needed(0.05), seeds_needed(0.05, comparisons=5)
    (6, 8)
    """
    seeds = 1
    while comparisons * floor(seeds) >= alpha:
        seeds += 1
    return seeds


def holm(p_values: Iterable[float]) -> list[float]:
    """Holm's step-down adjustment, in the order given: the chance of any false rejection stays below alpha.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    raw = list(p_values)
    adjusted = [math.nan] * len(raw)
    running = 0.0
    for rank, i in enumerate(sorted(range(len(raw)), key=raw.__getitem__)):
        running = max(running, min(1.0, (len(raw) - rank) * raw[i]))
        adjusted[i] = running
    return adjusted
