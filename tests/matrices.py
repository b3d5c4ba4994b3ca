"""Jacobians that methods must cope with: drawn for hypothesis, and a few fixed ones."""

import torch
from hypothesis import strategies as st
from torch import Tensor

REFERENCE = ((-4.0, 1.0, 1.0), (6.0, 1.0, 1.0))
"""The example on which the values of many methods are known: the tasks conflict in one parameter of three."""

FULL_RANK = ("weak", "strong", "scaled", "scaled-strong")
DEGENERATE = ("duplicates", "opposites", "zero-rows", "stationary", "wildly-scaled", "all-zero")


@st.composite
def jacobians(
    draw: st.DrawFn, full_rank: bool = False, tasks: tuple[int, int] = (1, 6), kinds: tuple[str, ...] | None = None
) -> Tensor:
    """(K, P) in float64. ``full_rank`` leaves out what has linearly dependent rows or scales beyond 1e±2."""
    kind = draw(st.sampled_from(kinds or (FULL_RANK if full_rank else FULL_RANK + DEGENERATE)))
    count = draw(st.integers(*tasks))
    seed = draw(st.integers(0, 2**16))
    return jacobian(kind, count, seed)


def jacobian(kind: str, tasks: int, seed: int) -> Tensor:
    """One (K, P) float64 Jacobian of a kind, P = 2K + 3."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    width = 2 * tasks + 3
    rows = normal(tasks, width)
    # Two camps that pull one way and the other along one direction, and go their own ways otherwise.
    camps = torch.where(torch.arange(tasks) % 2 == 0, 1.0, -1.0)[:, None] * normal(1, width) + 0.3 * rows
    exponent = torch.rand(tasks, 1, generator=generator, dtype=torch.float64) * 2 - 1
    if kind == "weak":
        return rows
    if kind == "strong":
        return camps
    if kind == "scaled":
        return rows * 10 ** (2 * exponent)
    if kind == "scaled-strong":
        return camps * 10 ** (2 * exponent)
    if kind == "duplicates":
        rows[1::2] = rows[::2][: tasks // 2] * 2
        return rows
    if kind == "opposites":
        rows[1::2] = -rows[::2][: tasks // 2]
        return rows
    if kind == "zero-rows":
        rows[:: 2 if tasks > 1 else 1] = 0
        return rows
    if kind == "stationary":
        # A positive combination of the rows is zero: the last row is minus a convex combination of the others.
        rows[-1] = -torch.rand(tasks - 1, generator=generator, dtype=torch.float64) @ rows[:-1]
        return rows
    if kind == "wildly-scaled":
        return camps * 10 ** (12 * exponent)
    assert kind == "all-zero", kind
    return torch.zeros_like(rows)
