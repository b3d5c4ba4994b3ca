"""Whether a gain of group-wise updates is the grouping's: what the controls of `motet.study.plans` say, in words."""

import math
from collections.abc import Sequence

from motet.study.inference import floor, seeds_needed
from motet.study.pairing import joined
from motet.study.results import SUM, Comparison, Summary
from motet.study.roles import Role, role

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


def sentences(summary: Summary) -> dict[str, str]:
    """{arm that learns its groups: whether a gain over the plain sum is the grouping's}, for a stranger."""
    found: dict[str, list[Comparison]] = {}
    for comparison in summary.comparisons:
        found.setdefault(comparison.arm, []).append(comparison)
    return {arm: _sentence(arm, of_arm, summary) for arm, of_arm in found.items()}


def _sentence(arm: str, found: Sequence[Comparison], summary: Summary) -> str:
    over = next(c for c in found if c.control == SUM)
    controls = [c for c in found if c.control != SUM]
    arms = {row.arm: row for row in summary.arms}
    seeds, alpha = arms[arm].seeds, summary.rule.alpha
    if math.isnan(over.p) or floor(seeds) >= alpha:
        return (
            f"{seeds} {'seed' if seeds == 1 else 'seeds'} can't show a difference, however large; "
            f"{seeds_needed(alpha)} can. So it can't be said whether a gain of {arm} is the grouping's."
        )
    if not over.better:
        verb = "is worse than" if over.worse else "is not shown to be better than"
        ahead = [c for c in controls if c.worse]
        more = f" {_all(ahead)} {'is' if len(ahead) == 1 else 'are'} better than it." if ahead else ""
        return f"{arm} {verb} the plain sum {_by(over)}, so there is no gain to explain.{more}"
    kinds = {role(c.control) for c in controls}
    lacking = [label for kind, label in _WANTED.items() if kind not in kinds]
    short = [c for c in controls if c.better and arms[c.control].updates < _ENOUGH * arms[arm].updates]
    tied = [c for c in controls if not c.better]
    won = [c for c in controls if c.better and c not in short]
    parts = [f"{arm} is better than the plain sum {_by(over)}"]
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
    return ". ".join(parts) + "."


def _reasons(controls: Sequence[Comparison]) -> str:
    kinds = dict.fromkeys(kind for c in controls if (kind := role(c.control)))
    return joined([_EXPLAINS[kind] for kind in kinds], "or")


def _all(controls: Sequence[Comparison]) -> str:
    return joined([f"{c.control} {_by(c)}" for c in controls])


def _by(c: Comparison) -> str:
    p = "p < 0.001" if c.p < 0.001 else f"p = {c.p:.3f}"
    return f"(difference in Δm {_signed(c.difference.mean)}, {p})"


def _signed(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:+.1f}".replace("-", "−").replace("−0.0", "0.0").replace("+0.0", "0.0")
