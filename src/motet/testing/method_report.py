"""What a method was seen to do: step length, scale and conflict."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from motet.methods import Method
from motet.testing.steps import TASKS, WIDTH, conflicting, difference, normal, scaled_losses, some_losses, step

_SEEDS = range(25)


@dataclass(frozen=True)
class MethodReport:
    """What a method's first step did on fifty fixed inputs of five tasks. Measured: no promise."""

    length_agreeing: float
    """|d| over the length of the mean gradient where gradients agree: the median. The plain sum has 5."""
    length_conflicting: float
    """The same where they conflict. Methods that differ here need learning rates that differ as much."""
    scale_exponent: float | None
    """e, where all losses times c give cᵉ times the update; None where it changes in another way."""
    worst_cosine: float
    """The least cosine between an update and a task's gradient. Below zero that task's loss rises."""

    @property
    def never_conflicted(self) -> bool:
        """Whether no update went against a task's gradient, to rounding."""
        return self.worst_cosine >= -1e-6


def measure(fresh: Callable[[], Method]) -> MethodReport:
    """Let new copies of a method make one step each on agreeing and on conflicting gradients."""
    lengths: list[list[float]] = []
    exponents, cosines, turned = [], [], 0.0
    agree = [normal(TASKS, WIDTH, seed=seed).abs() for seed in _SEEDS]
    for kind in (agree, [conflicting(seed=seed) for seed in _SEEDS]):
        lengths.append([])
        for seed, rows in zip(_SEEDS, kind, strict=True):
            method = fresh()
            losses = some_losses(method, seed=seed)
            update, *scaled = (step(fresh(), scaled_losses(method, losses, c), rows * c) for c in (1.0, 10.0, 100.0))
            length = update.norm().clamp(min=1e-300)
            lengths[-1].append(float(length / rows.mean(0).norm()))
            cosines.append(float((rows @ update / rows.norm(dim=1) / length).min()))
            for power, other in enumerate(scaled, start=1):
                exponents.append(float((other.norm() / length).log10()) / power)
                turned = max(turned, difference(other / other.norm(), update / length))
    steady = max(exponents) - min(exponents) < 1e-3 and turned < 1e-5
    agreeing, clashing = (float(torch.tensor(values).median()) for values in lengths)
    return MethodReport(agreeing, clashing, round(exponents[0], 3) + 0.0 if steady else None, min(cosines))
