"""The search space of tuning, and its points: fixed before anything is trained, and the same for every arm.

The points are those of one scrambled Sobol sequence with a fixed seed, so trial 7 of every arm has the same learning
rate, weight decay and dropout. They do not depend on results, on the number of workers or on their order, and a search
that was interrupted goes on to the same end. A sampler that learns from finished trials, as TPE does, has none of these
properties: what it proposes depends on which trial of which worker ended first, and it would search better for the
arms whose scores happen to be smooth. For a few dozen trials in a few dimensions it has little to gain.

Weights of many tasks are the exception, since no fixed set of points covers a simplex of more than a few dimensions:
beyond `FEW` tasks `sum:tuned` is searched by a population, as Royer et al., NeurIPS 2023, arXiv 2310.08910, do; here in
generations that are complete before the next one begins, so that it is as reproducible as the rest.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from scipy.special import ndtri
from scipy.stats import qmc

from motet.problems.base import Training
from motet.study.arms import Arm
from motet.study.optimizers import OPTIONS
from motet.study.plans import Grouped
from motet.study.results import GROUPS, Tuning
from motet.study.tuned import Point

FEW = 5
"""Up to so many tasks their weights are points of the same sequence; of more they are a population."""
SPREAD = math.log(10) / 2
"""Standard deviation of the weights' logarithms: 95 % of them lie within a factor of 10 of their geometric mean."""

_SEED = 20_240
_DIMENSIONS = 16
"""Of the sequence, of which an arm uses the first few: the common ones are then the same for all arms."""


@dataclass(frozen=True)
class Range:
    """All numbers from ``low`` to ``high``, uniform in the logarithm, or in the number itself."""

    low: float
    high: float
    log: bool = True

    def at(self, u: float) -> float:
        """The number at a share u of the way."""
        if self.log:
            found = math.exp(math.log(self.low) + u * (math.log(self.high) - math.log(self.low)))
        else:
            found = self.low + u * (self.high - self.low)
        return min(max(found, self.low), self.high)  # Rounding may lead out of it.

    def including(self, value: float) -> "Range":
        """The same range, or one that just holds the value too."""
        return replace(self, low=min(self.low, value), high=max(self.high, value))


@dataclass(frozen=True)
class Values:
    """One of these, all as likely."""

    values: tuple[Any, ...]

    def at(self, u: float) -> Any:
        """The value at a share u of the way."""
        return self.values[min(int(u * len(self.values)), len(self.values) - 1)]

    def including(self, value: Any) -> "Values":
        """These, and this one too."""
        return self if value in self.values else replace(self, values=(value, *self.values))


OWN: dict[str, dict[str, Range | Values]] = {
    "fair-grad": {"alpha": Range(0.5, 8.0)},
    "cagrad": {"c": Range(0.1, 0.9, log=False)},
    "conic-grad": {"c": Range(0.1, 0.9, log=False)},
    "famo": {"gamma": Range(2.5e-4, 4e-3)},
    "dwa": {"temperature": Range(0.5, 8.0)},
    "stch": {"mu": Range(0.25, 4.0)},
    "grad-norm": {"alpha": Range(0.375, 6.0)},
    "db-mtl": {"beta": Values((0.0, 0.5, 0.9))},
    "apt-adamw": {"beta_min": Values((0.1, 0.3, 0.5, 0.7))},
    "apt-muon": {"beta_min": Values((0.1, 0.3, 0.5, 0.7))},
    "umda": {"rank": Values((4, 8, 16))},
    GROUPS: {"decay": Range(2.5e-4, 4e-3)},
}
"""What an arm has to tune beside the common space: the one option that says how far its method goes.

Fractions are searched over most of their range, positive numbers a factor of 4 either way of the default; what a
method does not name here stays at its default, and so do options that were written into the arm. Wrappers always stand
in an arm's name with their number, and are never searched. Muon needs no learning rates of its own: `muon_for` scales
its updates to the size of AdamW's.
"""


def own_of(arm: Arm) -> dict[str, Range | Values]:
    """What is searched of an arm's own options, as ``name.option``."""
    parts: list[tuple[str, tuple[tuple[str, Any], ...]]] = [
        (arm.optimizer.name, arm.optimizer.options),
        (arm.architecture.name, arm.architecture.options),
    ]
    if isinstance(arm.plan, Grouped) and arm.plan.kind == "learned":
        parts.append((GROUPS, arm.plan.options))
    elif arm.plan is None and arm.method is not None:
        parts.append((arm.method, arm.options))
    found = {
        f"{name}.{option}": space
        for name, given in parts
        for option, space in OWN.get(name, {}).items()
        if option not in dict(given)
    }
    for key, space in found.items():
        if key.endswith(".beta_min") and isinstance(space, Values):
            # β never adapts above the arm's own β, its upper end.
            highest = (OPTIONS[arm.optimizer.name] | dict(arm.optimizer.options))["beta"]
            found[key] = Values(tuple(value for value in space.values if value <= highest) or (highest,))
    return found


def default_of(key: str) -> Any:
    """What an own option is where it is not searched, as the arm itself has it."""
    from motet import methods
    from motet.study import architectures, plans

    name, _, option = key.partition(".")
    for known in (OPTIONS, architectures.OPTIONS):
        if name in known:
            return known[name][option]
    if name == GROUPS:
        return plans.defaults()[option]
    return next(known.default for known in methods.entry(name).options if known.name == option)


@dataclass(frozen=True)
class Space:
    """The points of one arm.

    Args:
        arm: Which.
        training: The study's own settings: those of trial 0.
        tuning: The common space, and how many trials there are.
        tasks: Names of all tasks.
    """

    arm: Arm
    training: Training
    tuning: Tuning
    tasks: tuple[str, ...]

    @property
    def generation(self) -> int:
        """So many trials are never pruned, but the measure of all later ones; a population is as large."""
        return min(self.tuning.trials, max(4, self.tuning.trials // 4))

    @property
    def ranges(self) -> dict[str, Range | Values]:
        """All that is searched, by name, wide enough for the settings of trial 0."""
        t, own_rate = self.training, self.arm.optimizer.learning_rate
        found: dict[str, Range | Values] = {}
        if own_rate is None:
            found["learning_rate"] = Range(*self.tuning.learning_rate).including(t.learning_rate)
        found["weight_decay"] = Values(self.tuning.weight_decay).including(t.weight_decay)
        found["dropout"] = Values(self.tuning.dropout).including(t.dropout)
        found |= {key: space.including(default_of(key)) for key, space in own_of(self.arm).items()}
        if self.arm.searched:
            found |= {f"weight.{task}": Range(1e-6, float(len(self.tasks))) for task in self.tasks}
        return found

    def params(self, point: Point) -> dict[str, Any]:
        """A point by the names of `ranges`."""
        found = {name: getattr(point, name) for name in ("learning_rate", "weight_decay", "dropout")} | point.own
        found |= {f"weight.{task}": weight for task, weight in zip(self.tasks, point.weights, strict=False)}
        return {name: found[name] for name in self.ranges}

    def points(self, scores: Mapping[int, float]) -> list[Point]:
        """The points that are known: all of them, or one generation more than has its scores, by trial number."""
        searched, few = self.arm.searched, len(self.tasks) <= FEW
        weights: list[tuple[float, ...]] = [()] * self.tuning.trials
        if searched and few:
            weights = [self._sobol_weights(trial) for trial in range(self.tuning.trials)]
        elif searched:
            weights = self._population(scores)
        return [self._point(trial, chosen) for trial, chosen in enumerate(weights)]

    def _point(self, trial: int, weights: tuple[float, ...]) -> Point:
        own, own_rate = own_of(self.arm), self.arm.optimizer.learning_rate
        if trial == 0:
            t = self.training
            rate, decay, dropout = t.learning_rate, t.weight_decay, t.dropout
            options = {key: default_of(key) for key in own}
        else:
            u = self._sequence(trial)
            rate = Range(*self.tuning.learning_rate).at(u[0])
            decay, dropout = Values(self.tuning.weight_decay).at(u[1]), Values(self.tuning.dropout).at(u[2])
            options = {key: space.at(share) for (key, space), share in zip(own.items(), u[3:], strict=False)}
        return Point(rate if own_rate is None else own_rate, decay, dropout, options, weights)

    def _sequence(self, trial: int) -> list[float]:
        return _sobol(math.ceil(math.log2(max(self.tuning.trials, 2))))[trial - 1]

    def _sobol_weights(self, trial: int) -> tuple[float, ...]:
        if trial == 0:
            return (1.0,) * len(self.tasks)
        start = 3 + len(own_of(self.arm))
        return _on_simplex(SPREAD * ndtri(np.array(self._sequence(trial)[start : start + len(self.tasks)])))

    def _population(self, scores: Mapping[int, float]) -> list[tuple[float, ...]]:
        """Equal weights and weights around them; then, generation by generation, weights around the best so far."""
        size, tasks, found = self.generation, len(self.tasks), [(1.0,) * len(self.tasks)]
        while len(found) < self.tuning.trials:
            trial = len(found)
            age = trial // size
            if any(other not in scores for other in range(age * size)):
                break
            step = np.random.default_rng((_SEED, trial)).normal(size=tasks)
            if age == 0:
                found.append(_on_simplex(SPREAD * step))
                continue
            ranked = sorted(range(age * size), key=lambda other: (-scores[other], other))
            parent = ranked[: max(1, size // 2)][trial % max(1, size // 2)]
            found.append(_on_simplex(np.log(found[parent]) + SPREAD * 0.5**age * step))
        return found


def _on_simplex(logarithms: Any) -> tuple[float, ...]:
    """Positive weights with a mean of 1; none so small that its task would not be learnt."""
    weights = np.exp(logarithms - logarithms.max()).clip(1e-3)
    return tuple(float(weight) for weight in weights / weights.mean())


@cache
def _sobol(power: int) -> list[list[float]]:
    """2ᵖ points in [0, 1); the first ones of a longer sequence are those of a shorter one."""
    inside: list[list[float]] = qmc.Sobol(_DIMENSIONS, scramble=True, seed=_SEED).random_base2(power).tolist()
    return [[min(max(u, 1e-9), 1 - 1e-9) for u in row] for row in inside]


def checked(tuning: Tuning) -> Tuning:
    """The same, if it can be searched.

    Raises:
        ValueError: that names the option and its range.
    """
    low, high = tuning.learning_rate
    wrong = ""
    if tuning.trials < 1:
        wrong = f"trials must be at least 1, not {tuning.trials}"
    elif tuning.epochs < 1:
        wrong = f"epochs must be at least 1, not {tuning.epochs}"
    elif not 0 < low <= high < math.inf:
        wrong = f"learning_rate must be a range of positive numbers, the least first, not {low:g} to {high:g}"
    elif not _all(tuning.weight_decay, 0, math.inf):
        wrong = f"weight_decay must be values of at least 0, not {list(tuning.weight_decay)}"
    elif not _all(tuning.dropout, 0, 1):
        wrong = f"dropout must be values in [0, 1), not {list(tuning.dropout)}"
    if wrong:
        raise ValueError(f"tuning: {wrong}")
    return tuning


def _all(values: Sequence[float], low: float, high: float) -> bool:
    return len(values) > 0 and all(low <= value < high for value in values)
