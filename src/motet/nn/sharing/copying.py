"""Several modules of one make, each with its own initial values."""

import copy
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import nn
from torch.nn.parameter import is_lazy

Source = nn.Module | Callable[[], nn.Module]
"""A function that makes a new module at every call, or a module that is copied and initialised anew."""

_RESETS = ("reset_parameters", "_reset_parameters")
"""The second is what torch calls it in attention and transformers."""


def fresh(source: Source, count: int, what: str) -> nn.ModuleList:
    """``count`` independently initialised modules; ``source`` itself is not among them if it is a module.

    Random numbers come from torch's global generator, as for any module.

    Args:
        source: A factory or a module.
        count: How many.
        what: The argument's name, for errors.

    Raises:
        ValueError: for a module that can't be initialised anew, or a factory whose modules have parameters in common.
        TypeError: for anything else.
    """
    if isinstance(source, nn.Module):
        return nn.ModuleList(_anew(source, what) for _ in range(count))
    if isinstance(source, type) or not callable(source):
        kind = f"the class {source.__name__}" if isinstance(source, type) else f"a {type(source).__name__}"
        raise TypeError(f"{what} must be a module or a function without arguments that makes one, not {kind}")
    made = [source() for _ in range(count)]
    seen: set[int] = set()
    for module in made:
        if not isinstance(module, nn.Module):
            raise TypeError(f"{what}() must return a module, and it returned a {type(module).__name__}")
        new = {id(module), *map(id, module.parameters())}
        if new & seen:
            raise ValueError(f"{what}() returned the same module or parameters twice: let every call make a new one")
        seen |= new
    return nn.ModuleList(made)


def stages(source: nn.Sequential | Sequence[Source], what: str = "stages") -> list[Source]:
    """The members of a Sequential or a list.

    Raises:
        TypeError, ValueError: for anything else, or none.
    """
    if isinstance(source, nn.Module) and not isinstance(source, nn.Sequential | nn.ModuleList):
        raise TypeError(f"{what} must be a Sequential or a list of modules, not a {type(source).__name__}")
    if not isinstance(source, Iterable):
        raise TypeError(f"{what} must be a Sequential or a list of modules, not {type(source).__name__}")
    found = list(source)
    if not found:
        raise ValueError(f"{what} is empty: give at least one module")
    return found


def _anew(source: nn.Module, what: str) -> nn.Module:
    module = copy.deepcopy(source)
    _reset(module, what, "", covered=False)
    for (name, old), new in zip(source.named_parameters(), module.parameters(), strict=True):
        # A reset that leaves out a weight, or writes to one that a parametrisation computes, would go unseen.
        if old.ndim > 1 and not is_lazy(old) and torch.equal(old, new) and bool(old.min() < old.max()):
            raise ValueError(f"{what}: {name} has the same values after reset_parameters; {_ADVICE}")
    return module


_ADVICE = "give a function that makes a new module instead, such as lambda: Expert(…)"


def _reset(module: nn.Module, what: str, path: str, covered: bool) -> None:
    """Children first: what is around them may set some of their values."""
    reset = next((getattr(module, name) for name in _RESETS if callable(getattr(module, name, None))), None)
    covered = covered or reset is not None
    if not covered and any(True for _ in module.parameters(recurse=False)):
        raise ValueError(
            f"{what}: {path or 'the module'} ({type(module).__name__}) has parameters and no reset_parameters, so a "
            f"copy can't be initialised anew; {_ADVICE}"
        )
    for name, child in module.named_children():
        _reset(child, what, f"{path}.{name}" if path else name, covered)
    if reset is not None:
        reset()
