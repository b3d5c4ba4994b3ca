"""Whether a gain of group-wise updates is the grouping's: what the controls of `motet.study.plans` say, in words."""

import math
from collections.abc import Sequence
from dataclasses import replace

from motet.study.pairing import joined
from motet.study.results import SUM, ArmSummary, Comparison, Summary
from motet.study.roles import Role, role
from motet.study.sequential import least_p, seeds_needed
from motet.study.wording import signed

_EXPLAINS: dict[Role, str] = {
    "steps": "more optimizer steps on every batch",
    "epochs": "longer training",
    "random": "dividing the tasks at all, whoever shares a group",
    "fixed": "groups that never change",
}
"""What stands behind the gain where the control does as well."""
_WANTED: dict[Role, str] = {"steps": f"{SUM}:steps=groups", "epochs": f"{SUM}:epochs=groups", "random": "groups:random"}


_ENOUGH = 0.8
"""Share of an arm's optimizer steps below which a control says nothing of what steps alone bring."""


def corrected(summary: Summary) -> list[Comparison]:
    """The comparisons with p against the plain sum after Holm, as in the verdict; p against controls is uncorrected."""
    arms, alpha = {row.arm: row for row in summary.arms}, summary.rule.alpha
    found = []
    for c in summary.comparisons:
        if c.control == SUM:
            p = arms[c.arm].p_sum_holm
            c = replace(c, p=p, better=c.better and p < alpha, worse=c.worse and p < alpha)
        found.append(c)
    return found


def unlearnt(arm: ArmSummary) -> bool:
    """Whether in most of its runs no groups were learnt, so that controls have nothing to say of it."""
    return 2 * arm.unlearnt > arm.seeds


def sentences(summary: Summary) -> dict[str, str]:
    """{arm that learns its groups: whether a gain over the plain sum is the grouping's}, for a stranger."""
    found: dict[str, list[Comparison]] = {}
    for comparison in corrected(summary):
        found.setdefault(comparison.arm, []).append(comparison)
    return {arm: _sentence(arm, of_arm, summary) for arm, of_arm in found.items()}


def _sentence(arm: str, found: Sequence[Comparison], summary: Summary) -> str:
    arms = {row.arm: row for row in summary.arms}
    row = arms[arm]
    if row.unlearnt:
        none = (
            f"{arm} learnt no groups in {row.unlearnt} of {row.seeds} runs: training ended within its warm-up, in "
            "which every task is alone."
        )
        if unlearnt(row):
            return (
                f"{none} So nothing can be said of its groups, and it is not held against controls: train for "
                "longer, or with a smaller warmup."
            )
        return f"{none} {_finding(arm, found, summary)}"
    return _finding(arm, found, summary)


def _finding(arm: str, found: Sequence[Comparison], summary: Summary) -> str:
    over = next((c for c in found if c.control == SUM), None)
    if over is None:
        return f"The training of {SUM} broke down, so nothing can be said of the groups of {arm}."
    arms = {row.arm: row for row in summary.arms}
    empty = [c.control for c in found if nothing_random(arms[c.control])]
    controls = [c for c in found if c.control != SUM and c.control not in empty]
    seeds, alpha = arms[arm].seeds, summary.rule.alpha
    family = sum(not math.isnan(row.p_sum_holm) for row in summary.arms)
    holm = f" after Holm over {family} arms" if family > 1 else ""
    cautions = "".join(f" {text}" for text in _cautions(arms[arm], [arms[c.control] for c in found]))
    if math.isnan(over.p) or family * least_p(summary.rule, seeds) >= alpha:
        needed = seeds_needed(summary.rule, max(family, 1))
        return (
            f"{seeds} {'seed' if seeds == 1 else 'seeds'} can't show a difference to the plain sum{holm}, however "
            f"large; {needed or 'none of the planned numbers'} can. So it can't be said whether a gain of {arm} is the "
            f"grouping's.{cautions}"
        )
    against_sum = _by(over, holm)
    if not over.better:
        verb = "is worse than" if over.worse else "is not shown to be better than"
        ahead = [c for c in controls if c.worse]
        more = f" {_all(ahead)} {'is' if len(ahead) == 1 else 'are'} better than it." if ahead else ""
        why = "there is no gain to explain" if over.worse else "no gain is established that needs explaining"
        return f"{arm} {verb} the plain sum {against_sum}, so {why}.{more}{cautions}"
    kinds = {role(c.control) for c in found}
    lacking = [label for kind, label in _WANTED.items() if kind not in kinds]
    short = [c for c in controls if c.better and arms[c.control].updates < _ENOUGH * arms[arm].updates]
    tied = [c for c in controls if not c.better]
    won = [c for c in controls if c.better and c not in short]
    parts = [f"{arm} is better than the plain sum {against_sum}"]
    if tied:
        verb = "does" if len(tied) == 1 else "do"
        parts[0] += f", but {_all(tied)} {verb} as well or better, as far as {seeds} seeds can tell"
        parts.append(f"So the gain is not shown to be the grouping's: {_reasons(tied)} may bring as much")
    if won:
        parts.append(f"It is better than {_all(won)}, so {_reasons(won)} does not explain the gain")
    if short:
        steps = joined([f"{c.control} {arms[c.control].updates:.0f}" for c in short])
        parts.append(
            f"These made fewer optimizer steps than its {arms[arm].updates:.0f}, so to be better than they are proves "
            f"nothing: {steps}. Give their number of steps or groups yourself, as in sum:steps=3"
        )
    if lacking:
        parts.append(f"It was not held against {joined(lacking)}")
    if not tied and not won:
        parts.append("So it can't be said whether the gain is the grouping's")
    return ". ".join(parts) + "." + cautions


def nothing_random(arm: ArmSummary) -> bool:
    """Whether it is a control with random groups that divided nothing in most of its runs."""
    return role(arm.arm) == "random" and 2 * arm.undivided > arm.seeds


def _cautions(arm: ArmSummary, controls: Sequence[ArmSummary]) -> list[str]:
    said = [
        f"{row.arm} had every task alone or all in one group in {row.undivided} of {row.seeds} runs, in which nothing "
        f"about it is random{': it is no control of which tasks share a group' if nothing_random(row) else ''}."
        for row in controls
        if role(row.arm) == "random" and row.undivided
    ]
    if arm.warmup > 0.5:
        said.append(
            f"The warm-up took {100 * arm.warmup:.0f} % of the batches of {arm.arm}, so for most of the training every "
            "task was alone."
        )
    return said


def _reasons(controls: Sequence[Comparison]) -> str:
    kinds = dict.fromkeys(kind for c in controls if (kind := role(c.control)))
    return joined([_EXPLAINS[kind] for kind in kinds], "or")


def _all(controls: Sequence[Comparison]) -> str:
    return joined([f"{c.control} {_by(c, ' uncorrected')}" for c in controls])


def _by(c: Comparison, corrected: str) -> str:
    p = "p < 0.001" if c.p < 0.001 else f"p = {c.p:.3f}"
    return f"(difference in Δm {signed(c.difference.mean)}, {p}{corrected})"
