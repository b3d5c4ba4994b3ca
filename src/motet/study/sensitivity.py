"""What a study could have shown, and how far its intervals reach: minimum detectable effect, overlapping splits."""

import math
from functools import lru_cache

import numpy as np
from scipy import optimize, special, stats

from motet.study.inference import Values
from motet.study.results import Interval

POWER = 0.8
_DRAWS = 2000
_EXACT = 12
"""Up to so many seeds the sign-flip test's own power is drawn; beyond, Student's t stands in for it."""
_SEED = 20_261_122


def detectable(differences: Values, level: float) -> float:
    """The mean difference that a two-sided sign-flip test at ``level`` shows with probability 0.8.

    Of normal differences, one a seed, with as many seeds and the standard deviation of ``differences``; their own
    mean plays no part. Proportional to that deviation.

    Args:
        differences: Paired differences (n,).
        level: That which the smallest p-value must fall below: α, times the look's share, over the number of
            candidates.

    Returns:
        In the unit of the differences; ∞ if so few seeds can't show any difference at this level, NaN below two seeds.
    """
    if len(differences) < 2:
        return math.nan
    size = effect_size(len(differences), level)
    return math.inf if math.isinf(size) else size * float(differences.std(ddof=1))


@lru_cache(maxsize=128)
def effect_size(seeds: int, level: float) -> float:
    """`detectable` in standard deviations, to about 3 %; ∞ where the test can't reject.

    The test rejects "the mean is not above b" for all b below the c-th smallest of the means of all non-empty subsets
    of the n values, where c = ⌈level · 2ⁿ⁻¹⌉ - 1 patterns of signs besides the observed one may reach as far (the
    typical values of Hartigan 1969). So a shift of -b makes a sample significant, and the wanted shift is the 0.8
    quantile of that over samples. Student's t would be up to 20 % too small where the level is near the floor 2/2ⁿ.
    """
    allowed = math.ceil(level * 2 ** (seeds - 1) - 1e-9) - 1  # patterns, the observed one among them, with p < level
    if allowed < 1:
        return math.inf
    if seeds > _EXACT:
        return _by_student(seeds, level)
    draws = np.random.default_rng(_SEED).standard_normal((min(_DRAWS, 2 ** (22 - seeds)), seeds))
    subsets = (np.arange(1, 2**seeds)[:, None] >> np.arange(seeds) & 1).astype(np.float64)
    subsets /= subsets.sum(axis=1, keepdims=True)
    # In pieces that stay in a processor's cache.
    found = [
        np.partition(part @ subsets.T, allowed - 1, axis=1)[:, allowed - 1]
        for part in np.array_split(draws, max(1, len(draws) * 2**seeds >> 18))
    ]
    return float(np.quantile(-np.concatenate(found), POWER))


def _by_student(seeds: int, level: float) -> float:
    critical = float(special.stdtrit(seeds - 1, 1 - level / 2))
    scale = math.sqrt(seeds)
    return float(optimize.brentq(lambda d: stats.nct.sf(critical, seeds - 1, d * scale) - POWER, 0.0, 100.0))


def resampled(differences: Values, ratio: float, level: float = 0.95) -> Interval:
    """The interval of a mean over splits of the same rows, with the corrected variance of Nadeau and Bengio (2003).

    Splits of the same rows share most of their training rows, so differences between seeds are too alike, and their
    spread over √n understates how the mean would vary with other data of the kind. The corrected variance is

        (1/n + n_test/n_train) · s²,   with Student's t of n - 1 degrees of freedom

    Args:
        differences: Paired differences (n,).
        ratio: n_test/n_train, rows.
        level: Of the interval.

    Note:
        A rule of thumb: it takes the correlation between splits to be the share of test rows. It is conservative in
        most simulations of its authors, and no guarantee.
    """
    if len(differences) < 2 or not math.isfinite(ratio):
        return Interval(math.nan, math.nan, math.nan)
    mean = float(differences.mean())
    spread = float(differences.std(ddof=1)) * math.sqrt(1 / len(differences) + ratio)
    reach = float(special.stdtrit(len(differences) - 1, (1 + level) / 2)) * spread
    return Interval(mean, mean - reach, mean + reach)
