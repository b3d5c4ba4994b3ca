"""The main task of methods that serve one task with the others."""

from torch import Tensor

from motet.methods.base import Method


def check_main(method: Method, main: int) -> int:
    """The option as it came. The method wants so many tasks that there is a main one.

    Raises:
        ValueError: if it is no index of a task.
    """
    if isinstance(main, bool) or not isinstance(main, int) or main < 0:
        raise ValueError(f"main is the index of {type(method).__name__}'s main task, from 0, not {main!r}")
    method.least_tasks = max(method.least_tasks, main + 1)
    return main


def is_main(method: Method, mains: tuple[int, ...], gram: Tensor) -> Tensor:
    """1 for the present tasks that are main ones and 0 for the others: (…, K, K) → (K,) in the Gram matrix's dtype.

    All are 0 where no main task is present, so that products with it are those of a gradient of zero.

    Raises:
        ValueError: if there is no such task.
    """
    present = gram.new_zeros(gram.shape[-1])
    count = len(present) if method._count is None else method._count
    if max(mains) >= count:
        raise ValueError(
            f"main names the task {max(mains)} of {type(method).__name__}, and there are {count}, from 0: where "
            "batches lack tasks, pass all their names to the Balancer as tasks="
        )
    every = present.new_zeros(count)
    every[list(mains)] = 1.0
    return method.chosen(every, present)
