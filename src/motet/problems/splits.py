"""Ways to cut rows into training, validation and test, 60/20/20. Every part is a sorted array of row numbers."""

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Parts = tuple[Rows, Rows, Rows]
Seed = int | tuple[int, int]
"""A seed, or a seed and the number of the attempt, where a split is drawn again."""

FRACTIONS = (0.6, 0.2, 0.2)
_CUTS = np.cumsum(FRACTIONS)[:2]


def random(rows: int, seed: Seed) -> Parts:
    """Any row anywhere."""
    order = np.random.default_rng(seed).permutation(rows)
    return _parts(np.split(order, np.round(_CUTS * rows).astype(int)))


def stratified(strata: NDArray[np.int64], seed: Seed) -> Parts:
    """Random within each stratum, so that a class with five rows or more is in every part.

    Where the rows of a class can't be cut 60/20/20, chance decides how to round. Always rounding the same
    way would starve one part when there are many small classes.
    """
    generator = np.random.default_rng(seed)
    parts: list[list[Rows]] = [[], [], []]
    for stratum in np.unique(strata):
        rows = generator.permutation(np.flatnonzero(strata == stratum))
        cuts = np.floor(_CUTS * len(rows) + generator.random()).astype(int)
        for part, piece in zip(parts, np.split(rows, cuts), strict=True):
            part.append(piece)
    return _parts([np.concatenate(pieces) for pieces in parts])


def grouped(groups: NDArray[np.int64], seed: Seed) -> Parts:
    """No group in two parts.

    Groups come in random order: the first three open one part each, the rest go where most rows are missing.

    Raises:
        ValueError: below three groups.
    """
    names, sizes = np.unique(groups, return_counts=True)
    if len(names) < 3:
        raise ValueError(f"a split by groups needs three groups or more, and there are {len(names)}")
    wanted = np.array(FRACTIONS) * len(groups)
    missing = wanted.copy()
    part_of = np.empty(len(names), dtype=np.int64)
    for turn, group in enumerate(np.random.default_rng(seed).permutation(len(names))):
        part_of[group] = turn if turn < 3 else np.argmax(missing)
        missing[part_of[group]] -= sizes[group]
    part = part_of[np.searchsorted(names, groups)]
    return _parts([np.flatnonzero(part == number) for number in range(3)])


def ordered(times: NDArray[np.generic]) -> Parts:
    """Training before validation before test. Rows of one time stay together, so parts may differ from 60/20/20."""
    ordered_times = np.sort(times)
    first, second = (ordered_times[int(cut * len(times))] for cut in _CUTS)
    part = (times >= first).astype(int) + (times >= second)
    return _parts([np.flatnonzero(part == number) for number in range(3)])


def _parts(pieces: list[Rows]) -> Parts:
    train, validation, test = (np.sort(piece).astype(np.int64) for piece in pieces)
    return train, validation, test
