"""Isotonic distributional regression: Henzi, Ziegel & Gneiting, JRSS B 2021, arXiv 1909.03725."""

from collections.abc import Iterator
from typing import Self

import numpy as np

from motet.estimators.calibration_rows import Floats
from motet.estimators.isotonic import FUZZ, by_score, interpolated, isotonic, summed, thinned

_BLOCK = 4096
"""Rows whose distributions are held at once."""


class IsotonicDistribution:
    r"""The law of an outcome given a score that it increases with stochastically, without any other assumption.

    At each threshold t the distribution function is the best decreasing fit to the indicators,

        F(t|·) = argmin { Σᵢ wᵢ (mᵢ 1{Yᵢ ≤ t} - f(uᵢ))² : f decreasing in u },

    clipped to [0, 1]. It increases in t by itself, as projections onto a cone of sequences keep order. Between two
    scores F is linear in u, outside it is constant; between two thresholds it is a step function in t.

    Args:
        knots: Scores (g,), increasing.
        thresholds: (m,), increasing.
        values: F (g, m).

    Shapes:
        u (N,), thresholds (T,) → F (N, T).

    Cost:
        n log n for one sort, O(m n) for the fit; O(N m) for N predictions.

    Note:
        With fewer thresholds than values the mass between two thresholds sits at the upper one.
    """

    def __init__(self, knots: Floats, thresholds: Floats, values: Floats) -> None:
        # The smaller of two fits in u, the larger of two in t: both orders then hold to the last bit.
        ordered = np.maximum.accumulate(np.minimum.accumulate(np.clip(values, 0.0, 1.0), axis=0), axis=1)
        self.thresholds = thresholds
        # Sums of weights make a certain outcome one only up to rounding.
        self.knots, self.values = thinned(knots, np.where(ordered > 1 - FUZZ, 1.0, ordered))

    @classmethod
    def fit(cls, u: Floats, y: Floats, weight: Floats, thresholds: Floats, mass: Floats | None = None) -> Self:
        """Fit to scores, outcomes and weights (n,); ``mass`` (n,) is m in the formula, 1 unless given."""
        knots, group, at = by_score(u, weight)
        bins = len(thresholds) + 1
        cells = group * bins + np.searchsorted(thresholds, y)
        share = weight if mass is None else weight * mass
        counts = summed(cells, share, len(knots) * bins).reshape(-1, bins)[:, :-1]
        steps = counts.cumsum(axis=1) / at[:, None]
        return cls(knots, thresholds, isotonic(np.ascontiguousarray(steps.T), at, increasing=False).T)

    def at(self, u: Floats) -> Floats:
        """F at all thresholds: (N,) → (N, m)."""
        return interpolated(u, self.knots, self.values)

    def blocks(self, u: Floats) -> Iterator[tuple[slice, Floats]]:
        """`at` for a few thousand rows at a time; one empty block for no rows."""
        for start in range(0, max(len(u), 1), _BLOCK):
            rows = slice(start, start + _BLOCK)
            yield rows, self.at(u[rows])

    def cdf(self, u: Floats, t: Floats) -> Floats:
        """P(Y ≤ t | u): (N,), (T,) → (N, T)."""
        place = np.searchsorted(self.thresholds, t, side="right") - 1
        values = interpolated(u, self.knots, self.values[:, place.clip(min=0)])
        values[:, place < 0] = 0.0
        return values

    def limits(self, u: Floats, y: Floats) -> tuple[Floats, Floats]:
        """P(Y < yᵢ | uᵢ) and P(Y ≤ yᵢ | uᵢ) of each row: (n,), (n,)."""
        out = []
        for place in (np.searchsorted(self.thresholds, y), np.searchsorted(self.thresholds, y, side="right")):
            padded = ((rows, np.pad(values, ((0, 0), (1, 0)))) for rows, values in self.blocks(u))
            out.append(np.concatenate([np.take_along_axis(v, place[r, None], 1)[:, 0] for r, v in padded]))
        return out[0], out[1]

    def quantiles(self, u: Floats, q: Floats, strictly: bool = False) -> Floats:
        """inf{t : F(t|u) ≥ q}, or > q; infinite where F does not get there: (N,), (Q,) → (N, Q)."""
        padded = np.append(self.thresholds, np.inf)
        levels = q + FUZZ if strictly else q - FUZZ
        out = np.empty((len(u), len(q)))
        for rows, values in self.blocks(u):
            if len(q) < len(values):
                below = [(values <= level if strictly else values < level).sum(1) for level in levels]
                out[rows] = padded[np.stack(below, axis=1)]
            else:
                out[rows] = padded[
                    np.stack([np.searchsorted(row, levels, side="right" if strictly else "left") for row in values])
                ]
        return out
