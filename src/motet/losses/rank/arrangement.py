"""The rows of an outcome in the order of y: all about its pairs that does not change while the scores do."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

TILES = {"cpu": (64, 512), "cuda": (1024, 4096)}
"""Rows and columns of one dense tile, by device: 256 KB of float64 stay in a core's cache, 32 MB fill a GPU."""


class Level(NamedTuple):
    """One octal digit of the ranks, for rows in the order of y."""

    digit: Tensor
    """(m,) int32."""
    shift: Tensor
    """(m,) int32: what takes a count of rows with this digit to a position in the next level's order."""


class Arrangement:
    """Rows with weights, in the order of a key; a pair is comparable where the key differs and both weights are > 0.

    Args:
        index: (m,) the rows' numbers in the caller's order.
        key: (m,) integers; a larger one is a better outcome.
        c: (m,) weight of the row as the better one of a pair, positive.
        b: (m,) its weight as the worse one: 0 for a censored time, which nobody is known to outlive.

    Cost:
        O(m) memory, one sort.
    """

    def __init__(self, index: Tensor, key: Tensor, c: Tensor, b: Tensor) -> None:
        order = stable_order(key)
        self.index, self.c, self.b = (t.index_select(0, order) for t in (index, c, b))
        self.m = len(key)
        group = _steps(key.index_select(0, order))
        # A group that is worse than nobody (all censored) makes no pair with the next one, so they share a rank.
        split = (self.b.new_zeros(self.m).index_add_(0, group, self.b) > 0).long()
        rank = (split.cumsum(0) - split).index_select(0, group)
        self.rank = rank
        sizes = torch.bincount(rank)
        after = sizes.cumsum(0)
        self.above = after.index_select(0, rank)  # the first row of a larger rank
        self.below = (after - sizes).index_select(0, rank)  # rows of a smaller rank: these are the first
        self.worse = torch.cat([self.b.new_zeros(1), self.b.cumsum(0)])[self.below]  # weight of all worse rows
        self.pair_weight = float((self.c * self.worse).sum())
        # Where all weights are 1, and all events seen, the fast sums can count.
        self.ones = bool((self.c == 1).all())
        self.censored = bool((self.b != self.c).any())
        ranks = int(rank[-1]) + 1 if self.m else 0
        bits = max(ranks - 1, 0).bit_length()
        self.levels = [self._level(shift) for shift in range(3 * ((bits + 2) // 3) - 3, -1, -3)]
        self.offset: Tensor | None = None  # see dominance.offset
        # For tiles: the rows that can be worse, and how many of these each row surpasses.
        self.short = self.b.nonzero().squeeze(1)
        self.reach = torch.searchsorted(self.short, self.below)
        height, self.width = TILES.get(key.device.type, TILES["cuda"])
        starts = list(range(int((self.reach == 0).sum()), self.m, height))
        stops = [min(start + height, self.m) for start in starts]
        full, wide = (self.reach[[k - e for k in ends]].tolist() for ends, e in ((starts, 0), (stops, 1)))
        self.tiles: list[tuple[int, int, int, int]] = list(zip(starts, stops, full, wide, strict=True))
        """Rows start…stop; the first `full` short rows are worse than each of them, and none after `wide` is."""

    def _level(self, shift: int) -> Level:
        part, node = self.rank >> shift, self.rank >> (shift + 3)
        digit = part.int() & 7
        # Rows of the same digit in the nodes before this one have been counted, too.
        counts = torch.zeros((8, self.m + 1), dtype=torch.int32, device=part.device)
        torch.eq(digit, torch.arange(8, dtype=torch.int32, device=part.device)[:, None], out=counts[:, 1:])
        torch.cumsum(counts, 1, dtype=torch.int32, out=counts)
        earlier = counts.view(-1).index_select(0, _first(node) + digit * (self.m + 1))
        return Level(digit, (_first(part) - earlier).int())


def stable_order(key: Tensor) -> Tensor:
    """The order of integers 0…m; of equal ones the earlier comes first, so that no bit depends on how y was written."""
    m = len(key)
    unique = key * m + torch.arange(m, device=key.device)
    return (torch.from_numpy(np.sort(unique.numpy())) if key.device.type == "cpu" else unique.sort()[0]) % max(m, 1)


def order_of(x: Tensor) -> Tensor:
    """The order of x, equal values in any."""
    # NumPy's sort is four times as fast as torch's on a CPU.
    return torch.from_numpy(x.numpy().argsort()) if x.device.type == "cpu" else x.argsort()


def dense_rank(x: Tensor) -> Tensor:
    """The number of distinct smaller values, (m,)."""
    order = order_of(x)
    return torch.empty_like(order).index_copy_(0, order, _steps(x.index_select(0, order)))


def _steps(ordered: Tensor) -> Tensor:
    """The number of distinct values before each one."""
    new = torch.zeros(len(ordered), dtype=torch.bool, device=ordered.device)
    torch.ne(ordered[1:], ordered[:-1], out=new[1:])
    return new.cumsum(0)


def _first(ordered: Tensor) -> Tensor:
    """The first position of each row's value."""
    sizes = torch.bincount(ordered)
    return (sizes.cumsum(0) - sizes).index_select(0, ordered)
