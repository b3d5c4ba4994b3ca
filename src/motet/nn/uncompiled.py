"""Functions that a compiled model runs as they are, since what they look for depends on the data."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

_P = ParamSpec("_P")
_T = TypeVar("_T")


def uncompiled(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """As `torch.compiler.disable`, which imports the whole compiler, seconds of work, wherever it decorates."""

    @wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        if torch.compiler.is_compiling():
            found: _T = torch.compiler.disable(function)(*args, **kwargs)
            return found
        return function(*args, **kwargs)

    return call
