"""What an arm of a study is, and how arms and seeds are written: ``ema+fair-grad:alpha=1@exact``."""

import ast
import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch

from motet import methods, routes
from motet.balancer import Balancer
from motet.study.results import SINGLE, SUM

DEFAULT_ARMS = ("stl", "sum", "si", "uw", "famo", "mgda", "fair-grad")
DEFAULT_SEEDS = 8
"""The fewest with which the five candidates among the default arms can be told from the plain sum."""
_SEEDS = 2**32
"""Seeds lie below: NumPy's and scikit-learn's generators take no more than 32 bits."""


@dataclass(frozen=True)
class Arm:
    """One way of training: single-task models, or one model under a method.

    Attributes:
        label: As it appears in tables and in file names' stems.
        method: Name in the registry; None for single-task models.
        options: Of the method, as (name, value) pairs.
        route: Of the Balancer.
        wrappers: What the method is put into, outermost first, as (name, value) pairs.
    """

    label: str
    method: str | None
    options: tuple[tuple[str, Any], ...] = ()
    route: routes.RouteName = "auto"
    wrappers: tuple[tuple[str, Any], ...] = ()

    def balancer(self, tasks: Sequence[str], seed: int) -> Balancer:
        """A fresh Balancer; the random numbers of a random method come from ``seed``."""
        assert self.method is not None
        options = dict(self.options)
        if any(option.name == "generator" for option in methods.entry(self.method).options):
            options["generator"] = torch.Generator().manual_seed(seed)
        method = methods.get(self.method, **options)
        for name, value in reversed(self.wrappers):
            method = _WRAPPERS[name](method, value)
        return Balancer(method, self.route, tasks=tasks)


# What stands before the options and the route, whose numbers may hold a plus sign.
_HEAD = re.compile("[^:@]*")
# A comma outside brackets.
_COMMA = re.compile(r",(?![^\[(]*[\])])")
_WRAPPERS: dict[str, Callable[[methods.Method, Any], methods.Method]] = {
    "ema": lambda method, value: methods.EMA(method, value),
    "log": lambda method, _: methods.LogLosses(method),
    "every": lambda method, value: methods.Every(value, method),
    "prefer": lambda method, value: methods.Preference(method, value),
}
_WRAPPER_DEFAULTS: dict[str, Any] = {"ema": 0.9, "log": None, "every": 10, "prefer": (1, 1)}


def parse(text: str) -> Arm:
    """Read ``[WRAPPER[=value]+…]METHOD[:option=value,…][@route]``, or ``stl`` for one model a task.

    The wrappers are ``ema=0.9`` (averaged weights), ``log`` (log-losses), ``every=10`` (new weights each tenth step),
    with these values where none is given, and ``prefer=[2,1]`` (losses times a preference, one number a task).

    What is written in several ways gets one label, or it would be trained several times: options that equal their
    default and ``@auto`` are dropped, and the rest stands in the method's own order.

    Raises:
        ValueError: for an unknown method, option or route, with the nearest ones, or a value the method refuses.

    >>> parse("FairGrad:alpha=2.0@auto").label, parse("cagrad:c=1.0").label, parse("EMA+log+mgda").label
    ('fair-grad', 'cagrad:c=1', 'ema=0.9+log+mgda')
    """
    start = len(_HEAD.match(text.strip())[0])  # type: ignore[index]
    *around, last = text.strip()[:start].split("+")
    wrappers = tuple(_wrapper(text, part) for part in around)
    spec, _, route = (last + text.strip()[start:]).partition("@")
    name, _, rest = spec.partition(":")
    if name.lower() in (SINGLE, "single"):
        if rest or route or wrappers:
            raise ValueError(f"arm {text!r}: {SINGLE} takes no options, no wrapper and no route")
        return Arm(SINGLE, None)
    try:
        found = methods.entry(name)
    except ValueError:
        near = difflib.get_close_matches(name.lower(), [SINGLE, *methods.available()], n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "`motet methods` lists what there is"
        raise ValueError(f"there is no arm {text!r}: {hint}") from None
    given = [_option(text, part) for part in _COMMA.split(rest)] if rest else []
    if len(dict(given)) < len(given):
        raise ValueError(f"arm {text!r} gives one option twice: keep one")
    route = "" if route == "auto" else route
    defaults = {option.name: option.default for option in found.options}
    order = list(defaults)
    options = tuple(
        sorted(
            ((key, value) for key, value in given if not _same(value, defaults.get(key, _NEVER))),
            key=lambda item: order.index(item[0]) if item[0] in order else len(order),
        )
    )
    label = "".join(f"{name}={_written(value)}+" if value is not None else f"{name}+" for name, value in wrappers)
    label += found.name + (":" + ",".join(f"{k}={_written(v)}" for k, v in options) if options else "")
    label += f"@{route}" if route else ""
    arm = Arm(label, found.name, options, route or "auto", wrappers)  # type: ignore[arg-type]
    try:
        arm.balancer(("a", "b"), seed=0)
    except (TypeError, ValueError) as error:
        raise ValueError(f"arm {text!r}: {error}") from None
    return arm


def parse_all(texts: Sequence[str]) -> list[Arm]:
    """All arms of a study: single-task and plain sum first, always, and none twice. A string is one arm."""
    texts = [texts] if isinstance(texts, str) else texts
    arms = {arm.label: arm for arm in map(parse, [SINGLE, SUM, *texts])}
    return list(arms.values())


def parse_seeds(seeds: int | Sequence[int]) -> list[int]:
    """Which seeds, from how many or a list of them, each once.

    Raises:
        ValueError: for none, a negative one, or one of more than 32 bits.
    """
    given: Iterable[object] = range(seeds) if _is_whole(seeds) else seeds  # type: ignore[arg-type, assignment]
    if isinstance(given, Iterable) and not isinstance(given, str):
        found = list(dict.fromkeys(int(seed) if _is_whole(seed) else -1 for seed in given))  # type: ignore[call-overload]
        if found and min(found) >= 0 and max(found) < _SEEDS:
            return found
    raise ValueError(
        f"seeds must be a number of at least 1, or a list of whole numbers from 0 to {_SEEDS - 1}, not {seeds!r}"
    )


def _is_whole(value: object) -> bool:
    """NumPy's whole numbers too, and True is none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


_NEVER = object()


def _same(value: object, default: object) -> bool:
    """Equal, where 2 is 2.0 and True is not 1."""
    return value == default and isinstance(value, bool) == isinstance(default, bool)


def _written(value: object) -> str:
    """A number as short as it can be read back: 1 for 1.0."""
    if isinstance(value, tuple):
        return f"[{','.join(map(_written, value))}]"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    short = f"{value:g}"
    return short if float(short) == value else str(value)


def _wrapper(text: str, part: str) -> tuple[str, Any]:
    name, equals, _value = part.strip().lower().partition("=")
    if name not in _WRAPPERS:
        near = difflib.get_close_matches(name, _WRAPPERS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(_WRAPPERS)}"
        raise ValueError(f"arm {text!r}: there is no wrapper {name!r}: {hint}")
    default = _WRAPPER_DEFAULTS[name]
    if not equals and name != "prefer":
        return name, default
    if default is None:
        raise ValueError(f"arm {text!r}: {name} takes no value")
    _, number = _option(text, part if equals else f"{part}=?")
    kinds = tuple if name == "prefer" else int | float
    if isinstance(number, bool) or not isinstance(number, kinds):
        what = "one number a task" if name == "prefer" else "a number"
        raise ValueError(f"arm {text!r}: {name} takes {what}, as in {name}={_written(default)}")
    return name, number


def _option(text: str, part: str) -> tuple[str, Any]:
    key, equals, value = part.partition("=")
    if not equals or not key or not value:
        raise ValueError(f"arm {text!r}: write its options as name=value, separated by commas")
    try:
        found = ast.literal_eval(value.strip())
        return key.strip(), tuple(found) if isinstance(found, list) else found
    except (ValueError, SyntaxError):
        return key.strip(), value.strip()
