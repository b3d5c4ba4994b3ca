"""Whether the arms of a study had equal chances: trials of tuning, and learning rates that fit their steps."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from motet.study.arms import parse
from motet.study.caveats import with_own_rate
from motet.study.pairing import joined
from motet.study.results import SINGLE, ArmSummary, Run, Tuning
from motet.study.wording import times

EDGE = 1.26
"""A learning rate within this factor (a tenth of a decade) of a bound of its range is at the edge."""
FAR_APART = 3.0
"""Ratio of step lengths from which one learning rate for all arms is worth a word."""
UNEQUAL = 2.0
"""Ratio of the epochs that equal numbers of trials came to, from which it is worth a word."""


def refusal(runs: Sequence[Run]) -> tuple[str, str]:
    """Why no verdict may be given, as a headline, and what to do; two empty strings where all had equal trials."""
    had: dict[str, set[int]] = {}
    for run in runs:
        had.setdefault(run.arm, set()).add(_trials(run))
    if len(set().union(*had.values())) <= 1:
        return "", ""
    groups: dict[str, list[str]] = {}
    for arm, counts in had.items():
        groups.setdefault(joined([_said(count) for count in sorted(counts)], "or"), []).append(arm)
    who = "; ".join(f"{joined(arms)} had {text}" for text, arms in groups.items())
    return (
        f"No verdict: the arms were not tuned alike. {who}.",
        "A method that was tuned harder than what it is compared with proves nothing: give every arm the same "
        "--trials, single-task and the sum too, in a new folder.",
    )


def of_step_lengths(rows: Sequence[ArmSummary], runs: Sequence[Run]) -> list[str]:
    """That arms whose steps differ much in length trained at one learning rate, if they did."""
    own = with_own_rate([row.arm for row in rows])
    lengths = {row.arm: row.step_length for row in rows if row.arm not in (SINGLE, *own) and row.step_length > 0}
    lengths = {arm: length for arm, length in lengths.items() if math.isfinite(length)}
    if len(lengths) < 2 or any(map(_trials, runs)):
        return []
    least, most = min(lengths, key=lengths.__getitem__), max(lengths, key=lengths.__getitem__)
    ratio = lengths[most] / lengths[least]
    if ratio <= FAR_APART:
        return []
    return [
        f"Methods differ in step length by up to {times(ratio)} ({least} {times(lengths[least])}, {most} "
        f"{times(lengths[most])} the sum's), and all trained at one learning rate: tune them with --trials."
    ]


def of_tuning(runs: Sequence[Run], tuning: Tuning | None, rows_recur: bool) -> list[str]:
    """What tuning leaves open: rates at the edge of their range, pruned trials, luck, and rows that tuning has seen.

    Args:
        runs: With what tuning chose in their ``settings``.
        tuning: How the arms were tuned.
        rows_recur: Whether every seed splits the same rows anew.
    """
    if tuning is None or not any(map(_trials, runs)):
        return []
    said = []
    for side in ("lower", "upper"):
        if arms := list(dict.fromkeys(name for run in runs for name in _at_edge(run, tuning, side))):
            low, high = tuning.learning_rate
            said.append(
                f"The learning rate that tuning chose for {joined(arms)} {'lies' if len(arms) == 1 else 'lie'} at the "
                f"{side} edge of its range, {low:g} to {high:g}: a better one may lie beyond."
            )
    # An arm that is to train longer has more epochs by design.
    spent = {run.arm: run.settings["epochs"] / _longer(run.arm) for run in runs if run.settings.get("epochs")}
    if spent and max(spent.values()) > UNEQUAL * min(spent.values()):
        least, most = min(spent, key=spent.__getitem__), max(spent, key=spent.__getitem__)
        said.append(
            f"Trials were stopped early where they did badly or got no better, so equal numbers of them came to "
            f"{spent[least]:.0f} epochs for {least} and {spent[most]:.0f} for {most}."
        )
    said.append(
        f"Tuning chose each arm's settings once, on seed {tuning.seed}: p and the intervals are about these settings, "
        "and do not know how lucky each search was. Another one might order arms that are close otherwise."
    )
    if rows_recur:
        said.append(
            f"Tuning used the training and validation rows of seed {tuning.seed}. They recur among the test rows of "
            "the other seeds, for all arms alike, so results may look a little better than on rows never seen."
        )
    return said


def edge(rate: object, tuning: Tuning | None) -> str:
    """ "lower" or "upper", where a learning rate lies at a bound of the search, else empty."""
    if tuning is None or not isinstance(rate, float | int) or not math.isfinite(rate):
        return ""
    low, high = tuning.learning_rate
    return "lower" if rate <= low * EDGE else "upper" if rate >= high / EDGE else ""


def _at_edge(run: Run, tuning: Tuning, side: str) -> list[str]:
    """The arm, or single-task with each of its tasks, where the chosen rate is at this edge."""
    if with_own_rate([run.arm]):
        return []  # Its rate was not searched.
    by_task: Mapping[str, Mapping[str, Any]] = run.settings.get("tasks", {})
    if edge(run.settings.get("learning_rate"), tuning) == side:
        return [run.arm]
    tasks = [task for task, chosen in by_task.items() if edge(chosen.get("learning_rate"), tuning) == side]
    return [f"{run.arm} ({', '.join(tasks)})"] if tasks else []


def _longer(label: str) -> int:
    try:
        return parse(label).longer
    except ValueError:  # Of another version, whose runs can still be read.
        return 1


def _trials(run: Run) -> int:
    return int(run.settings.get("trials", 0))


def _said(count: int) -> str:
    return "no trials" if count == 0 else f"{count} trial{'' if count == 1 else 's'}"
