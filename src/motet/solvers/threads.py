"""One thread for small matrices."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

_P = ParamSpec("_P")
_R = TypeVar("_R")


def one_thread(solve: Callable[_P, _R]) -> Callable[_P, _R]:
    """Run a solver on one CPU thread, and give torch its threads back afterwards.

    Nothing here is large enough to share out. Threads that wait for each other in a hundred calls of a few
    microseconds make a solve take 60 times as long when another process uses the cores.
    """

    @functools.wraps(solve)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return solve(*args, **kwargs)
        finally:
            torch.set_num_threads(threads)

    return run
