"""Preferences that are spread evenly over all there are."""

import torch
from torch import Tensor

from motet.methods.preferred import simplex_lattice


def preferences(tasks: int, count: int) -> Tensor:
    """Preferences spread evenly on the simplex: (count, tasks), float64. Rows sum to 1, and no entry is zero.

    For two tasks they are (count, 1)/(count + 1), …, (1, count)/(count + 1) in reverse: the first task's share rises.
    For more tasks they are points of the coarsest lattice that has ``count``, taken one after the other, each as far
    as can be from those before it. The same numbers give the same preferences.

    Raises:
        ValueError: if ``tasks`` or ``count`` is below 1.
    """
    if tasks < 1 or count < 1:
        raise ValueError(f"tasks and count must be at least 1, not {tasks} and {count}")
    if tasks == 1:
        return torch.ones(count, 1, dtype=torch.float64)
    if count == 1:
        return torch.full((1, tasks), 1 / tasks, dtype=torch.float64)
    divisions = 1
    while len(lattice := simplex_lattice(tasks, divisions)) < count:
        divisions += 1
    if len(lattice) == count:
        return lattice.flip(0)
    # From the corner of the first task on, ties by the order of the lattice.
    distances = torch.cdist(lattice, lattice)
    chosen = [0]
    nearest = distances[0]
    for _ in range(count - 1):
        chosen.append(int((nearest > nearest.max() - 1e-9).nonzero()[0]))
        nearest = torch.minimum(nearest, distances[chosen[-1]])
    return lattice[sorted(chosen, reverse=True)]
