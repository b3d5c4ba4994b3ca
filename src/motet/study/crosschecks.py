"""What a sceptic would ask of a verdict, answered in sentences: harmed tasks, missed gains, other measures."""

import math
from collections.abc import Sequence

from motet.study.pairing import joined
from motet.study.results import SINGLE, SUM, ArmSummary, Interval, Rule, Verdict
from motet.study.sensitivity import POWER
from motet.study.sequential import least_p
from motet.study.wording import number, signed


def sentences(rows: Sequence[ArmSummary], verdict: Verdict, rule: Rule, level: float, same_tasks: bool) -> list[str]:
    """For the sum and the arm that the verdict is about.

    Args:
        rows: Of the arms that may be decided on, in any order, the sum among them.
        verdict: As the rule gave it.
        rule: The rule.
        level: Of the intervals.
        same_tasks: Whether the log-ratio holds all tasks that Δm holds.
    """
    by_arm = {row.arm: row for row in rows if row.seeds > 0}
    the_sum = by_arm.get(SUM)
    if the_sum is None:
        return []
    candidates = [row for row in by_arm.values() if row.arm not in (SINGLE, SUM)]
    best = min(candidates, key=lambda row: row.delta_m.mean, default=None)
    lead = by_arm[verdict.arm] if verdict.arm in by_arm and verdict.arm not in (SINGLE, SUM) else best
    shown = [the_sum, *([lead] if lead else [])]
    return [
        *_harmed(shown, rule),
        *(_missed(the_sum, candidates, lead, verdict, rule) if verdict.decision in ("UNDECIDED", "KEEP SUM") else []),
        *_specialised(the_sum, rule, level),
        *(_log_ratio(shown, [the_sum, *candidates], verdict) if same_tasks else []),
        *_resampled(the_sum, lead),
    ]


def _harmed(rows: Sequence[ArmSummary], rule: Rule) -> list[str]:
    said = []
    for row in rows:
        known = sum(not math.isnan(change.mean) for change in row.per_task.values())
        holm = f" with Holm over {known} tasks" if known > 1 else ""
        if row.harmed:
            said.append(f"{row.arm} is shown to be worse than single-task on {joined(map(repr, row.harmed))}{holm}.")
        if row.suspected:
            few = known * least_p(rule, row.seeds) >= rule.alpha
            why = f"{row.seeds} seeds can't show it{holm}" if few else f"the test does not show it{holm}"
            said.append(
                f"{row.arm} may be worse on {joined(map(repr, row.suspected))}{' too' if row.harmed else ''}: {why}."
            )
    return said


def _missed(
    the_sum: ArmSummary, candidates: Sequence[ArmSummary], lead: ArmSummary | None, verdict: Verdict, rule: Rule
) -> list[str]:
    chance = f"more than {100 * (1 - POWER):.0f} % of such studies"
    if verdict.decision == "KEEP SUM" and lead is not None:
        # That every gain of the margin is ruled out needs no Holm; that one of many is there does.
        few = "could not have adopted any arm" if math.isinf(lead.mde_sum) else _would_miss(lead, chance)
        return [
            f"A gain on the sum of less than {rule.margin:g} in Δm may be there, and by the rule does not matter. To "
            f"rule out larger ones in all arms at once needs fewer seeds than to show one: this study {few}."
        ]
    if lead is None:
        return [_detectable("a difference of sum to single-task", the_sum.mde_single, chance, verdict.seeds)]
    others = [row for row in candidates if row is not lead and row.mde_sum > lead.mde_sum]
    most = max(others, key=lambda row: row.mde_sum, default=None)
    more = f", and for {most.arm} one smaller than {_points(most.mde_sum)}" if most and most.mde_sum < math.inf else ""
    return [_detectable(f"a gain of {lead.arm} on the sum", lead.mde_sum, chance, lead.seeds, more)]


def _would_miss(lead: ArmSummary, chance: str) -> str:
    if math.isnan(lead.mde_sum):
        return "is too small to say what it could show"
    return f"would have missed a gain of {lead.arm} smaller than {_points(lead.mde_sum)} in {chance}"


def _detectable(what: str, size: float, chance: str, seeds: int, more: str = "") -> str:
    count = f"{seeds} seed{'' if seeds == 1 else 's'}"
    if math.isnan(size):
        return f"How large {what} would have to be to be noticed is not known from {count}."
    if math.isinf(size):
        return f"With {count} {what} would have been missed however large it is."
    return (
        f"With {count} and this spread, {what} smaller than {_points(size)} would have been missed in {chance}{more}."
    )


def _specialised(the_sum: ArmSummary, rule: Rule, level: float) -> list[str]:
    """Whether the harm of one model is that of one checkpoint for all tasks."""
    own, one = the_sum.specialised, the_sum.delta_m
    shown = one.low > 0 and the_sum.p_single < rule.alpha
    if math.isnan(own.low) or not shown or own.low > 0 or own.mean > one.mean / 2:
        return []
    better = "better" if own.mean < 0 else "worse"
    return [
        f"With a checkpoint for each task, at its own best epoch, the sum is {_points(abs(own.mean))} {better} than "
        f"single-task in Δm ({100 * level:.3g} % interval {_ends(own)}) and not {_points(one.mean)} worse: its harm "
        "may lie in keeping one epoch for all tasks."
    ]


def _log_ratio(shown: Sequence[ArmSummary], rows: Sequence[ArmSummary], verdict: Verdict) -> list[str]:
    """Where Δm and the mean log-ratio disagree, in sign for the arms in question or in which arm is best."""
    said = []
    opposed = [
        row
        for row in shown
        if row.delta_m.mean * row.log_ratio.mean < 0 and (_clear(row.delta_m) or _clear(row.log_ratio))
    ]
    said += [
        f"Δm of {row.arm} is {signed(row.delta_m.mean)} %, but its mean log-ratio {signed(row.log_ratio.mean)} %: Δm "
        "gives a large relative loss, often of a task with a small single-task result, more weight than an equal gain. "
        "Look at the tasks one by one."
        for row in opposed
    ]
    the_sum = shown[0]
    for row in shown[1:]:
        by_log = row.log_ratio.mean - the_sum.log_ratio.mean
        if row.over_sum.mean * by_log < 0 and _clear(row.over_sum):
            said.append(
                f"Against the sum {row.arm} has {signed(row.over_sum.mean)} points in Δm, but {signed(by_log)} in "
                "mean log-ratio: which of the two is better depends on the measure."
            )
    by_delta, by_log_ratio = (
        min(rows, key=key).arm for key in (lambda row: row.delta_m.mean, lambda row: row.log_ratio.mean)
    )
    if by_delta != by_log_ratio and verdict.arm == by_delta:
        said.append(f"By mean log-ratio the best shared model is {by_log_ratio}, by Δm it is {by_delta}.")
    return said


def _resampled(the_sum: ArmSummary, lead: ArmSummary | None) -> list[str]:
    row, found, other = (
        (lead, lead.over_sum_resampled, "the sum") if lead else (the_sum, the_sum.delta_m_resampled, "single-task")
    )
    if math.isnan(found.low):
        return []
    zero = "" if _clear(found) else " and does not exclude zero"
    return [
        f"For other data of this kind the interval of {row.arm} against {other} is {_ends(found)} points{zero}: its "
        "variance is corrected for splits that share rows (Nadeau and Bengio 2003). The rule does not use it."
    ]


def _clear(interval: Interval) -> bool:
    return interval.low > 0 or interval.high < 0


def _ends(interval: Interval) -> str:
    return f"{signed(interval.low)} to {signed(interval.high)}"


def _points(value: float) -> str:
    return f"{number(value)} points"
