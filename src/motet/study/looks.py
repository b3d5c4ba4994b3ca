"""Seeds that are added until the verdict is decided: when it is looked at, and which seeds these are."""

from collections.abc import Sequence

DEFAULT_EVERY = 2


def plan(first: int, last: int, every: int) -> tuple[int, ...]:
    """Numbers of seeds after which the verdict is read.

    Raises:
        ValueError: if ``last`` is not beyond ``first``, or ``every`` is no step.

    >>> plan(6, 11, 2)
    (6, 8, 10, 11)
    """
    for name, value in (("max_seeds", last), ("look_every", every)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
    if last <= first:
        raise ValueError(f"max_seeds={last} must be more than the {first} seeds of the first look")
    return (*range(first, last, every), last)


def extended(seeds: Sequence[int], count: int) -> list[int]:
    """The first ``count`` seeds: the given ones, then the whole numbers after the largest of them.

    >>> extended([3, 1], 4), extended([0, 1, 2], 2)
    ([3, 1, 4, 5], [0, 1])
    """
    after = max(seeds) + 1
    return [*seeds, *range(after, after + count)][:count]
