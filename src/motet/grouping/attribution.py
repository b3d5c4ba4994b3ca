"""Who is credited with a change of the losses: Jeong & Yoon, ICLR 2025, arXiv 2502.11986."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def pair_values(relative: Floats, groups: Sequence[Integers]) -> Floats:
    r"""Updates of disjoint groups, each shared out among its n members: (M, K), M groups → (Σn, K), group by group.

    With b = r/n, r the relative decrease of the losses by the group's update, member s is credited towards task t with

        bₜ                 where t is outside G, or where s and t both gained or both lost
        -max(bₜ, bₛ)       where one of them gained and the other lost: minus what the winner gained
        bₛ, or nothing     where t = s: as bₛ ≥ 0 or bₛ < 0

    An r that is NaN gives no value to its task, nor to its task as a source within G; nothing is NaN.
    """
    sizes = np.array([len(group) for group in groups])
    sources = np.concatenate(groups)
    place = np.repeat(np.arange(len(groups)), sizes)
    of_task = np.full(relative.shape[1], -1)
    of_task[sources] = place
    values: Floats = (relative / sizes[:, None])[place]
    rows = np.arange(len(sources))
    own = values[rows, sources]
    source = own[:, None]
    within = np.where(source * values < 0, -np.maximum(source, values), values)
    within[np.isnan(own)] = np.nan
    within[rows, sources] = np.where(own < 0, np.nan, own)
    return np.where(place[:, None] == of_task, within, values)


class Pairwise:
    """Exponential means of `pair_values`, entry by entry: E ← (1-β) E + β v from zero.

    Args:
        tasks: K.
        decay: β.
        corrected: Whether the mean of n values is freed of its start: E / (1-(1-β)ⁿ).
    """

    def __init__(self, tasks: int, decay: float, *, corrected: bool) -> None:
        self.decay = decay
        self.corrected = corrected
        self.mean, self.square = np.zeros((tasks, tasks)), np.zeros((tasks, tasks))
        self.counts = np.zeros((tasks, tasks), dtype=np.int64)

    def add(self, relative: Floats, groups: Sequence[Integers]) -> None:
        """Take the relative decrease (M, K) of the losses by updates of M disjoint groups, NaN where unknown."""
        self.add_pairs(pair_values(relative, groups), np.concatenate(groups))

    def add_pairs(self, values: Floats, sources: Integers) -> None:
        """Take values of the rows ``sources``, NaN where there is none: (n, K), (n,)."""
        known = ~np.isnan(values)
        rate = self.decay * known
        values = np.where(known, values, 0.0)
        mean, square = self.mean[sources], self.square[sources]
        self.mean[sources] = mean + rate * (values - mean)
        self.square[sources] = square + rate * (values * values - square)
        self.counts[sources] += known

    def solve(self) -> tuple[Floats, Floats]:
        """The means and their standard errors, zero and infinite where there is too little: (K, K) each."""
        filled = -np.expm1(np.maximum(self.counts, 1) * np.log1p(-self.decay))  # 1 - (1-β)ⁿ
        # Σw² of the weights w that add up to one: the reciprocal of the effective number of values.
        concentration = self.decay / (2 - self.decay) * (2 - filled) / filled
        mean = self.mean / filled
        spread = np.maximum(self.square / filled - mean * mean, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            error = np.sqrt(spread * concentration / (1 - concentration))
        error = np.where(self.counts < 2, np.inf, error)
        return (mean, error) if self.corrected else (self.mean.copy(), error * filled)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All state; what `restore` takes."""
        return {"mean": self.mean, "square": self.square, "counts": self.counts}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over a state of `arrays`, of the same shapes."""
        vars(self).update(arrays)
