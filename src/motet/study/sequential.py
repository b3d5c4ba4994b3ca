"""Reading a verdict more than once while seeds are added: what every look may spend of the level.

A rule with planned looks n₁ < n₂ < … (`Rule.looks`, numbers of seeds) gives each its own share of α, fixed with the
rule and whatever is seen:

    share(nⱼ) = nⱼ / Σ nᵢ,   the sum over the looks that can reject at all

A look *can reject* if the least p-value of a sign-flip test with so many seeds, 2/2ⁿ, lies below α · share. One that
can't gets nothing, and its share goes to the others: at (6, 8, 10, 12) and α = 0.05 the shares are 0, 4/15, 5/15
and 6/15. At a look every p-value is divided by its share (before Holm), and every interval has the level
1 - 0.05 · share. The shares add to 1, so by Boole's inequality the chance of a false claim at *any* look is at most α,
however the looks depend on each other and whyever one stops. At any other number of seeds nothing is concluded.

Note:
    A choice by simulation, 3,000 studies of normal differences, looks (6, 8, 10, 12), one arm of m better than the
    sum by d standard deviations. The power to show it at some look, for equal shares of all looks, equal shares of
    those that can reject, shares that follow O'Brien and Fleming, and these: m = 1, d = 1: 0.72, 0.77, 0.79,
    0.78; m = 3, d = 1.5: 0.89, 0.92, 0.93, 0.93; m = 6, d = 1.5: 0.79, 0.83, 0.85, 0.85. One look at 12 seeds:
    0.89, 0.98 and 0.94: what looking early costs.
"""

from dataclasses import dataclass
from itertools import pairwise

from motet.study.inference import floor
from motet.study.inference import seeds_needed as needed_once
from motet.study.results import Rule


@dataclass(frozen=True)
class Look:
    """What the rule lets be said at some number of seeds.

    Attributes:
        share: Of the level. Where nothing may be concluded, that of the next look (or, beyond the last one, of the
            last), for tables that are only a preview.
        concludes: Whether a decision may be made here.
        following: The next number of seeds at which it may; None if there is none, or if nothing was planned.
    """

    seeds: int
    share: float
    concludes: bool
    following: int | None


def shares(rule: Rule) -> dict[int, float]:
    """{planned number of seeds: its share of the level}; 0 for a look that can't reject, unless it is the only one.

    Raises:
        ValueError: if the looks are not increasing numbers of at least two seeds.

    >>> {seeds: round(share, 3) for seeds, share in shares(Rule(looks=(6, 8, 10, 12))).items()}
    {6: 0.0, 8: 0.267, 10: 0.333, 12: 0.4}
    """
    looks = rule.looks
    if any(b <= a for a, b in pairwise(looks)) or any(seeds < 2 for seeds in looks):
        raise ValueError(f"looks must be increasing numbers of seeds, each at least 2, not {looks}")
    counted = list(looks)
    # The earliest look has the least share and the largest floor, so it is the first that can't reject.
    while len(counted) > 1 and floor(counted[0]) >= rule.alpha * counted[0] / sum(counted):
        counted.pop(0)
    return {seeds: seeds / sum(counted) if seeds in counted else 0.0 for seeds in looks}


def look_at(rule: Rule, seeds: int) -> Look:
    """What may be said with so many seeds."""
    planned = {n: share for n, share in shares(rule).items() if share > 0}
    if not planned:
        return Look(seeds, 1.0, True, None)
    following = next((n for n in planned if n > seeds), None)
    share = planned.get(seeds, planned[following or max(planned)])
    return Look(seeds, share, seeds in planned, following)


def least_p(rule: Rule, seeds: int) -> float:
    """The least p-value, divided by the look's share, that a sign-flip test can give with so many seeds."""
    return min(1.0, floor(seeds) / look_at(rule, seeds).share)


def seeds_needed(rule: Rule, comparisons: int = 1) -> int | None:
    """The fewest seeds at which one of so many Holm-adjusted p-values can fall below the level.

    None if no planned look has enough.

    >>> seeds_needed(Rule()), seeds_needed(Rule(looks=(6, 8, 10, 12)), 5), seeds_needed(Rule(looks=(4, 5)))
    (6, 10, None)
    """
    if not rule.looks:
        return needed_once(rule.alpha, comparisons)
    planned = (seeds for seeds, share in shares(rule).items() if share > 0)
    return next((seeds for seeds in planned if comparisons * least_p(rule, seeds) < rule.alpha), None)
