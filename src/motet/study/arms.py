"""What an arm of a study is, and how it is written: ``fair-grad:alpha=1@exact``."""

import ast
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from motet import methods, routes
from motet.balancer import Balancer
from motet.study.results import SINGLE, SUM

DEFAULT_ARMS = ("stl", "sum", "si", "uw", "famo", "mgda", "fair-grad")
DEFAULT_SEEDS = 8
"""The fewest with which the five candidates among the default arms can be told from the plain sum."""


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

    Raises:
        ValueError: for an unknown method, option or route, with the nearest ones, or a value the method refuses.
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
    options = tuple(_option(text, part) for part in rest.split(",")) if rest else ()
    label = found.name + (":" + ",".join(f"{k}={v}" for k, v in options) if options else "")
    label += f"@{route}" if route else ""
    arm = Arm(label, found.name, options, route or "auto")  # type: ignore[arg-type]
    try:
        arm.balancer(("a", "b"), seed=0)
    except (TypeError, ValueError) as error:
        raise ValueError(f"arm {text!r}: {error}") from None
    return arm


def parse_all(texts: Sequence[str]) -> list[Arm]:
    """All arms of a study: single-task and plain sum first, always, and none twice."""
    arms = {arm.label: arm for arm in map(parse, [SINGLE, SUM, *texts])}
    return list(arms.values())


def _option(text: str, part: str) -> tuple[str, Any]:
    key, equals, value = part.partition("=")
    if not equals or not key or not value:
        raise ValueError(f"arm {text!r}: write its options as name=value, separated by commas")
    try:
        return key.strip(), ast.literal_eval(value.strip())
    except (ValueError, SyntaxError):
        return key.strip(), value.strip()
