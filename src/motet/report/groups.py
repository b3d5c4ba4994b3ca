"""The report's section on groups: what was grouped, what helped what, and whether a gain is the grouping's."""

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from motet.report import numbers
from motet.report.figures.groups import affinity_map, group_timeline
from motet.report.svg import inline
from motet.study.controls import corrected, nothing_random, sentences, unlearnt
from motet.study.results import SUM, ArmSummary, Groups, Run, Summary
from motet.study.roles import EXPLAINED, Role, role

_BREAKS = re.compile("([:,=+])")
_BETWEEN = 3
"""From so many seeds on, standard errors are those between seeds."""
_OF_CONTROLS: dict[Role, str] = {
    "steps": "makes {steps} on the same batches, for the plain sum: a whole number of steps a batch, so not exactly as "
    "many. If it does as well, the additional steps bring the gain.",
    "epochs": "makes {steps} in further epochs of the plain sum: a whole number of times the epochs, so not exactly as "
    "many. If it does as well, training longer brings the gain.",
    "random": "has {groups} a batch, drawn at random and kept. If it does as well, it does not matter which tasks "
    "share a group.",
    "fixed": "has {groups} a batch, the same from the first batch to the last. If it does as well, measuring and "
    "regrouping while training add nothing.",
}
"""What each control takes away, for the reader."""
_ORDER: list[Role | None] = [None, "groups", *_OF_CONTROLS]
_RELEASED = "one update a group of tasks, as the method's authors released it"


def section(summary: Summary, runs: Sequence[Run]) -> dict[str, Any] | None:
    """Plain values for the template; None where no arm updates group by group."""
    of_arm: dict[str, list[Groups]] = {}
    for run in runs:
        if run.groups is not None:
            of_arm.setdefault(run.arm, []).append(run.groups)
    if not of_arm:
        return None
    learned = [arm for arm in of_arm if role(arm) == "groups"]
    rows = [arm for arm in summary.arms if arm.arm == SUM or arm.arm in of_arm or role(arm.arm)]
    rows.sort(key=lambda arm: _ORDER.index(role(arm.arm)))  # sort is stable: within a kind as in the other tables
    arms = {arm.arm: arm for arm in summary.arms}
    held = [arms[name] for name in learned if name in arms and not unlearnt(arms[name])]
    seeds = {arm: [run.seed for run in runs if run.arm == arm and run.groups is not None] for arm in of_arm}
    return {
        "learned": learned,
        "rows": [_row(arm, learned, summary) for arm in rows],
        "sentences": list(sentences(summary).values()),
        "controls": [(arm.arm, words) for arm in rows if (words := _purpose(arm, held))],
        "figures": [
            figure
            for i, arm in enumerate([arm for arm in of_arm if role(arm) in ("groups", None)] or of_arm)
            for figure in (_timeline(arm, seeds[arm][0], of_arm[arm][0], i), _affinity(arm, of_arm[arm], i))
        ],
        "seeds": max(len(found) for found in seeds.values()),
        "between": _BETWEEN,
    }


def explained(arms: Sequence[ArmSummary]) -> dict[str, str]:
    """{arm: what it is} for those that have to do with groups."""
    found = {arm.arm: EXPLAINED[kind] for arm in arms if (kind := role(arm.arm))}
    return {arm: _RELEASED if arm.startswith("groups:released") else words for arm, words in found.items()}


def soft(name: str) -> Markup:
    """An arm's label that may break behind its punctuation."""
    return Markup(_BREAKS.sub(r"\1<wbr>", str(escape(name))))


def _row(arm: ArmSummary, learned: Sequence[str], summary: Summary) -> dict[str, Any]:
    """Without comparisons that an arm which learnt no groups can't be held to."""
    barren = {row.arm for row in summary.arms if unlearnt(row)}
    found = {c.arm: c for c in corrected(summary) if c.control == arm.arm}
    kept = {name: c for name, c in found.items() if name not in barren or c.control == SUM}
    return {"arm": arm, "against": [kept.get(other) for other in learned]}


def _purpose(arm: ArmSummary, learned: Sequence[ArmSummary]) -> str:
    """What a control is for, with its own numbers beside those of the arms that it controls; "" for other arms."""
    kind = role(arm.arm)
    if kind not in _OF_CONTROLS:
        return ""
    steps = "; ".join(f"{row.arm}: {numbers.plain(row.updates, 0)}" for row in learned)
    groups = "; ".join(f"{row.arm}, after its warm-up: {numbers.plain(row.groups, 1)}" for row in learned)
    if nothing_random(arm):
        return f"had every task alone or all in one group in {arm.undivided} of {arm.seeds} runs: it tests nothing."
    return _OF_CONTROLS[kind].format(
        steps=f"{numbers.plain(arm.updates, 0)} optimizer steps" + (f" ({steps})" if steps else ""),
        groups=f"{numbers.plain(arm.groups, 1)} groups" + (f" ({groups})" if groups else ""),
    )


def _timeline(arm: str, seed: int, groups: Groups, i: int) -> Markup:
    figure = group_timeline(
        groups.tasks,
        [(part.batch, part.groups) for part in groups.timeline],
        end=groups.batches,
        title=arm,
        detail=f"groups in seed {seed}; {numbers.short(round(groups.mean, 1))} a batch",
    )
    last = groups.timeline[-1].groups if groups.timeline else []
    words = "At the end: " + "; ".join(", ".join(group) for group in last)
    return inline(figure, f"groups-{i}", f"Groups of tasks over training: {arm}", words)


def _affinity(arm: str, found: Sequence[Groups], i: int) -> Markup:
    matrix, counts, errors = _mean(found)
    figure = affinity_map(
        found[0].tasks,
        matrix,
        counts,
        errors,
        title=arm,
        detail="affinity at the end, the mean over seeds" if len(found) > 1 else "affinity at the end",
        unit="share of its loss",
    )
    words = "How much an update of each row's task lowers the loss of each column's, as measured while training."
    return inline(figure, f"affinity-{i}", f"Affinity of the tasks: {arm}", words)


def _mean(found: Sequence[Groups]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Affinity, measurements and standard errors over the seeds that measured a pair: the runs' own errors, or with
    three seeds and more those between them, since a run's own leave out how its measurements hang together."""
    values, counts, errors = (
        np.array([getattr(groups, name) for groups in found], dtype=float)
        for name in ("affinity", "counts", "standard_errors")
    )
    known = counts > 0
    many = known.sum(0)
    safe = np.maximum(many, 1)
    matrix = np.where(known, values, 0).sum(0) / safe
    own = np.sqrt((np.where(known, errors, 0) ** 2).sum(0)) / safe
    between = np.sqrt((np.where(known, values - matrix, 0) ** 2).sum(0) / np.maximum(many - 1, 1) / safe)
    matrix = np.where(many > 0, matrix, math.nan)
    return matrix, counts.sum(0), np.where(many >= _BETWEEN, between, own)
