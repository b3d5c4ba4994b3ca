"""Sentences about a measured affinity, the same in the terminal and on the page."""

import math

from motet.study.measured import HIGH, LOW, Measured, Sure, is_clear

RULE = (
    "Groups have the largest sum of clear affinities (over 1 SE). A clearly negative pair is kept apart; an unclear "
    "pair may still share a group through a third task."
)
_NEVER = 0.01
"""A share of draws below this is not worth a word."""


def percent(value: float, error: float) -> str:
    """A share in per cent with two standard errors, in as many digits as these allow: "+0.31 ± 0.05"."""
    if not math.isfinite(value):
        return "–"
    if not math.isfinite(error):
        return f"{_signed(100 * value, 3)} ± ?"
    digits = _digits(200 * error if error > 0 else 100 * value)
    return f"{_signed(100 * value, digits)} ± {200 * error:.{digits}f}"


def proposal(found: Measured) -> str:
    """The groups in one line."""
    if not found.pairs:
        return "No proposal"
    count, alone = len(found.groups), sum(len(group.tasks) == 1 for group in found.groups)
    if count == 1:
        return "Proposed: all tasks in one group"
    if alone == count:
        return "Proposed: every task on its own"
    return f"Proposed: {count} groups" + (f", {alone} of them of one task" if alone else "")


def sureness(group: Sure) -> str:
    """How sure one proposed group is."""
    if not group.known:
        return f"not known: too little was measured between {' + '.join(group.tasks)} and any other task"
    other = " with ".join(group.neighbour)
    if math.isnan(group.together):
        if group.outside < _NEVER:
            return "alone in nearly all draws"
        sure = "" if group.outside <= LOW else ", and not sure"
        return f"alone{sure}: joins another task in up to {_share(group.outside)} of the draws ({other})"
    pair, several = " with ".join(group.weakest), len(group.tasks) > 2
    if group.together > 1 - _NEVER:
        said = "together in nearly all draws"
    else:
        said = f"together in {_share(group.together)} of the draws"
        said += f" at the least ({pair})" if several else ""
        said += "" if group.together >= HIGH else ": not sure"
    if group.outside >= _NEVER:
        said += f"; joins another task in up to {_share(group.outside)} ({other})"
    return said


def by_chance(found: Measured) -> str:
    """How many pairs have a clear sign, and how many would have without any effect."""
    pairs = [pair for pair in found.pairs if math.isfinite(pair.error)]
    if not pairs:
        return "No pair could be measured."
    helping, hurting = len(found.helping()), len(found.hurting())
    return (
        f"Of {len(pairs)} directed pairs {helping} clearly help and {hurting} clearly hurt; without any effect "
        f"{0.046 * len(pairs):.0f} would look clear by chance."
    )


def agreement(found: Measured) -> str:
    """How often the other measures have the affinity's sign, where both signs are clear."""
    parts = []
    for name, value, error in (
        ("the look-ahead affinity", "lookahead", "lookahead_error"),
        ("the gradients' cosine", "cosine", "cosine_error"),
    ):
        both = [
            pair.affinity * getattr(pair, value) > 0
            for pair in found.pairs
            if pair.clear and is_clear(getattr(pair, value), getattr(pair, error))
        ]
        if both:
            parts.append(f"with {name} on {sum(both)} of {len(both)}")
    if not parts:
        return "No pair has a clear sign in the affinity and in another measure, so nothing can be compared."
    return f"Of the pairs with a clear sign in both, the affinity's sign agrees {' and '.join(parts)}."


def parted(found: Measured) -> str:
    """Why the strongest of the helping pairs that are in two groups is so, if one task is the reason; else nothing."""
    home = {task: group.tasks for group in found.groups for task in group.tasks}
    best = next((pair for pair in found.helping() if pair.target not in home[pair.source]), None)
    if best is None:
        return ""
    most = " most" if best == found.helping()[0] else ""
    hurting = {(pair.source, pair.target) for pair in found.hurting()}
    for other in home[best.target]:
        if {(best.source, other), (other, best.source)} <= hurting:
            return (
                f"{best.source} helps {best.target}{most}, but {best.source} and {other} hurt each other, and "
                f"{best.target} can be in one group only: it is with {other}."
            )
    return ""


def proof(found: Measured, named: str = "") -> str:
    """What a map is worth, and what tests it: the command itself, or as it is ``named`` where it stands elsewhere."""
    if not found.pairs:
        return "No pair of tasks was measured, so there are no groups to test."
    said = (
        "Affinity is measured on training losses. It is no proof that training in these groups gives better results "
        "on new data"
    )
    if found.command:
        return f"{said}: {named or f'`{found.command}`'} tests that."
    return (
        f"{said}. `motet compare` can't test that for a loop of one's own: train with motet.GroupedUpdates and compare "
        "with the plain sum on validation data, over seeds."
    )


def cost(found: Measured) -> str:
    """Batches, passes and time."""
    c, runs = found.cost, found.settings["trainings"]
    return (
        f"{runs} training{'' if runs == 1 else 's'} of {c['batches'] / runs:,.0f} batches, {c['updates']:,.0f} "
        f"updates, {c['passes_per_batch']:.1f} passes a batch where ordinary training has one; {c['seconds']:.1f} s, "
        f"of which {c['seconds_of_probes']:.1f} s for look-ahead and cosines."
    )


def _share(value: float) -> str:
    return f"{100 * value:.0f} %"


def _signed(value: float, digits: int) -> str:
    text = f"{value:+.{digits}f}".replace("-", "−")
    return text if any(digit in text for digit in "123456789") else text[1:]


def _digits(size: float) -> int:
    """Decimals that show two digits of it."""
    return min(6, max(0, 1 - math.floor(math.log10(abs(size))))) if size else 2
