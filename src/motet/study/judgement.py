"""The decision of a study: ADOPT an arm, KEEP SUM, KEEP SINGLE, or UNDECIDED and how many seeds would decide.

The rule is fixed before any result is seen. Differences are paired by seed; positive is worse. A mean is *shown*
to lie below (above) a bound if its BCa interval does and the two-sided sign-flip test of that bound has p < alpha;
the interval alone is too short with few seeds. In this order:

1. ADOPT the candidate with the best mean of Δm minus the sum's (of the same seeds) among those that
   - are shown to be better than the plain sum, with Holm's adjustment over all candidates,
   - are shown to be worse than single-task by less than ``margin`` points, and
   - have no task whose mean is worse than single-task by ``worst_task`` per cent or more.
2. KEEP SUM if the sum itself meets the last two conditions, and for every candidate a gain over the sum of
   ``margin`` points or more is ruled out, or it breaks the worst-task rule.
3. KEEP SINGLE if the sum and every candidate are shown to be worse than single-task, or break the worst-task rule.
4. UNDECIDED otherwise, where what all are compared with is unusable (1 needs single-task and the sum, 2 and 3
   single-task), and wherever a rule with planned looks has set no level aside for this number of seeds
   (`motet.study.sequential`: there, every p is divided by the look's share, and every interval is wider).

2 and 3 need no adjustment over arms: each claims that something holds of *every* arm, and errs only if a test errs
on the one arm of which it does not hold (an intersection–union test). 2 comes before 3 because a difference below
``margin`` does not matter, even if it is real. An arm *breaks the worst-task rule* if one of its tasks is shown to be
worse by more than ``worst_task`` per cent, with Holm's adjustment over the tasks.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from motet.study.inference import Estimate, Observed, holm
from motet.study.results import SINGLE, SUM, Decision, Rule
from motet.study.sequential import shares

MOST_SEEDS = 50
"""A verdict never asks for more further seeds than this."""


@dataclass(frozen=True)
class Evidence:
    """What is known of a shared arm, the plain sum or a candidate.

    Attributes:
        arm: Its name.
        delta_m: Δm against single-task.
        over_sum: Δm minus the sum's.
        tasks: Change of every task against single-task, in per cent.
        usable: False if its training broke down, or a result is missing or not finite where other arms have one.
        step_cost: Time of a step over the plain sum's.
        ruined: Tasks on which single-task's result is 0 and this arm's is worse, which is no change in per cent.
    """

    arm: str
    delta_m: Estimate
    over_sum: Estimate
    tasks: Mapping[str, Estimate]
    usable: bool = True
    step_cost: float = math.nan
    ruined: tuple[str, ...] = ()

    @property
    def worst(self) -> tuple[str, float]:
        """The task that lost most, and its mean change, infinite for one that is ruined; ("", 0) without any."""
        if self.ruined:
            return self.ruined[0], math.inf
        means = {task: estimate.mean for task, estimate in self.tasks.items() if not math.isnan(estimate.mean)}
        return max(means.items(), key=lambda item: item[1], default=("", 0.0))

    def projected(self, more: int, share: float = 1.0) -> "Evidence":
        """With ``more`` seeds, at a look with this share of the level, if means and standard deviations stay."""
        return Evidence(
            self.arm,
            _projected(self.delta_m, more, share),
            _projected(self.over_sum, more, share),
            {task: _projected(estimate, more, share) for task, estimate in self.tasks.items()},
            self.usable,
            self.step_cost,
            self.ruined,
        )


def outcome(evidence: Sequence[Evidence], rule: Rule, single_usable: bool = True) -> tuple[Decision, str]:
    """The decision and its arm; where undecided, the candidate with the best mean Δm, or else the sum."""
    the_sum, candidates = split(evidence)
    usable = [e for e in candidates if e.usable]
    adjusted = adjusted_p(candidates)
    passing = [e for e in usable if adoptable(e, adjusted[e.arm], rule)]
    if passing and single_usable and the_sum.usable:
        return "ADOPT", min(passing, key=order).arm
    if (
        single_usable
        and the_sum.usable
        and harmless(the_sum, rule)
        and all(no_gain(e, rule) or breaks(e, rule) for e in usable)
    ):
        return "KEEP SUM", SUM
    shared = [e for e in evidence if e.usable]
    if single_usable and shared and all(above(e.delta_m, 0.0, rule.alpha) or breaks(e, rule) for e in shared):
        return "KEEP SINGLE", SINGLE
    return "UNDECIDED", min(usable, key=order).arm if usable else SUM


def adjusted_p(candidates: Sequence[Evidence]) -> dict[str, float]:
    """Holm-adjusted sign-flip p-values of "as good as the sum", for the candidates that have any seed."""
    raw = {e.arm: e.over_sum.p() for e in candidates if e.over_sum.seeds > 0}
    return dict(zip(raw, holm(raw.values()), strict=True))


# The conditions of the rule


def below(estimate: Estimate, bound: float, alpha: float) -> bool:
    """Shown to lie below ``bound``: the interval does, and the sign-flip test excludes the bound itself."""
    return estimate.high < bound and estimate.p(bound) < alpha


def above(estimate: Estimate, bound: float, alpha: float) -> bool:
    """Shown to lie above ``bound``."""
    return estimate.low > bound and estimate.p(bound) < alpha


def better_than_sum(e: Evidence, p: float, rule: Rule) -> bool:
    """Shown to be better than the plain sum; ``p`` is Holm-adjusted."""
    return p < rule.alpha and e.over_sum.high < 0


def harmless(e: Evidence, rule: Rule) -> bool:
    """Shown to be worse than single-task by less than the margin, with no task over the worst-task limit."""
    return below(e.delta_m, rule.margin, rule.alpha) and e.worst[1] < rule.worst_task


def adoptable(e: Evidence, p: float, rule: Rule) -> bool:
    """Meets the conditions of ADOPT."""
    return better_than_sum(e, p, rule) and harmless(e, rule)


def no_gain(e: Evidence, rule: Rule) -> bool:
    """A gain over the sum of the margin or more is ruled out."""
    return above(e.over_sum, -rule.margin, rule.alpha)


def breaking(e: Evidence, rule: Rule) -> dict[str, float]:
    """The mean changes of the tasks that are shown to be worse than the worst-task limit."""
    known = {task: estimate for task, estimate in e.tasks.items() if estimate.seeds > 0}
    p_values = holm(estimate.p(rule.worst_task) for estimate in known.values())
    shown = zip(p_values, known.items(), strict=True)
    return {task: t.mean for p, (task, t) in shown if p < rule.alpha and t.low > rule.worst_task}


def breaks(e: Evidence, rule: Rule) -> bool:
    """One task is shown to be worse than the worst-task limit."""
    return bool(breaking(e, rule))


def split(evidence: Sequence[Evidence]) -> tuple[Evidence, list[Evidence]]:
    """The plain sum, and the candidates."""
    sums = [e for e in evidence if e.arm == SUM]
    if len(sums) != 1:
        raise ValueError(f"a verdict needs the arm {SUM!r} exactly once, not {len(sums)} times")
    return sums[0], [e for e in evidence if e.arm != SUM]


def order(e: Evidence) -> tuple[bool, float]:
    """Best first, without a seed last: by Δm minus the sum's of the same seeds, since arms may have other seeds."""
    return (math.isnan(e.over_sum.mean), e.over_sum.mean)


def _projected(estimate: Estimate, more: int, share: float) -> Estimate:
    return estimate.projected(more, share) if isinstance(estimate, Observed) and estimate.seeds > 1 else estimate


def more_seeds(evidence: Sequence[Evidence], rule: Rule, single_usable: bool, seeds: int) -> tuple[int | None, str]:
    """The fewest further seeds with which the rule would decide if means and deviations stayed, and how."""
    if rule.looks:
        ahead = [(look - seeds, share) for look, share in shares(rule).items() if look > seeds and share > 0]
    else:
        ahead = [(more, 1.0) for more in range(1, MOST_SEEDS + 1)]
    for more, share in ahead:
        decision, arm = outcome([e.projected(more, share) for e in evidence], rule, single_usable)
        if decision != "UNDECIDED":
            return more, f"ADOPT {arm}" if decision == "ADOPT" else decision
    return None, ""
