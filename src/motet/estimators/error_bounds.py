"""Error bounds of stability selection: Meinshausen & Bühlmann, JRSS B 2010; Shah & Samworth, JRSS B 2013."""

import math

import numpy as np
from scipy.optimize import brentq, minimize_scalar

from motet.estimators.trust import Floats, whole

ASSUMPTIONS = ("none", "unimodal", "r-concave")


def error_bound(q: float, p: int, threshold: float, pairs: int = 50, assumption: str = "none") -> float:
    r"""How many features with a low selection probability reach the threshold, at most, in expectation.

    A feature is *low* if one half-sample selects it with probability ≤ θ = q/p, that is no more often than by
    drawing q of the p features at random. With Π̂ the share of the 2B half-samples that select it and Π̃ the share of
    the B complementary pairs in which both do, Π̂ ≥ π implies Π̃ ≥ 2π - 1, and E Π̃ = P(selected)² ≤ θ². Hence, with
    no assumption but that the halves are disjoint,

        E[V] ≤ q² / ((2π - 1) p).

    ``"unimodal"``: the law of Π̃ has one mode. For θ ≤ 1/√3 and π > min(½ + θ², ½ + 1/(2B) + ¾θ²),

        E[V] ≤ C q²/p,   C = 1 / (2(2π - 1 - 1/(2B)))  if π ≤ ¾,   4(1 - π + 1/(2B)) / (1 + 1/B)  if π > ¾.

    ``"r-concave"``: the law of Π̃ is -½-concave and that of Π̂ is -¼-concave, that is, their probabilities to the power
    of -½ (-¼) are convex. E[V] ≤ p · min{D(θ², 2π - 1, B, -½), D(θ, π, 2B, -¼)}, D as of :func:`concave_tail`.

    Args:
        q: Mean number of features that a half-sample selects anywhere in its λ region, 0 to p.
        p: Number of features.
        threshold: π, the share of half-samples from which on a feature is selected, in (0, 1]. Up to ½ there is no
            bound, and the result is infinite.
        pairs: B.
        assumption: One of ASSUMPTIONS. The stronger ones are assumptions on the data that can't be checked. Where they
            don't give a smaller bound, or don't apply, the bound is that of ``"none"``.

    Note:
        V counts the low features. If all noise features are exchangeable and the selection is no worse than random,
        these include all noise features, and V is the number of false selections.
    """
    if assumption not in ASSUMPTIONS:
        raise ValueError(f"assumption must be one of {', '.join(ASSUMPTIONS)}, not {assumption!r}")
    if not 0 <= q <= whole("p", p, 1):
        raise ValueError(f"q must be a number from 0 to p = {p}, not {q!r}")
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be a number above 0 and up to 1, not {threshold!r}")
    B, theta = whole("pairs", pairs, 1), q / p
    if threshold <= 0.5:
        return math.inf
    certain = q * theta / (2 * threshold - 1)
    # A share of 2B half-samples reaches the threshold when it reaches the next multiple of 1/(2B).
    steps = math.ceil(threshold * 2 * B - 1e-9)
    tau = steps / (2 * B)
    if assumption == "none" or q == 0:
        return certain
    if assumption == "unimodal":
        if theta > 3**-0.5 or tau <= min(0.5 + theta**2, 0.5 + 1 / (2 * B) + 0.75 * theta**2):
            return certain
        C = 1 / (2 * (2 * tau - 1 - 1 / (2 * B))) if tau <= 0.75 else 4 * (1 - tau + 1 / (2 * B)) / (1 + 1 / B)
        return min(certain, C * q * theta)
    both = concave_tail(theta**2, steps - B, B, -0.5)
    return min(certain, p * both, p * concave_tail(theta, steps, 2 * B, -0.25))


def concave_tail(mean: float, t: int, B: int, r: float) -> float:
    r"""D: the largest P(X ≥ t) of an r-concave X on {0, …, B} with E X ≤ mean · B, for r < 0.

    r-concave means that f^r is convex where f > 0. As the mean is small, the extreme laws fall from 0 on and are as
    flat as convexity allows: f(i) ∝ (a + i)^{1/r} up to some k < B, and what the mean leaves over at k + 1, between
    nothing and the next point of the same curve. That is one search over a for every k.

    Returns:
        The tail, or 1 where t ≤ ⌈2 · mean · B⌉: there the extreme law may be another one.
    """
    m, s = mean * B, -1 / r
    first = math.ceil(2 * m - 1e-12)  # The uniform law on {0, …, k} has mean k/2: less is too short a support.
    if t <= first:
        return 1.0
    highest = 1e8
    i = np.arange(B + 1, dtype=np.float64)

    def curve(a: float, k: int) -> Floats:
        return np.asarray((1 + i[: k + 1] / a) ** -s)

    def excess(log_a: float, k: int) -> float:
        f = curve(math.exp(log_a), k)
        return float(f @ i[: k + 1] / f.sum()) - m

    def fitted(k: int) -> float:
        """log a of the curve on {0, …, k} with the right mean."""
        low, high = math.log(1e-12), math.log(highest)
        return high if excess(high, k) <= 0 else low if excess(low, k) >= 0 else brentq(excess, low, high, args=(k,))

    def missed(log_a: float, k: int) -> float:
        """P(X < t) of the law whose k + 1 takes the mean that is left over."""
        f = curve(math.exp(log_a), k)
        return float((k + 1 - m) * f[:t].sum() / (f @ (k + 1 - i[: k + 1])))

    best, upper = 1.0, fitted(max(first, 1))
    for k in range(max(first, 1), B):
        lower = fitted(k + 1)
        if k + 1 >= t:
            ends = [missed(lower, k), missed(upper, k)]
            if upper - lower > 1e-9:
                found = minimize_scalar(missed, bounds=(lower, upper), args=(k,), method="bounded")
                ends.append(float(found.fun))
            best = min(best, *ends)
        upper = lower
    return max(0.0, 1.0 - best)
