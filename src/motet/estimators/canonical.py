"""Rows in an order of their own, each once: what makes a fit independent of the rows' order and of duplicates."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from motet.estimators.outcomes import Encoded

Floats = NDArray[np.float64]


class Canonical(NamedTuple):
    """Which rows are fitted.

    Attributes:
        rows: (m,) the number of a given row for each fitted one.
        weight: (m,) its weight: the sum over all rows that are equal to it.
        place: (n,) where each given row went; -1 for rows of weight 0.
    """

    rows: NDArray[np.int64]
    weight: Floats
    place: NDArray[np.int64]


def canonical(
    values: Floats, tasks: Sequence[Encoded], weight: Floats, groups: NDArray[Any] | None = None
) -> Canonical:
    """Sort the rows by outcomes, then features, and merge those that are equal in both.

    Sums of floating-point numbers depend on their order, and a network amplifies the last bit. In this order a
    permutation of the rows, and a row twice in place of a weight of 2, give the same fit bit for bit. An increasing
    transform of an outcome leaves the order as it is.

    Args:
        values: X, (n, p).
        tasks: Outcomes of n rows.
        weight: (n,), ≥ 0.
        groups: (n,): rows of different groups are never merged.
    """
    kept = np.flatnonzero(weight > 0)
    columns = [column for task in tasks for column in (task.y, task.event) if column is not None]
    if groups is not None:
        columns.append(pd.factorize(groups, sort=True)[0].astype(np.float64))
    X = np.ascontiguousarray(values[kept]) + 0.0  # -0.0 and 0.0 are the same number, and become the same bytes
    whole = X.view(np.dtype((np.void, X.dtype.itemsize * X.shape[1]))).reshape(-1) if X.shape[1] else np.zeros(len(X))
    keys = [np.unique(whole, return_inverse=True)[1].reshape(-1)]
    keys += [np.nan_to_num(column[kept], nan=np.inf) for column in reversed(columns)]
    order = np.lexsort(keys)
    new = np.zeros(len(order), dtype=bool)
    new[:1] = True
    for key in keys:
        new[1:] |= np.diff(np.unique(key, return_inverse=True)[1].reshape(-1)[order]) != 0
    at = np.cumsum(new) - 1
    place = np.full(len(values), -1)
    place[kept[order]] = at
    # The weights of a row's copies are added in order of size, so that the sum is the same for every order of rows.
    total = np.zeros(int(new.sum()))
    by_size = np.argsort(weight[kept[order]], kind="stable")
    np.add.at(total, at[by_size], weight[kept[order]][by_size])
    return Canonical(kept[order][new], total, place)
