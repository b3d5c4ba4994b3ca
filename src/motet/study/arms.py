"""What an arm of a study is, and how arms and seeds are written: ``fair-grad:alpha=1@exact``."""

import ast
import difflib
from collections.abc import Iterable, Sequence
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
    """

    label: str
    method: str | None
    options: tuple[tuple[str, Any], ...] = ()
    route: routes.RouteName = "auto"

    def balancer(self, tasks: Sequence[str], seed: int) -> Balancer:
        """A fresh Balancer; the random numbers of a random method come from ``seed``."""
        assert self.method is not None
        options = dict(self.options)
        if any(option.name == "generator" for option in methods.entry(self.method).options):
            options["generator"] = torch.Generator().manual_seed(seed)
        return Balancer(methods.get(self.method, **options), self.route, tasks=tasks)


def parse(text: str) -> Arm:
    """Read ``METHOD[:option=value,…][@route]``, or ``stl`` for one model a task.

    What is written in several ways gets one label, or it would be trained several times: options that equal their
    default and ``@auto`` are dropped, and the rest stands in the method's own order.

    Raises:
        ValueError: for an unknown method, option or route, with the nearest ones, or a value the method refuses.

    >>> parse("FairGrad:alpha=2.0@auto").label, parse("cagrad:c=1.0").label
    ('fair-grad', 'cagrad:c=1')
    """
    spec, _, route = text.strip().partition("@")
    name, _, rest = spec.partition(":")
    if name.lower() in (SINGLE, "single"):
        if rest or route:
            raise ValueError(f"arm {text!r}: {SINGLE} takes no options and no route")
        return Arm(SINGLE, None)
    try:
        found = methods.entry(name)
    except ValueError:
        near = difflib.get_close_matches(name.lower(), [SINGLE, *methods.available()], n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "`motet methods` lists what there is"
        raise ValueError(f"there is no arm {text!r}: {hint}") from None
    given = [_option(text, part) for part in rest.split(",")] if rest else []
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
    label = found.name + (":" + ",".join(f"{k}={_written(v)}" for k, v in options) if options else "")
    label += f"@{route}" if route else ""
    arm = Arm(label, found.name, options, route or "auto")  # type: ignore[arg-type]
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
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    short = f"{value:g}"
    return short if float(short) == value else str(value)


def _option(text: str, part: str) -> tuple[str, Any]:
    key, equals, value = part.partition("=")
    if not equals or not key or not value:
        raise ValueError(f"arm {text!r}: write its options as name=value, separated by commas")
    try:
        return key.strip(), ast.literal_eval(value.strip())
    except (ValueError, SyntaxError):
        return key.strip(), value.strip()
