"""A problem of one's own: MODULE:FUNCTION or PATH/FILE.py:FUNCTION, looked over before anything is trained on it."""

import importlib.util
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from motet import loop
from motet.problems.base import Data, Problem, Split
from motet.problems.views import Views

_T = TypeVar("_T")
_PUBLIC = "motet.problems.Problem"


def is_factory(name: str) -> bool:
    """Whether a command's argument means a function, and not a file or a problem."""
    return loop.is_factory(name)


def load(name: str, seed: int = 0) -> Problem:
    """Import the module, call its function without arguments, and look over the problem that it returns.

    Only the user's own code is run, which the name points at. The current directory, or the file's folder, is put on
    Python's path, so that the code can import what lies beside it.

    Args:
        name: As in ``package.module:problem`` or ``path/file.py:problem``.
        seed: Of the data that are loaded for the look.

    Raises:
        ValueError: if there is no such function, if it fails, or if a study can't be made of what it returns.
    """
    function = _find(name)
    problem = loop.returned(name, _own(f"{name}()", function), Problem, _PUBLIC)
    check(problem, f"{name}()", seed)
    return problem


def check(problem: Problem, name: str, seed: int = 0) -> None:
    """Look over a problem: its name, its data of one seed, and one pass of its model with all losses and metrics.

    `motet.testing.check_problem` checks more, and takes longer.

    Raises:
        ValueError: that names the first thing which is wrong.
    """
    # Imported here: it is needed for problems of one's own alone.
    from motet.testing.problems import first_fault

    if not isinstance(problem.name, str) or not re.fullmatch(r"[\w.-]+", problem.name) or problem.name.startswith("."):
        raise ValueError(
            f"the problem of {name} has the name {problem.name!r}: its runs are kept in a folder of this name, so it "
            "is letters, digits, hyphens and dots"
        )
    data = _own(f"load({seed}) of {name}", lambda: problem.load(seed))
    if fault := _form(data):
        raise ValueError(f"load({seed}) of {name} {fault}")
    model = _own(f"the model of {name}", lambda: problem.model(data, seed))
    if not isinstance(model.trunk, nn.Module):
        raise ValueError(f"the trunk of {name} must be a torch.nn.Module, not {type(model.trunk).__name__}")
    if fault := _own(f"a pass of the model of {name}", lambda: first_fault(problem, data, seed)):
        raise ValueError(f"the problem of {name} can't be trained on: {fault}")


def _find(name: str) -> Callable[[], Any]:
    module, _, attribute = name.partition(":")
    path = Path(module).expanduser()
    if path.suffix == ".py":
        if not path.is_file():
            raise ValueError(f"there is no file {module}, in which {attribute or 'a function'} should be")
        _check_unique(path)
        # In front, so that this file is found before another of the same name; and worker processes get the same path.
        sys.path.insert(0, str(path.resolve().parent))
        name = f"{path.stem}:{attribute}"
    try:
        return loop.find_factory(name, Problem, _PUBLIC)
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"{module} can't be imported: {_told(error)}") from error


def _check_unique(path: Path) -> None:
    """Another module of this name that is imported already would be taken instead."""
    if not path.stem.isidentifier():
        raise ValueError(
            f"{path} can't be imported, since {path.stem!r} is no Python name: rename it, as in my_data.py"
        )
    there = importlib.util.find_spec(path.stem) if path.stem in sys.modules else None
    builtin = path.stem in sys.stdlib_module_names
    if builtin or (there is not None and there.origin is not None and Path(there.origin) != path.resolve()):
        whose = "Python" if builtin else str(there.origin if there is not None else "")
        raise ValueError(f"{path} can't be imported, since {whose} has a module {path.stem!r} already: rename the file")


def _own(what: str, call: Callable[[], _T]) -> _T:
    """Call the user's own code; what it raises is told with the line that did."""
    try:
        return call()
    except Exception as error:
        raise ValueError(f"{what} failed: {_told(error)}") from error


def _told(error: Exception) -> str:
    """The error in one line, with the last place in it that is the user's own."""
    text = " ".join(str(error).split())
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if isinstance(error, SyntaxError):
        return f"{said.split(' (')[0]} ({Path(error.filename or '?').name}, line {error.lineno})"
    here = Path(__file__).parents[1]
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.endswith(".py")]
    own = [f for f in frames if here not in Path(f.filename).parents and "site-packages" not in f.filename]
    own = [f for f in own if "importlib" not in f.filename]
    return f"{said} ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else said


def _form(data: Any) -> str:
    """Whether this is `Data` at all, down to its tensors; what they hold is looked at later."""
    if not isinstance(data, Data):
        return f"must return a motet.problems.Data and returned {type(data).__name__}"
    for name in ("train", "validation", "test"):
        part: Any = getattr(data, name)
        if not isinstance(part, Split):
            return f"has a part {name} that is {type(part).__name__} and no motet.problems.Split"
        inputs: Any = part.inputs
        columns: dict[str, Any] = part.targets  # What a user hands over need not be what the annotations say.
        if not isinstance(inputs, Tensor | Views):
            return f"has inputs of {name} that are {type(inputs).__name__}: make them a tensor (N, …) or Views"
        for task, targets in columns.items():
            if not isinstance(targets, Tensor):
                return f"has targets of {task!r} in {name} that are {type(targets).__name__}: make them a tensor (N,)"
    return ""
