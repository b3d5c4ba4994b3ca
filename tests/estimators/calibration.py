"""Scores and outcomes of every kind, from known laws."""

import numpy as np

KINDS = ("continuous", "binary", "ordinal", "count", "survival")


def outcome(kind, n, rng):
    """Scores, outcomes and events (None but for survival) of n rows."""
    u = rng.normal(size=n)
    if kind == "continuous":
        return u, np.exp(u) + rng.standard_t(2, size=n), None
    if kind == "binary":
        return u, (rng.random(n) < 1 / (1 + np.exp(-2 * u))) * 1.0, None
    if kind == "ordinal":
        return u, np.digitize(u + 0.7 * rng.normal(size=n), [-1, 0, 1]) * 1.0, None
    if kind == "count":
        return u, rng.poisson(np.exp(u)) * (rng.random(n) < 0.7) * 1.0, None
    u, time, event, _ = censored(n, rng)
    return u, time, event


def censored(n, rng, dependence=0.0):
    """Scores, observed times, events, and the distribution function (u, times) → (n, T) of the times themselves."""
    u = rng.normal(size=n)
    time = np.exp(u) * rng.exponential(size=n) ** 0.7
    censoring = 2 * np.exp(dependence * u) * rng.exponential(size=n)

    def law(u, times):
        return 1 - np.exp(-((times / np.exp(u)[:, None]) ** (1 / 0.7)))

    return u, np.minimum(time, censoring), (time <= censoring) * 1.0, law
