"""A training loop of one's own in the pieces that motet's commands need, and how a command finds it: MODULE:FACTORY."""

import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.optim import Optimizer

_T = TypeVar("_T")


class LoopError(TypeError, ValueError):
    """A piece of a `Loop` is something else: a TypeError in one's own code, and wrong input of a command."""


@dataclass(frozen=True)
class Loop:
    """A model, its losses and its batches, as a function without arguments returns them for ``MODULE:FACTORY``.

    Args:
        model: In training mode or not: whoever trains it sets that.
        losses: From one batch to {task: scalar loss, or None where the batch has no label of the task}, or to a pair of
            that and the features between trunk and heads. It moves the batch to the model's device, calls the model,
            and calls neither ``backward`` nor an optimizer.
        batches: The training batches, such as a ``DataLoader`` or a list. It is gone through once an epoch, so that a
            generator, which can be gone through only once, is refused.
        optimizer: Of the model's parameters. None is AdamW with a learning rate of 1e-3.
        shared: The parameters that tasks share, such as ``model.trunk.parameters()``, or the module that holds them.
            None takes every parameter that the losses of at least two tasks use.

    Raises:
        LoopError: a TypeError, for a piece that is something else.

    >>> import torch
    >>> trunk, heads = nn.Linear(3, 4), nn.ModuleDict({"a": nn.Linear(4, 1), "b": nn.Linear(4, 1)})
    >>> model = nn.ModuleDict({"trunk": trunk, "heads": heads})
    >>> def losses(x):
    ...     return {task: (head(trunk(x)) - 1).pow(2).mean() for task, head in heads.items()}
    >>> loop = Loop(model, losses, batches=torch.randn(5, 8, 3), shared=trunk)
    >>> sorted(loop.losses(next(iter(loop.batches))))
    ['a', 'b']
    """

    model: nn.Module
    losses: Callable[[Any], Mapping[str, Tensor | None] | tuple[Mapping[str, Tensor | None], Any]]
    batches: Iterable[Any]
    optimizer: Optimizer | None = None
    shared: Iterable[Tensor] | nn.Module | None = None

    def __post_init__(self) -> None:
        given: dict[str, Any] = vars(self)  # What a user hands over need not be what the annotations say.
        if not isinstance(given["model"], nn.Module):
            raise LoopError(f"Loop: model must be a torch.nn.Module, not {_kind(given['model'])}")
        if not callable(given["losses"]):
            raise LoopError(
                f"Loop: losses must be a function from a batch to {{task: loss}}, not {_kind(given['losses'])}: "
                "hand over the function itself, not what it returns"
            )
        batches, optimizer, shared = given["batches"], given["optimizer"], given["shared"]
        if isinstance(batches, Iterator):
            raise LoopError(
                f"Loop: batches is {_kind(batches)}, which can be gone through only once: "
                "give a DataLoader, a list, or an object whose __iter__ starts anew"
            )
        if not isinstance(batches, Iterable):
            raise LoopError(f"Loop: batches must be something to loop over, such as a DataLoader, not {_kind(batches)}")
        if optimizer is not None and not isinstance(optimizer, Optimizer):
            raise LoopError(f"Loop: optimizer must be a torch.optim.Optimizer or None, not {_kind(optimizer)}")
        if shared is not None and not isinstance(shared, nn.Module):
            if isinstance(shared, Tensor) or not isinstance(shared, Iterable):
                raise LoopError(
                    "Loop: shared must be a module or its parameters, such as model.trunk.parameters(), "
                    f"not {_kind(shared)}"
                )
            object.__setattr__(self, "shared", list(shared))  # parameters() can be gone through only once.


def is_factory(name: str) -> bool:
    """Whether a command's argument means MODULE:FACTORY, and not a file or a problem."""
    return ":" in name and not Path(name).exists() and not name.startswith(":\\", 1)


def load(name: str) -> Loop:
    """Import MODULE, call its FACTORY without arguments and give the loop that it returns.

    The current directory is on the path, as for ``python -m``. The factory may be an attribute of a class or object in
    the module, with dots. An error inside the user's own code is not caught: its traceback names the line.

    Args:
        name: As in ``train:loop`` or ``package.train:Experiment.loop``.

    Raises:
        ValueError: if there is no such module or factory, or the factory wants arguments or returns no `Loop`.
    """
    return returned(name, find_factory(name, Loop, "motet.Loop")(), Loop, "motet.Loop")


def find_factory(name: str, wanted: type, public: str) -> Callable[[], Any]:
    """The function that MODULE:FACTORY names, for those who call it themselves.

    Args:
        name: As for `load`.
        wanted: What it shall return.
        public: Its name for users, such as ``motet.Loop``.

    Raises:
        ValueError: if there is no such module or function, or it wants arguments.
    """
    short = wanted.__name__
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        example = f"train:{short.lower()} for the function {short.lower()}() in train.py"
        raise ValueError(f"{name!r} is no MODULE:FACTORY, such as {example}")
    factory: Any = _module(module_name)
    for part in attribute.split("."):
        if not hasattr(factory, part):
            public_names = [found for found in dir(factory) if not found.startswith("_")]
            near = difflib.get_close_matches(part, public_names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"name the function that makes the {short}"
            raise ValueError(f"{module_name!r} has no {part!r}: {hint}")
        factory = getattr(factory, part)
    if isinstance(factory, wanted):
        raise ValueError(
            f"{name} is a {short} itself: name a function without arguments that makes one, so that each start begins "
            "anew"
        )
    if not callable(factory):
        raise ValueError(f"{name} is {_kind(factory)} and no function: name a function that returns a {public}")
    _check_arguments(name, factory)
    return factory  # type: ignore[no-any-return]


def returned(name: str, value: Any, wanted: type[_T], public: str) -> _T:
    """What the factory gave, if it is what was wanted.

    Raises:
        ValueError: if it is something else.
    """
    if not isinstance(value, wanted):
        raise ValueError(f"{name}() must return a {public} and returned {_kind(value)}")
    return value


def _module(name: str) -> ModuleType:
    here = os.getcwd()  # noqa: PTH109  sys.path holds strings
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    if name.startswith(".") or "/" in name:
        raise ValueError(f"{name!r} is a path and no module{_as_import(name)}")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # One that the module itself imports is missing: then the error is the module's, and says which.
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise ValueError(f"the module {name!r} can't be imported: {error}") from error
        hint = _as_import(name) if name.endswith(".py") else ""
        raise ValueError(f"there is no module {name!r} in {here} or on Python's path{hint}") from None


def _as_import(name: str) -> str:
    return f": write it as import does, {name.removesuffix('.py').strip('./').replace('/', '.')!r}"


def _check_arguments(name: str, factory: Callable[..., Any]) -> None:
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        return  # Some built-in functions have no signature that can be read.
    try:
        signature.bind()
    except TypeError as error:
        raise ValueError(f"{name} is called without arguments, and that fails: {error}") from None


def _kind(value: Any) -> str:
    if value is None:
        return "None"
    kind = type(value).__name__
    return f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"
