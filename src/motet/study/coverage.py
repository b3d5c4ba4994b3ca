"""How much of the tasks' space the arms of a study cover together, and each alone."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from motet.pareto.measures import hypervolume
from motet.study.inference import Values

MOST_TASKS = 4
"""A volume in more dimensions says little, and its figures are far from anything one can picture."""


@dataclass(frozen=True)
class Coverage:
    """What some arms cover.

    Attributes:
        volume: What their front dominates, single-task alone being 1; NaN for one task or more than 4.
        alone: Share of the volume that only this arm contributes, for every arm.
    """

    volume: float
    alone: dict[str, float]


def covered(changes: Mapping[str, Values], limit: float) -> Coverage:
    """Of {arm: mean changes of the tasks (K,), lower is better}; arms with a NaN stay out.

    One arm is one point, whose own volume is a product that says less than Δm. So the volume is that of all points
    together, from a change of ``limit`` per cent for every task downwards, over that of a point without any change:
    what a reader could choose from. A point beyond the limit in any task adds nothing.

    Note:
        Of means, without an interval: how far it is chance is not said.
    """
    points = {arm: np.round(np.asarray(row) / limit, 9) for arm, row in changes.items() if np.isfinite(row).all()}
    if not points:
        return Coverage(math.nan, {})
    stacked = [row.tolist() for row in points.values()]
    tasks = len(stacked[0])
    if not 2 <= tasks <= MOST_TASKS:
        return Coverage(math.nan, dict.fromkeys(points, math.nan))
    corner = [1.0] * tasks
    volume = hypervolume(stacked, corner)
    alone = dict.fromkeys(points, 0.0)
    if volume > 0:
        for i, arm in enumerate(points):
            rest = [*stacked[:i], *stacked[i + 1 :]]
            alone[arm] = max(0.0, 1 - hypervolume(rest, corner) / volume) if rest else 1.0
    return Coverage(volume, alone)
