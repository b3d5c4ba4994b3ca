"""Arms that update more than once a batch, or train longer: groups of tasks, and the controls of these."""

import difflib
import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer

from motet import methods
from motet.grouping.partition import partition
from motet.grouping.updates import GroupedUpdates
from motet.routes import RouteName
from motet.study.results import GROUPS, SUM, Run
from motet.study.written import canonical, read_options, write, write_options

_OBJECTS = ("tasks", "optimizer", "shared", "nonfinite", "scaler", "before_step", "model", "seed", "route")
"""Arguments that are the study's own, or an arm writes behind its @."""


@dataclass(frozen=True)
class Followed:
    """What controls take over from a `groups` run: optimizer steps on a batch over its whole training, and the groups
    updated in a batch after its warm-up; rounded means, 1 where it broke down at once."""

    steps: int
    groups: int

    @staticmethod
    def of(run: Run) -> "Followed":
        """Of a finished run."""
        mean = run.groups.mean if run.groups is not None else math.nan
        steps = max(1, round(run.cost.updates / run.cost.steps)) if run.cost.steps else 1
        return Followed(steps, max(1, round(mean)) if math.isfinite(mean) else 1)


@dataclass(frozen=True)
class Repeats:
    """The plain sum with ``times`` optimizer steps on every batch, or ``times`` the epochs; None: as many as the
    `groups` run of the same seed made on a batch, the rounded mean over its whole training, warm-up and all."""

    of: Literal["steps", "epochs"]
    times: int | None

    @property
    def follows(self) -> bool:
        """Whether it must be trained after `groups`."""
        return self.times is None

    def settled(self, groups: Followed) -> "Repeats":
        """With its number filled in."""
        return replace(self, times=groups.steps) if self.follows else self

    def check(self, tasks: Sequence[str]) -> None:
        """Any tasks will do."""


@dataclass(frozen=True)
class Grouped:
    """`GroupedUpdates` with these options.

    Attributes:
        kind: "learned" by affinity, "released" as the authors' code does it, "fixed" or "random".
        options: Of `GroupedUpdates`, as (name, value) pairs.
        groups: Task numbers of a fixed partition.
        number: Of random groups; None: as many as the `groups` run of the same seed had, the rounded mean after its
            warm-up.
    """

    kind: Literal["learned", "released", "fixed", "random"]
    options: tuple[tuple[str, Any], ...] = ()
    groups: tuple[tuple[int, ...], ...] = ()
    number: int | None = None
    route: RouteName = "auto"

    @property
    def follows(self) -> bool:
        """Whether it must be trained after `groups`."""
        return self.kind == "random" and self.number is None

    @property
    def learned(self) -> bool:
        """Whether its groups come from what it measures, once it has measured enough."""
        grouping = dict(self.options).get("grouping", "correlation")
        return self.kind in ("learned", "released") and grouping in ("correlation", "affinity-propagation")

    @property
    def method(self) -> str:
        """Name of what combines the tasks of a group."""
        return str(dict(self.options).get("method", SUM))

    def settled(self, groups: Followed) -> "Grouped":
        """With its number filled in."""
        return replace(self, number=groups.groups) if self.follows else self

    def check(self, tasks: Sequence[str]) -> None:
        """Whether the groups are those of these tasks.

        Raises:
            ValueError: that names the tasks.
        """
        if self.kind == "fixed" and sorted(task for group in self.groups for task in group) != list(range(len(tasks))):
            numbered = ", ".join(f"{i} {task}" for i, task in enumerate(tasks))
            raise ValueError(f"fixed={write(self.groups)} must hold each task's number exactly once: {numbered}")
        if self.number is not None and self.number > len(tasks):
            raise ValueError(f"random={self.number} is more groups than there are tasks ({len(tasks)})")

    def updates(
        self,
        tasks: Sequence[str],
        optimizer: Optimizer,
        method: methods.Method,
        model: nn.Module | None = None,
        seed: int = 0,
    ) -> GroupedUpdates:
        """What updates the tasks group by group; order, exploration and random groups come from ``seed``."""
        options: dict[str, Any] = dict(self.options)
        options |= {"method": method, "route": self.route, "model": model, "seed": seed}
        if self.kind == "released":
            return GroupedUpdates.released(tasks, optimizer, **options)
        if self.kind == "fixed":
            options["grouping"] = [list(group) for group in self.groups]
        if self.kind == "random":
            # Drawn here and once: `GroupedUpdates` itself would draw anew at each regrouping.
            count = min(self.number or 1, len(tasks))
            zeros = torch.zeros(len(tasks), len(tasks), dtype=torch.float64)
            options["grouping"] = partition(zeros, "random", max_groups=count, seed=seed)
        return GroupedUpdates(tasks, optimizer, **options)


Plan = Repeats | Grouped


def read_repeats(text: str, rest: str) -> tuple[str, Repeats | None] | None:
    """The label and plan of ``sum:steps=3`` or ``sum:epochs=groups``; None where it is neither. Once is the sum."""
    given = read_options(text, rest)
    names = [name for name in ("steps", "epochs") if name in given]
    if not names:
        return None
    if len(given) > 1:
        raise ValueError(f"arm {text!r}: {names[0]} stands alone, without another option")
    name, value = names[0], given[names[0]]
    times = _number(text, name, value)
    if times == 1:
        return SUM, None
    of: Literal["steps", "epochs"] = "steps" if name == "steps" else "epochs"
    return f"{SUM}:{name}={GROUPS if times is None else times}", Repeats(of, times)


def read_grouped(text: str, rest: str, route: str) -> tuple[str, Grouped]:
    """The label and plan of ``groups`` and what may stand behind it.

    Raises:
        ValueError: for an option that there is not, with the nearest ones, or a value that is refused.
    """
    first, _, more = rest.partition(",")
    bare = first.strip().lower()
    if bare and "=" not in bare:
        _check_bare(text, bare)
    kind: Literal["learned", "released", "fixed", "random"] = "learned"
    if bare in ("released", "random"):
        kind, rest = ("released" if bare == "released" else "random"), more
    late = [word for word in map(str.strip, more.lower().split(",")) if word in ("released", "random")]
    given = {} if late else read_options(text, rest)
    chosen = [bare] if kind != "learned" else []
    chosen += [name for name in (first.partition("=")[0].strip(), *given) if name in ("fixed", "random")] + late
    if len(chosen := list(dict.fromkeys(chosen))) > 1:
        raise ValueError(f"arm {text!r}: {' and '.join(chosen)} are different ways to group: keep one")
    if late:
        raise ValueError(f"arm {text!r}: {late[0]} stands first, as in groups:{late[0]},decay=0.1")
    groups: tuple[tuple[int, ...], ...] = ()
    number = None
    if kind == "learned" and "fixed" in given:
        kind, groups = "fixed", _partition(text, given.pop("fixed"))
    elif kind == "learned" and "random" in given:
        kind, number = "random", _number(text, "random", given.pop("random"))
    if isinstance(name := given.get("method"), str):
        try:
            given["method"] = methods.entry(name).name
        except ValueError as error:
            raise ValueError(f"arm {text!r}: {error}") from None
    options = canonical(given, {} if kind == "released" else defaults())
    _check_options(text, kind, dict(options))
    head = {
        "learned": [],
        "released": ["released"],
        "fixed": [f"fixed={write(groups)}"],
        "random": ["random" if number is None else f"random={number}"],
    }[kind]
    written = ",".join(head + ([write_options(options)] if options else []))
    label = GROUPS + (f":{written}" if written else "") + (f"@{route}" if route else "")
    plan = Grouped(kind, options, groups, number, route or "auto")  # type: ignore[arg-type]
    # Two tasks on one parameter: every value is looked at before anything is trained.
    trial = replace(plan, groups=((0, 1),)) if kind == "fixed" else plan
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))])
    try:
        trial.updates(("a", "b"), optimizer, methods.get(plan.method))
    except (TypeError, ValueError) as error:
        raise ValueError(f"arm {text!r}: {error}") from None
    return label, plan


def defaults() -> dict[str, Any]:
    """Options of `GroupedUpdates` that an arm may write, with their defaults."""
    parameters = inspect.signature(GroupedUpdates).parameters
    return {name: parameter.default for name, parameter in parameters.items() if name not in _OBJECTS}


def _check_bare(text: str, word: str) -> None:
    """Whether what stands alone behind ``groups:`` is a way to group."""
    kinds = ("released", "random", "fixed")
    if word == "fixed":
        _partition(text, None)
    if word not in kinds:
        near = difflib.get_close_matches(word, kinds, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "write its options as name=value, separated by commas"
        raise ValueError(f"arm {text!r}: {word!r} is no way to group: {hint}")


def _check_options(text: str, kind: str, options: dict[str, Any]) -> None:
    known = list(defaults())
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, [*known, "fixed", "random", "released"], n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            raise ValueError(f"arm {text!r}: {GROUPS} has no option {option!r}: {hint}")
    grouping = options.get("grouping")
    if kind in ("fixed", "random") and {"grouping", "max_groups"} & options.keys():
        raise ValueError(f"arm {text!r}: {kind} is a grouping itself: leave grouping and max_groups out")
    if grouping == "random":
        raise ValueError(f"arm {text!r}: write groups:random=3 for three groups drawn at random")
    if isinstance(grouping, tuple):
        raise ValueError(f"arm {text!r}: write groups:fixed={write(grouping)}")


def _number(text: str, name: str, value: object) -> int | None:
    """None for "groups"."""
    if value == GROUPS:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"arm {text!r}: {name} is a whole number of at least 1, or {GROUPS!r}, not {value!r}")
    return value


def _partition(text: str, value: object) -> tuple[tuple[int, ...], ...]:
    wrong = ValueError(f"arm {text!r}: fixed is a list of groups of task numbers from 0, as in fixed=[[0,1],[2]]")
    if not isinstance(value, tuple) or not value or not all(isinstance(group, tuple) and group for group in value):
        raise wrong
    numbers = [task for group in value for task in group]
    if not all(isinstance(task, int) and not isinstance(task, bool) for task in numbers):
        raise wrong
    if sorted(numbers) != list(range(len(numbers))):
        raise wrong
    return tuple(sorted(tuple(sorted(group)) for group in value))
