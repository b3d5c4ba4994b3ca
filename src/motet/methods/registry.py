"""Names, references, costs and options of all methods. The CLI's help and the docs' table are made from here."""

import difflib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    from motet.methods.base import Method

Cost = Literal["losses", "extra-forward", "gram", "jacobian"]
"""What a step costs beyond the plain sum's: nothing (``losses``), one more forward pass
(``extra-forward``), the K×K Gram matrix of the tasks' gradients (``gram``), or the gradients themselves
(``jacobian``)."""

_M = TypeVar("_M", bound="Method")
_REGISTRY: dict[str, "Entry"] = {}


@dataclass(frozen=True)
class Option:
    """An argument of a method's constructor."""

    name: str
    default: Any
    help: str


@dataclass(frozen=True)
class Entry:
    """What the registry knows of a method."""

    name: str
    cls: type["Method"]
    year: int
    cost: Cost
    title: str
    reference: str
    summary: str
    options: tuple[Option, ...]


def register(name: str, *, year: int, cost: Cost) -> Callable[[type[_M]], type[_M]]:
    """Enter a method under its usual name in kebab-case.

    The rest is read off the source, so that it is said once: title and reference from the first line of
    the module's docstring ("Title: reference."), the summary from the class's, the options from the
    constructor's signature and its ``Args:`` section.

    Raises:
        ValueError: if the name is taken, or the module's docstring has no reference.
    """

    def enter(cls: type[_M]) -> type[_M]:
        if name in _REGISTRY:
            raise ValueError(f"the method name {name!r} is taken by {_REGISTRY[name].cls.__name__}")
        heading = (sys.modules[cls.__module__].__doc__ or "").strip().splitlines() or [""]
        title, _, reference = heading[0].partition(": ")
        if not reference:
            raise ValueError(f"{cls.__module__} must open with a docstring 'Title: reference.'")
        summary = (inspect.getdoc(cls) or "").splitlines()[0]
        _REGISTRY[name] = Entry(name, cls, year, cost, title, reference.rstrip("."), summary, _options(cls))
        return cls

    return enter


def available() -> list[str]:
    """The names of all methods, in the order of the registry."""
    return list(_REGISTRY)


def entry(name: str) -> Entry:
    """Look a method up; case, hyphens and underscores do not matter.

    Raises:
        ValueError: for an unknown name, with the nearest ones.
    """
    wanted = _plain(name)
    for known, found in _REGISTRY.items():
        if _plain(known) == wanted:
            return found
    if _plain(name) in ("ema", "log", "loglosses", "every", "prefer", "preference"):
        raise ValueError(
            f"{name!r} goes around a method and is none itself: write an arm as in log+mgda, every=10+upgrad"
        )
    if set(name) & set("+:@=()"):
        raise ValueError(
            f"{name!r} is written as an arm of a study; in code it is made of objects and arguments, as in "
            "motet.Balancer(motet.methods.EMA(motet.methods.FairGrad(alpha=2.0)), route='exact')"
        )
    near = difflib.get_close_matches(name.lower(), _REGISTRY, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "`motet methods` lists them"
    raise ValueError(f"there is no method {name!r}: {hint}")


def get(name: str, **options: Any) -> "Method":
    """Make a method by name: ``get("fair-grad", alpha=2.0)``.

    Raises:
        ValueError: for an unknown name or option.
    """
    found = entry(name)
    known = [option.name for option in found.options]
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(map(repr, known)) or 'none'}"
            raise ValueError(f"{found.name} has no option {option!r}: {hint}")
    return found.cls(**options)


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def _options(cls: type) -> tuple[Option, ...]:
    if "__init__" not in vars(cls):
        return ()
    helps = _arguments(inspect.getdoc(cls) or "")
    parameters = list(inspect.signature(cls).parameters.values())
    return tuple(Option(p.name, p.default, helps.get(p.name, "")) for p in parameters)


def _arguments(doc: str) -> dict[str, str]:
    """The ``Args:`` section of a docstring as {name: text}."""
    helps: dict[str, str] = {}
    current: str | None = None
    inside = False
    for line in doc.splitlines():
        if line.strip() == "Args:":
            inside = True
        elif inside and line and not line.startswith(" "):
            break
        elif inside and line.startswith("    ") and not line.startswith("     "):
            current, _, text = line.strip().partition(": ")
            helps[current] = text
        elif inside and current is not None and line.strip():
            helps[current] += " " + line.strip()
    return helps
