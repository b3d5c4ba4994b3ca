"""What an arm of a study is, and how arms and seeds are written: ``muon+mmoe+ema+fair-grad:alpha=1@exact``."""

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from motet import methods, routes
from motet.balancer import Balancer
from motet.problems.base import Data, Problem, Training
from motet.study import architectures
from motet.study.architectures import HARD, Architecture, is_architecture, read_architecture
from motet.study.networks import Network
from motet.study.optimizers import OPTIONS, PLAIN, Chosen, is_name, read_optimizer
from motet.study.plans import Followed, Grouped, Plan, Repeats, read_grouped, read_repeats
from motet.study.prefixes import refuse_unknown
from motet.study.results import GROUPS, SINGLE, SUM, Run
from motet.study.steppers import BalancedSteps, GroupedSteps, RepeatedSteps, Stepper
from motet.study.tuned import SHARED, Point, Tuned
from motet.study.written import canonical, read_option, read_options, write, write_options

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
        plan: How it updates more than once a batch, or trains longer; None for one update by the method.
        optimizer: What makes steps of its gradients.
        architecture: What is trained.
        searched: Whether the weights of its tasks are chosen by tuning, as those of `sum:tuned` are.
    """

    label: str
    method: str | None
    options: tuple[tuple[str, Any], ...] = ()
    route: routes.RouteName = "auto"
    wrappers: tuple[tuple[str, Any], ...] = ()
    plan: Plan | None = None
    optimizer: Chosen = PLAIN
    architecture: Architecture = HARD
    searched: bool = False

    @property
    def needs_tuning(self) -> bool:
        """Whether it can't be trained before tuning has chosen the weights of its tasks."""
        return self.searched and not self.wrappers

    @property
    def follows(self) -> bool:
        """Whether it takes its number from the `groups` run of the same seed."""
        return self.plan is not None and self.plan.follows

    @property
    def longer(self) -> int:
        """By how much epochs and patience are multiplied."""
        return (self.plan.times or 1) if isinstance(self.plan, Repeats) and self.plan.of == "epochs" else 1

    def settled(self, groups: Run | Followed) -> "Arm":
        """With that number filled in from the `groups` run, under the same label."""
        if self.plan is None:
            return self
        return replace(self, plan=self.plan.settled(Followed.of(groups) if isinstance(groups, Run) else groups))

    def at(self, point: Point) -> "Arm":
        """With the options and the weights of a point of its search space, under the same label."""

        def chosen(name: str, given: tuple[tuple[str, Any], ...]) -> tuple[tuple[str, Any], ...]:
            options = [(key.partition("."), value) for key, value in point.own.items()]
            return (*given, *((option, value) for (owner, _, option), value in options if owner == name))

        found = replace(
            self,
            optimizer=replace(self.optimizer, options=chosen(self.optimizer.name, self.optimizer.options)),
            architecture=replace(self.architecture, options=chosen(self.architecture.name, self.architecture.options)),
            wrappers=(("prefer", point.weights),) if point.weights else self.wrappers,
        )
        if isinstance(self.plan, Grouped):
            return replace(found, plan=replace(self.plan, options=chosen(GROUPS, self.plan.options)))
        return replace(found, options=chosen(self.method, self.options)) if self.method is not None else found

    def tuned(self, found: Tuned, usual: Training) -> tuple["Arm", Training | dict[str, Training]]:
        """The arm, under the same label, and the settings that tuning chose; of single-task models one a task.

        Args:
            usual: The study's own settings, of which tuning changes some.
        """
        training = found.training(usual)
        return (self.at(found.best[SHARED].point) if SHARED in found.best else self), training

    def check(self, tasks: Sequence[str]) -> None:
        """Whether it fits these tasks.

        Raises:
            ValueError: that names the arm.
        """
        try:
            if self.plan is not None:
                self.plan.check(tasks)
        except ValueError as error:
            raise ValueError(f"arm {self.label!r}: {error}") from None

    def model(self, problem: Problem, data: Data, seed: int, training: Training) -> Network:
        """A fresh model; arms of one seed start alike in the parts that they have in common.

        Raises:
            ValueError: that names the arm, if its architecture can't be made for this problem.
        """
        try:
            return self.architecture.model(problem, data, seed, training)
        except ValueError as error:
            raise ValueError(f"arm {self.label!r}: {error}") from None

    def check_model(self, problem: Problem, data: Data, training: Training) -> None:
        """Whether its architecture and optimizer fit this problem.

        Raises:
            ValueError: that names the arm.
        """
        if self.architecture == HARD:
            return
        try:
            self.architecture.check(problem, data, training)
        except ValueError as error:
            raise ValueError(f"arm {self.label!r}: {error}") from None

    def stepper(self, tasks: Sequence[str], seed: int, model: nn.Module, optimizer: Optimizer) -> Stepper:
        """A fresh one; whatever it draws comes from ``seed``."""
        if isinstance(self.plan, Grouped):
            method = _method(self.plan.method, {}, seed)
            return GroupedSteps(self.plan.updates(tasks, optimizer, method, model, seed), method, self.plan.learned)
        if isinstance(self.plan, Repeats) and self.plan.of == "steps":
            return RepeatedSteps(self.plan.times or 1, model, optimizer)
        # `Chosen.make` gave it: those that want the tasks' gradients have a method that takes them.
        wants = getattr(optimizer, "task_gradients") if self.optimizer.wants_tasks else None  # noqa: B009
        return BalancedSteps(self.balancer(tasks, seed, wants), optimizer, several=len(tasks) > 1)

    def balancer(
        self, tasks: Sequence[str], seed: int, on_gradients: Callable[[Tensor, Sequence[Tensor]], None] | None = None
    ) -> Balancer:
        """A fresh Balancer; the random numbers of a random method come from ``seed``."""
        assert self.method is not None
        if self.needs_tuning:
            raise ValueError(f"arm {self.label!r} has no weights yet: they are chosen by tuning, which comes first")
        method = _method(self.method, dict(self.options), seed)
        for name, value in reversed(self.wrappers):
            method = _WRAPPERS[name](method, value)
        return Balancer(method, self.route, tasks=tasks, on_gradients=on_gradients)


# What stands before the options and the route, whose numbers may hold a plus sign.
_HEAD = re.compile("[^:@]*")
_WRAPPERS: dict[str, Callable[[methods.Method, Any], methods.Method]] = {
    "ema": lambda method, value: methods.EMA(method, value),
    "log": lambda method, _: methods.LogLosses(method),
    "every": lambda method, value: methods.Every(value, method),
    "prefer": lambda method, value: methods.Preference(method, value),
}
_WRAPPER_DEFAULTS: dict[str, Any] = {"ema": 0.9, "log": None, "every": 10, "prefer": (1, 1)}


def parse(text: str) -> Arm:
    """Read ``[OPTIMIZER[(option=value,…)]+][ARCHITECTURE[(option=value,…)]+][WRAPPER[=value]+…]METHOD…``.

    METHOD is ``METHOD[:option=value,…][@route]``. ``stl`` is one model a task, which all arms are compared with: it
    always has plain AdamW and the problem's own trunk. The optimizers are those of `motet.study.optimizers.OPTIONS`,
    the architectures those of `motet.study.architectures.OPTIONS`; the two may stand in any order.

    ``groups[:option=value,…]`` updates group by group, with the options of `motet.GroupedUpdates`; its controls are
    ``groups:random=3``, ``groups:fixed=[[0,1],[2]]`` with task numbers from 0, ``sum:steps=3`` (so many updates on
    every batch) and ``sum:epochs=3`` (so many times the epochs). ``groups`` in place of 3, and ``groups:random`` alone,
    take the number of groups of the ``groups`` run of the same seed. ``groups:released`` is the authors' code.

    ``sum:tuned`` is the weighted sum of the losses, whose weights are chosen by tuning.

    The wrappers are ``ema=0.9`` (averaged weights), ``log`` (log-losses), ``every=10`` (new weights each tenth step),
    with these values where none is given, and ``prefer=[2,1]`` (losses times a preference, one number a task).

    What is written in several ways gets one label, or it would be trained several times: options that equal their
    default and ``@auto`` are dropped, and the rest stands in the method's own order.

    Raises:
        ValueError: for an unknown method, option or route, with the nearest ones, or a value the method refuses.

    >>> parse("FairGrad:alpha=2.0@auto").label, parse("cagrad:c=1.0").label, parse("EMA+log+mgda").label
    ('fair-grad', 'cagrad:c=1', 'ema=0.9+log+mgda')
    >>> parse("AdamW(beta=0.9)+sum").label, parse("APT-Muon(rule=A4,preserve=.10)+sum").label
    ('sum', 'apt-muon(reference=momentum,preserve=0.1)+sum')
    >>> parse("MMoE(experts=4)+muon+sum").label, parse("umda(branching=false)+sum").label, parse("hard+sum").label
    ('muon+mmoe(experts=4)+sum', 'umda(branching=False)+sum', 'sum')
    """
    optimizer, spec = read_optimizer(text)
    late = spec == text
    architecture, spec = read_architecture(text, spec)
    if late and spec != text:
        optimizer, spec = read_optimizer(text, spec)
    refuse_unknown(text, spec, {"optimizer": OPTIONS, "architecture": architectures.OPTIONS})
    arm = _parse(text, spec, exact=optimizer.wants_tasks)
    if architecture != HARD:
        _check_architecture(text, arm, architecture)
        arm = replace(arm, label=architecture.label + arm.label, architecture=architecture)
    if optimizer == PLAIN:
        return arm
    _check_optimizer(text, arm, optimizer)
    return replace(arm, label=optimizer.label + arm.label, optimizer=optimizer)


def _parse(text: str, spec: str, exact: bool) -> Arm:
    """What stands behind the optimizer of the arm ``text``; ``exact``: whether this rules out all other routes."""
    start = len(_HEAD.match(spec.strip())[0])  # type: ignore[index]
    *around, last = spec.strip()[:start].split("+")
    wrappers = tuple(_wrapper(text, part) for part in around)
    spec, _, route = (last + spec.strip()[start:]).partition("@")
    if route == "auto" or (exact and route == "exact"):
        route = ""
    name, _, rest = spec.partition(":")
    if name.lower() in (SINGLE, "single"):
        if rest or route or wrappers:
            raise ValueError(f"arm {text!r}: {SINGLE} takes no options, no wrapper and no route")
        return Arm(SINGLE, None)
    if name.lower() == GROUPS:
        if wrappers:
            raise ValueError(f"arm {text!r}: {GROUPS} takes no wrapper; a method within groups is groups:method=NAME")
        label, plan = read_grouped(text, rest, route)
        return Arm(label, SUM, plan=plan)
    try:
        found = methods.entry(name)
    except ValueError:
        near = difflib.get_close_matches(name.lower(), [SINGLE, GROUPS, *methods.available()], n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "`motet methods` lists what there is"
        raise ValueError(f"there is no arm {text!r}: {hint}") from None
    if found.name == SUM and rest.strip().lower() == "tuned":
        if route or wrappers:
            raise ValueError(f"arm {text!r}: the tuned sum takes no wrapper and no route, which would change nothing")
        return Arm(f"{SUM}:tuned", SUM, searched=True)
    if found.name == SUM and (repeats := read_repeats(text, rest)):
        if route or wrappers:
            raise ValueError(f"arm {text!r}: the plain sum with {rest} takes no wrapper and no route")
        return Arm(repeats[0], SUM, plan=repeats[1])
    if exact and route in ("features", "last-layer", "probe", "disjoint"):
        raise ValueError(
            f"arm {text!r}: its optimizer looks at the tasks' gradients of every parameter, which the {route} route "
            "does not have: it needs @exact, so leave the route out; or leave out preserve, or take variant=L3 or L4"
        )
    options = canonical(read_options(text, rest), {option.name: option.default for option in found.options})
    label = "".join(f"{name}={write(value)}+" if value is not None else f"{name}+" for name, value in wrappers)
    label += found.name + (f":{write_options(options)}" if options else "")
    label += f"@{route}" if route else ""
    arm = Arm(label, found.name, options, route or "auto", wrappers)  # type: ignore[arg-type]
    try:
        arm.balancer(("a", "b"), 0, _nobody if exact else None)
    except (TypeError, ValueError) as error:
        raise ValueError(f"arm {text!r}: {error}") from None
    return arm


def _nobody(rows: Tensor, parameters: Sequence[Tensor]) -> None:
    """Takes the tasks' gradients and does nothing."""


def _check_optimizer(text: str, arm: Arm, optimizer: Chosen) -> None:
    """Refuse what this optimizer can't train."""
    why = ""
    if arm.method is None:
        why = (
            f"{SINGLE} is what all arms are compared with, and always has plain AdamW. To see the optimizer's own "
            f"gain, compare {optimizer.label}{SUM} with {SUM}"
        )
    elif arm.follows:
        why = "with another optimizer a control takes a number, as in sum:steps=3, sum:epochs=3 or groups:random=3"
    elif optimizer.name == "ada-task" and arm.label != arm.architecture.label + SUM:
        why = (
            "ada-task takes the tasks' own gradients, whatever a method makes of them: write "
            f"{optimizer.label}{arm.architecture.label}{SUM}"
        )
    elif optimizer.name == "ada-task" and arm.architecture.penalised:
        why = f"ada-task takes tasks' gradients alone, and the penalties of {arm.architecture.name} are no task's"
    elif (
        optimizer.wants_tasks
        and arm.plan is not None
        and not (isinstance(arm.plan, Repeats) and arm.plan.of == "epochs")
    ):
        why = (
            "with several updates a batch no task's gradient is handed to the optimizer: leave preserve out, or take "
            "variant=L3 or variant=L4, which need none"
        )
    if why:
        raise ValueError(f"arm {text!r}: {why}")


def _check_architecture(text: str, arm: Arm, architecture: Architecture) -> None:
    """Refuse what can't be trained with this architecture."""
    why = ""
    if arm.method is None:
        why = (
            f"{SINGLE} is what all arms are compared with, and always has the problem's own trunk. To see the "
            f"architecture's own gain, compare {architecture.label}{SUM} with {SUM}"
        )
    elif arm.follows:
        why = "with another architecture a control takes a number, as in sum:steps=3, sum:epochs=3 or groups:random=3"
    elif architecture.penalised and isinstance(arm.plan, Grouped):
        off = "penalties=false" if architecture.name == "umda" else "entropy=0"
        why = (
            f"{architecture.name} adds penalties to the losses, which are no task's, so that no group's update could "
            f"have them: write {architecture.name}({off})"
        )
    if why:
        raise ValueError(f"arm {text!r}: {why}")


def parse_all(texts: Sequence[str]) -> list[Arm]:
    """All arms of a study: single-task and plain sum first, always, and none twice. A string is one arm."""
    texts = [texts] if isinstance(texts, str) else texts
    if strange := [text for text in texts if not isinstance(text, str)]:
        raise TypeError(f"an arm is text, such as 'ema+fair-grad:alpha=2', and no {type(strange[0]).__name__}")
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


def _method(name: str, options: dict[str, Any], seed: int) -> methods.Method:
    if any(option.name == "generator" for option in methods.entry(name).options):
        options["generator"] = torch.Generator().manual_seed(seed)
    return methods.get(name, **options)


def _is_whole(value: object) -> bool:
    """NumPy's whole numbers too, and True is none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def _wrapper(text: str, part: str) -> tuple[str, Any]:
    name, equals, _value = part.strip().lower().partition("=")
    bare = name.partition("(")[0]
    if is_name(bare) or is_architecture(bare):
        kind = "an optimizer" if is_name(bare) else "an architecture"
        raise ValueError(f"arm {text!r}: {kind} stands before all wrappers: move {part.strip()!r} to the front")
    if name not in _WRAPPERS:
        near = difflib.get_close_matches(bare, [*_WRAPPERS, *OPTIONS, *architectures.OPTIONS], n=1)
        both = f"there are {', '.join(_WRAPPERS)}, the optimizers {', '.join(OPTIONS)}, and the architectures "
        both += ", ".join(architectures.OPTIONS)
        hint = f"did you mean {near[0]!r}?" if near else both
        raise ValueError(f"arm {text!r}: there is no wrapper {name!r}: {hint}")
    default = _WRAPPER_DEFAULTS[name]
    if not equals and name != "prefer":
        return name, default
    if default is None:
        raise ValueError(f"arm {text!r}: {name} takes no value")
    _, number = read_option(text, part if equals else f"{part}=?")
    kinds = tuple if name == "prefer" else int | float
    if isinstance(number, bool) or not isinstance(number, kinds):
        what = "one number a task" if name == "prefer" else "a number"
        raise ValueError(f"arm {text!r}: {name} takes {what}, as in {name}={write(default)}")
    return name, number
