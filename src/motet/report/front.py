"""The report's section on trade-offs: whether an arm gains in one task what it loses in another."""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from motet.pareto import nondominated
from motet.problems.base import Task
from motet.report import numbers
from motet.report.figures.front import arms_front
from motet.report.svg import inline
from motet.study.results import SINGLE, ArmSummary, Summary

_PAIRS = 3
_FEWEST = 4
"""Shared arms that it takes to say that two tasks pull apart."""


def section(summary: Summary, tasks: Sequence[Task]) -> dict[str, Any] | None:
    """Plain values for the template; None where no pair of tasks has anything to show."""
    names = [task.name for task in tasks if summary.baseline.get(task.name, 0.0)]
    arms = [arm for arm in summary.arms if arm.arm != SINGLE and not arm.left_out]
    whole = [arm for arm in arms if _known(arm, names)]
    if len(names) < 2 or len(whole) < 2:
        return None
    pairs = [(names[0], names[1])] if len(names) == 2 else _apart(whole, names)
    if not pairs:
        return None
    best = nondominated([[arm.per_task[name].mean for name in names] for arm in whole]).tolist()
    labels = [arm.arm for arm in whole]
    return {
        "all": len(names) == 2,
        "front": [name for name, good in zip(labels, best, strict=True) if good],
        "dominated": [name for name, good in zip(labels, best, strict=True) if not good],
        "figures": [
            inline(arms_front(summary, a, b), f"front-{i}", f"Trade-off of {a} and {b}", _words(arms, a, b))
            for i, (a, b) in enumerate(pairs)
        ],
    }


def _known(arm: ArmSummary, names: Sequence[str]) -> bool:
    return all(name in arm.per_task and math.isfinite(arm.per_task[name].mean) for name in names)


def _apart(arms: Sequence[ArmSummary], names: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs whose changes over arms are ordered most against each other, no task twice."""
    if len(arms) < _FEWEST:
        return []
    ranks = np.array([[arm.per_task[name].mean for name in names] for arm in arms]).argsort(0).argsort(0)
    against = np.atleast_2d(np.corrcoef(ranks.T))
    found: list[tuple[str, str]] = []
    for i, j in sorted(combinations(range(len(names)), 2), key=lambda pair: against[pair]):
        taken = {name for pair in found for name in pair}
        if against[i, j] < 0 and not taken & {names[i], names[j]} and len(found) < _PAIRS:
            found.append((names[i], names[j]))
    return found


def _words(arms: Sequence[ArmSummary], first: str, second: str) -> str:
    parts = [
        f"{arm.arm}: {numbers.change(arm.per_task[first].mean)} and {numbers.change(arm.per_task[second].mean)}"
        for arm in arms
        if _known(arm, (first, second))
    ]
    return "; ".join(parts)
