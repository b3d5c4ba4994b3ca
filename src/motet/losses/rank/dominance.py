"""Sums over all rows of a smaller rank and a smaller position, for every row at once: an eight-way wavelet tree.

Grossi, Gupta & Vitter, SODA 2003; multi-ary: Ferragina, Manzini, Mäkinen & Navarro, ACM TALG 2007. The rows, in the
order of their scores, are parted stably by the highest octal digit of their rank in y, each part by the next digit, and
so on. Two rows of different rank share a node until their first different digit, and there the smaller digit is the
smaller rank. A node stays ordered by score, so "before position P" is a prefix in every node, and a table of prefix
sums, one line for each digit, answers for all smaller digits with one look-up. The same table of counts carries P to
the next level. There is no sort within a level, and rows of equal rank never part, so that ties cost nothing and need
no correction.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from motet.losses.rank.arrangement import Arrangement


def dominated(
    rows: Arrangement, positions: Tensor, values: Sequence[Tensor | None]
) -> tuple[list[Tensor], list[Tensor]]:
    """For each row i, position P and values v: Σ vⱼ over rank j < rank i, and over rank j = rank i, that are before P.

    Args:
        rows: The rows in the order of y.
        positions: (k + 1, m) int32, for the rows in the order of y: each row's place in the order of the scores, and
            then k positions there, 0…m: "all before this one".
        values: (m,) float64 for the rows in the order of y; None for ones.

    Returns:
        For each of the values (k, m) sums over smaller ranks and (k, m) over equal ranks. Those over smaller ranks have
        an offset that depends on the row alone, and not on P: only differences between two positions mean anything.

    Cost:
        O((k + values) m) time and memory a level, and log₈(ranks) levels.
    """
    m, k = rows.m, len(positions) - 1
    sums = [positions.new_zeros((k, m), dtype=torch.int32 if v is None else v.dtype) for v in values]
    table = positions.new_zeros((9, m + 1))
    tables = [table if v is None else v.new_zeros((8, m + 1)) for v in values]
    for level in rows.levels:
        # One entry in front that no line counts: so the sums up to position P are those before it.
        place = positions[0].long() + 1
        digit = level.digit.new_full((m + 1,), 8).scatter_(0, place, level.digit)
        _prefixes(table, digit, None)
        # Line d is for digits < d, and line d + 1 lies m + 1 further on.
        at = (positions + level.digit * (m + 1)).view(-1)
        smaller = table.view(-1).index_select(0, at)
        for v, own, total in zip(values, tables, sums, strict=True):
            if v is None:
                total += smaller[m:].view(k, m)
            else:
                _prefixes(own, digit, v.new_zeros(m + 1).scatter_(0, place, v))
                total += own.view(-1).index_select(0, at[m:]).view(k, m)
        positions = table.view(-1).index_select(0, at.add_(m + 1)).sub_(smaller).view(k + 1, m).add_(level.shift)
    place, rest = positions[0].long(), positions[1:]
    equal = [rest if v is None else prefix(torch.empty_like(v).scatter_(0, place, v))[rest] for v in values]
    return sums, equal


def sides(rows: Arrangement, order: Tensor, ends: Tensor, values: list[Tensor | None]) -> list[tuple[Tensor, Tensor]]:
    """For each of the values v, Σ bⱼvⱼ over worse and Σ cⱼvⱼ over better rows j before k positions, (k, m) each.

    Both have an offset that depends on the row alone: take differences between two positions.

    Args:
        rows: The rows in the order of y.
        order: (m,) the rows in the order of the scores.
        ends: (k, m) int32 positions for the rows in the order of the scores.
        values: (m,) for the rows in the order of y; None for ones.
    """
    place = torch.arange(rows.m, dtype=torch.int32, device=order.device)
    positions = ends.new_empty(len(ends) + 1, rows.m)
    positions.index_copy_(1, order, torch.cat([place[None], ends]))
    b = [_product(None if rows.ones and not rows.censored else rows.b, v) for v in values]
    # Without censoring b is c, and one set of sums serves both sides.
    c = [_product(None if rows.ones else rows.c, v) for v in values] if rows.censored else b
    smaller, equal = dominated(rows, positions, b + c if rows.censored else b)
    found = []
    for v, worse, not_better, same in zip(c, smaller, smaller[-len(c) :], equal[-len(c) :], strict=False):
        everyone = positions[1:] if v is None else prefix(v.index_select(0, order))[positions[1:]]
        found.append((worse.double(), (everyone - not_better - same).double()))
    return found


def offset(rows: Arrangement) -> Tensor:
    """The offset of `sides` for worse rows and the value 1, (m,): it does not change with the scores."""
    if rows.offset is None:
        place = torch.arange(rows.m, dtype=torch.int32, device=rows.b.device)
        (smaller,), _ = dominated(
            rows, torch.stack([place, torch.zeros_like(place)]), [None if rows.ones and not rows.censored else rows.b]
        )
        rows.offset = smaller[0].double()
    return rows.offset


def _product(weights: Tensor | None, values: Tensor | None) -> Tensor | None:
    return values if weights is None else weights if values is None else weights * values


def _prefixes(table: Tensor, digit: Tensor, values: Tensor | None) -> None:
    """table[d, P] = Σ values over the digits < d before P, for all lines d of the table."""
    torch.lt(digit, torch.arange(len(table), device=table.device, dtype=digit.dtype)[:, None], out=table)
    if values is not None:
        table *= values
    torch.cumsum(table, 1, dtype=table.dtype, out=table)


def prefix(values: Tensor) -> Tensor:
    """Sums of all values before each position: (m,) → (m + 1,)."""
    sums = values.new_zeros(len(values) + 1)
    torch.cumsum(values, 0, out=sums[1:])
    return sums
