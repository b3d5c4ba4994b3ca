"""Which instances of a bag are neighbours: by features, by position, with ties that don't depend on the order.

All of it is a choice, not a function to differentiate: nothing here carries a gradient. Bags are flat, one after the
other; `sizes` are Python numbers, for what is done depends on them.

The rule: i and j are neighbours if j is among the k nearest of i, or i among those of j. Nearest means: not farther
than the k-th, so that among equals nobody is chosen by the order of the rows. Where such a tie would give an instance
more than 4k neighbours (many copies of one instance, say), all who share the k-th distance are left out, and memory
stays linear. Copies that are left out lose nothing: an average over equals changes nobody.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from motet.nn.cells import cell_candidates
from motet.nn.uncompiled import uncompiled

MOST = 4
"""How many times k neighbours an instance may choose when some are equally far."""
BLOCK = 64
"""Rows of similarities held at once for a long bag: 64 × 10,000 floats stay in a core's cache."""
GROUP = 32
"""Similarities of which first only the largest is looked at."""
SHORT = 256
"""Bags up to this size are searched many at a time, padded to a common size."""
SELF = -3.0
"""A similarity below every cosine, for pairs that can't be chosen."""


def undirected(edges: Tensor, rows: int) -> Tensor:
    """Each pair once, the smaller number first, in order, without loops: (2, E)."""
    low, high = torch.minimum(*edges), torch.maximum(*edges)  # faster than along so short a dimension
    pairs = (low * rows + high)[low != high].unique()
    return torch.stack([pairs // max(rows, 1), pairs % max(rows, 1)])


@uncompiled
@torch.no_grad()
def feature_edges(features: Tensor, sizes: list[int], neighbours: int, exact_up_to: int) -> Tensor:
    """Neighbours by cosine similarity within each bag: features (ΣN, d) → edges (2, E).

    Exact up to ``exact_up_to`` instances in a bag, beyond that from candidates in nearby cells.
    """
    features = normalize(features.detach(), dim=1)
    starts = [0, *accumulate(sizes)]
    found = [torch.zeros(2, 0, dtype=torch.int64, device=features.device)]
    short = sorted((n, start) for n, start in zip(sizes, starts, strict=False) if 1 < n <= SHORT)
    for first, last in _batches([n for n, _ in short]):
        found.append(_short(features, short[first:last], neighbours))
    for start, end in pairwise(starts):
        if end - start > exact_up_to:
            found.append(start + _cells(features[start:end], neighbours))
        elif end - start > SHORT:
            found.append(start + _long(features[start:end], neighbours))
    return undirected(torch.cat(found, 1), len(features))


@uncompiled
@torch.no_grad()
def coordinate_edges(coordinates: Tensor, sizes: list[int], neighbours: int) -> Tensor:
    """Neighbours by Euclidean distance within each bag, from a k-d tree: coordinates (ΣN, 2 or 3) → edges (2, E)."""
    points = coordinates.detach().double().cpu().numpy()
    found = [np.zeros((2, 0), dtype=np.int64)]
    for start, end in pairwise([0, *accumulate(sizes)]):
        if end - start > 1:
            found.append(start + _tree(points[start:end], neighbours))
    return undirected(torch.from_numpy(np.concatenate(found, 1)).to(coordinates.device), len(points))


def tolerance(dtype: torch.dtype) -> float:
    """Below this two similarities are the same: products of equal rows differ in the last digits by where they lie."""
    return float(float(torch.finfo(dtype).eps) ** 0.8)


def _chosen(similar: Tensor, kth: Tensor, most: int) -> Tensor:
    """The rule on rows of similarities: (…, n), their k-th largest (…, 1) → bool (…, n)."""
    slack = tolerance(similar.dtype)
    near = (similar >= kth - slack) & (similar > SELF / 2)
    return torch.where(near.sum(-1, keepdim=True) > most, similar > kth + slack, near)


def _batches(sizes: list[int]) -> list[tuple[int, int]]:
    """Ranges of a rising list of sizes, in each at most twice the smallest and a million similarities."""
    ranges, first = [], 0
    for last, size in enumerate(sizes):
        if size > 2 * sizes[first] or (last + 1 - first) * size * size > 2**20:
            if last > first:
                ranges.append((first, last))
            first = last
    return [*ranges, (first, len(sizes))] if sizes else []


def _short(features: Tensor, bags: list[tuple[int, int]], k: int) -> Tensor:
    n = torch.tensor([bag[0] for bag in bags], device=features.device)[:, None]
    start = torch.tensor([bag[1] for bag in bags], device=features.device)[:, None]
    place = torch.arange(bags[-1][0], device=features.device)
    row = (start + place).clamp(max=len(features) - 1)
    e = features[row]
    similar = e @ e.mT
    similar.diagonal(dim1=1, dim2=2).fill_(SELF)
    similar.masked_fill_((place >= n)[:, None, :], SELF)
    largest = similar.topk(min(k, similar.shape[-1] - 1)).values
    kth = largest.gather(
        2, (n.clamp(max=k + 1) - 2)[:, None, :].expand(-1, len(place), 1).clamp(max=largest.shape[2] - 1)
    )
    chosen = _chosen(similar, kth, MOST * k) & (place < n)[:, :, None]
    bag, i, j = chosen.nonzero(as_tuple=True)
    return torch.stack([row[bag, i], row[bag, j]])


def _long(features: Tensor, k: int) -> Tensor:
    """One bag in blocks of rows. A row's k largest lie in the k groups of columns that have the largest maxima."""
    n, d = features.shape
    k = min(k, n - 1)
    size = max(1, min(GROUP, n // (2 * k)))
    groups = -(-n // size)
    # A column more, 1 in the rows and SELF in the columns beyond the last, makes those unlikely without a mask.
    columns = features.new_zeros(groups * size, d + 1)
    columns[:n, :d], columns[n:, d] = features, SELF
    rows, columns = torch.cat([features, features.new_ones(n, 1)], 1), columns.T.contiguous()
    slack = tolerance(features.dtype)
    held = features.new_empty(min(BLOCK, n), groups * size)
    found = []
    for first in range(0, n, BLOCK):
        block = rows[first : first + BLOCK]
        similar = torch.mm(block, columns, out=held[: len(block)])
        similar.diagonal(first).fill_(SELF)
        grouped = similar.view(len(block), size, groups)
        top = grouped.amax(1)
        least = top.topk(k, sorted=False).values.amin(1, keepdim=True) - 2 * slack
        i, group = (top >= least).nonzero(as_tuple=True)
        candidates = grouped[i, :, group]
        pair, member = (candidates >= least[i]).nonzero(as_tuple=True)
        found.append(_pick(i[pair], member * groups + group[pair], candidates[pair, member], len(block), k, first))
    return torch.cat(found, 1)


def _pick(i: Tensor, j: Tensor, similar: Tensor, rows: int, k: int, first: int) -> Tensor:
    """The rule on candidates: pairs (i, j), i rising, at least k for each of the rows, padding far below."""
    count = torch.bincount(i, minlength=rows)
    # Rows apart by more than any similarity, in float64: one sort orders all rows.
    order = (i * 8 - similar.double()).argsort()
    kth = similar[order[(count.cumsum(0) - count + k - 1)]]
    slack = tolerance(similar.dtype)
    near = (similar >= kth[i] - slack) & (similar > SELF / 2)
    over = torch.bincount(i[near], minlength=rows) > MOST * k
    near &= ~over[i] | (similar > kth[i] + slack)
    return torch.stack([i[near] + first, j[near]])


def _cells(features: Tensor, k: int) -> Tensor:
    found = []
    for rows, candidates in cell_candidates(features):
        similar = features[rows] @ features[candidates].T
        similar.masked_fill_(rows[:, None] == candidates, SELF)
        kth = similar.topk(min(k, len(candidates))).values[:, -1:]
        i, j = _chosen(similar, kth, MOST * k).nonzero(as_tuple=True)
        found.append(torch.stack([rows[i], candidates[j]]))
    return torch.cat(found, 1)


def _tree(points: np.ndarray[Any, Any], k: int) -> np.ndarray[Any, Any]:
    from scipy.spatial import cKDTree

    n, k = len(points), min(k, len(points) - 1)
    tree = cKDTree(points)
    # One neighbour more than needed shows a tie at the k-th; only the rows that have one ask for more.
    i, j, tied = _nearest(tree, np.arange(n), k, min(k + 2, n))
    if len(tied):
        keep = ~np.isin(i, tied)
        more_i, more_j, _ = _nearest(tree, tied, k, min(MOST * k + 2, n))
        i, j = np.concatenate([i[keep], more_i]), np.concatenate([j[keep], more_j])
    return np.stack([i, j])


def _nearest(
    tree: Any, rows: np.ndarray[Any, Any], k: int, ask: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The rule on what the tree finds, and the rows that may have more neighbours than were asked for."""
    distance, j = tree.query(tree.data[rows], k=ask)
    distance[j == rows[:, None]] = np.inf
    kth = np.partition(distance, k - 1, axis=1)[:, k - 1 : k]
    near = distance <= kth * (1 + 1e-9)
    finite = np.isfinite(distance)
    tied = (near == finite).all(1) & (ask < tree.n)
    over = near.sum(1, keepdims=True) > MOST * k
    near = np.where(over, distance < kth * (1 - 1e-9), near) & finite
    place, column = near.nonzero()
    return rows[place], j[place, column], rows[tied]
