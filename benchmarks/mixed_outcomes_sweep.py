"""The loop that the rank losses are measured against: value and gradient of the double ReLU in O(n log n), in numba."""

import numpy as np
from numba import njit


@njit(cache=False)
def sweep(y: np.ndarray, f: np.ndarray) -> tuple[float, np.ndarray]:
    """1 − mean over pairs yᵢ > yⱼ of clip(fᵢ − fⱼ + ½, 0, 1), and its gradient in f.

    Rows come in the order of y; two Fenwick trees over the ranks of f hold how many rows came before, and their sum.
    """
    n = len(y)
    order = np.argsort(y)
    values = np.sort(f)
    rank = np.searchsorted(values, f)
    low, high = np.searchsorted(values, f - 0.5), np.searchsorted(values, f + 0.5)
    total, pairs = 0.0, 0.0
    gradient = np.zeros(n)
    for way in range(2):
        counts, sums = np.zeros(n + 1), np.zeros(n + 1)
        inserted, start = 0, 0
        while start < n:
            # Equal outcomes make no pair: ask for all of them, then insert them.
            end = start
            while end < n and _at(y, order, end, n, way) == _at(y, order, start, n, way):
                end += 1
            for place in range(start, end):
                i = order[place] if way == 0 else order[n - 1 - place]
                below, _ = _prefix(counts, sums, low[i])
                upto, upto_sum = _prefix(counts, sums, high[i])
                inside = upto - below
                if way == 0:
                    _, below_sum = _prefix(counts, sums, low[i])
                    total += below + inside * (f[i] + 0.5) - (upto_sum - below_sum)
                    pairs += inserted
                    gradient[i] -= inside
                else:
                    gradient[i] += inside
            for place in range(start, end):
                i = order[place] if way == 0 else order[n - 1 - place]
                at = rank[i] + 1
                while at <= n:
                    counts[at] += 1
                    sums[at] += f[i]
                    at += at & -at
            inserted += end - start
            start = end
    return 1 - total / pairs, gradient / pairs


@njit(cache=False)
def _at(y: np.ndarray, order: np.ndarray, place: int, n: int, way: int) -> float:
    return y[order[place]] if way == 0 else y[order[n - 1 - place]]


@njit(cache=False)
def _prefix(counts: np.ndarray, sums: np.ndarray, end: int) -> tuple[float, float]:
    count, total = 0.0, 0.0
    while end > 0:
        count += counts[end]
        total += sums[end]
        end -= end & -end
    return count, total
