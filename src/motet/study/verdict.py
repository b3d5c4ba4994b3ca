"""The verdict of a study in words: the decision of `motet.study.judgement`, and why."""

import math
from collections.abc import Iterator, Mapping, Sequence

from motet.study.architectures import HARD, architecture_of
from motet.study.inference import Estimate, level
from motet.study.judgement import (
    MOST_SEEDS,
    Evidence,
    above,
    adjusted_p,
    adoptable,
    below,
    better_than_sum,
    breaking,
    breaks,
    harmless,
    more_seeds,
    no_gain,
    order,
    outcome,
    split,
)
from motet.study.optimizers import PLAIN, optimizer_of
from motet.study.pairing import joined
from motet.study.results import SINGLE, SUM, Rule, Verdict
from motet.study.sequential import Look, least_p, look_at, seeds_needed, shares
from motet.study.wording import number


def decide(
    evidence: Sequence[Evidence],
    rule: Rule,
    seeds: int,
    single_usable: bool = True,
    notes: Sequence[str] = (),
    refused: str = "",
) -> Verdict:
    """Apply the rule, and say why in sentences for a stranger.

    Args:
        evidence: The plain sum and the candidates, in any order.
        rule: Level, margin and worst-task limit.
        seeds: Seeds that single-task and the sum have in common.
        single_usable: False if single-task broke down or lacks a finite result where other arms have one.
        notes: What else a reader must know of the data, appended to the reasons.
        refused: Why no verdict may be given whatever the numbers, as a headline; empty where it may.

    Raises:
        ValueError: if the plain sum is not in ``evidence``.
    """
    the_sum, candidates = split(evidence)
    decision, arm = outcome(evidence, rule, single_usable)
    look = look_at(rule, seeds)
    if decision != "UNDECIDED" and (refused or not look.concludes):
        usable = [e for e in candidates if e.usable]
        decision, arm = "UNDECIDED", min(usable, key=order).arm if usable else the_sum.arm
    chosen = next((e for e in evidence if e.arm == arm), the_sum)
    adjusted = adjusted_p(candidates)
    usable = [e for e in candidates if e.usable]

    reasons = [_against(the_sum, the_sum.delta_m, "single-task")]
    shown = [the_sum]
    if usable:
        lead = chosen if chosen in usable else min(usable, key=order)
        shown.append(lead)
        detail = f" after Holm over {len(adjusted)} arms" if len(adjusted) > 1 else ""
        reasons.append(_against(lead, lead.over_sum, "the sum", adjusted[lead.arm], detail))
        if decision == "ADOPT" and -lead.over_sum.mean < rule.margin:
            gain, limit = _points(-lead.over_sum.mean), _points(rule.margin)
            reasons.append(f"The gain, {gain}, is shown but small: by the rule less than {limit} does not matter.")
        reasons.append(_against(lead, lead.delta_m, "single-task"))
    reasons += list(_few_seeds(seeds, len(adjusted), rule))
    reasons += [_worst_task(e, rule) for e in shown if e.worst[1] > 0]

    more: int | None = None
    unusable = [SINGLE] * (not single_usable) + [SUM] * (not the_sum.usable)
    if decision == "ADOPT":
        headline = _adopted(chosen, rule)
        reasons += _not_the_methods(chosen, evidence)
        reasons += _runners_up(chosen, candidates, adjusted, rule)
        if math.isfinite(chosen.step_cost):
            reasons.append(f"A step of {arm} takes {chosen.step_cost:.2f} times as long as one of the sum.")
    elif decision == "KEEP SUM":
        excluded = [e for e in usable if not no_gain(e, rule)]
        limit = " without breaking the worst-task rule" if excluded else ""
        whole = " that trained in full" if len(usable) < len(candidates) else ""
        gain = f", and no other arm{whole} gains {_points(rule.margin)} or more on it{limit}" if usable else ""
        headline = f"Keep the plain sum: over {_seeds(seeds)} it is {_no_harm(chosen, rule)}{gain}."
        reasons += [_excluded(e, rule) for e in excluded]
    elif decision == "KEEP SINGLE":
        shared = [e for e in evidence if e.usable]
        best = min(shared, key=order)
        spared = [e for e in shared if not above(e.delta_m, 0.0, rule.alpha)]
        harm = f"worse or costs a task more than {rule.worst_task:g} %" if spared else "worse"
        whole = " that trained in full" if len(shared) < len(evidence) else ""
        headline = f"Keep one model per task: over {_seeds(seeds)} every way of sharing one model{whole} is {harm}."
        reasons += [_excluded(e, rule) for e in spared]
        reasons.append(
            f"If {len(the_sum.tasks)} models are too many, the best single model is {best.arm}: "
            f"{_difference(best.delta_m.mean)} than single-task in Δm."
        )
    elif refused:
        headline = refused
    else:
        more, then = more_seeds(evidence, rule, single_usable, seeds)
        if unusable:
            headline = (
                f"Undecided after {_seeds(seeds)}: all arms are compared with {joined(unusable)}, which "
                f"{'is' if len(unusable) == 1 else 'are'} left out of the decision."
            )
        elif look.concludes:
            headline = f"Undecided after {_seeds(seeds)}: {_open_question(the_sum, candidates, rule, seeds)}."
            reasons += list(_obstacles(the_sum, candidates, adjusted, rule))
        else:
            headline = f"Undecided after {_seeds(seeds)}: {_no_look(look, rule)}."
        if more is not None:
            reasons.append(
                f"If means and spreads stay as they are, {more} more {_plural('seed', more)} would give {then}."
            )
        elif seeds > 1 and not unusable:
            reasons.append(_hopeless(look, rule))
    if rule.looks:
        reasons.append(_looks(look, rule))
    return Verdict(decision, arm, headline, [*reasons, *notes], seeds, more, bool(refused))


def _against(e: Evidence, estimate: Estimate, other: str, p: float | None = None, detail: str = "") -> str:
    text = f"{e.arm} is {_difference(estimate.mean)} than {other} in Δm"
    if math.isnan(estimate.low):
        return f"{text}, from one seed, so nothing can be said of chance."
    low, high = (estimate.low, estimate.high) if estimate.mean > 0 else (-estimate.high, -estimate.low)
    p = estimate.p() if p is None else p
    return f"{text} ({_level(estimate)} interval {number(low)} to {number(high)}, {_p(p)}{detail})."


def _level(estimate: Estimate) -> str:
    return f"{100 * level(estimate.share):.3g} %"


def _worst_task(e: Evidence, rule: Rule) -> str:
    task, change = e.worst
    if e.ruined:
        return f"{e.arm} {_ruins(task)}, which is over any limit."
    limit = "over" if change >= rule.worst_task else "within"
    return f"{e.arm} costs the task {task!r} most: {number(change)} %, {limit} the limit of {rule.worst_task:g} %."


def _ruins(task: str) -> str:
    return f"makes errors in the task {task!r}, in which single-task makes none"


def _adopted(e: Evidence, rule: Rule) -> str:
    gain = f"{_difference(e.over_sum.mean)} than the sum in Δm"
    return f"Adopt {e.arm}: over {_seeds(e.over_sum.seeds)} it is {gain} and {_no_harm(e, rule)}."


def _not_the_methods(chosen: Evidence, evidence: Sequence[Evidence]) -> list[str]:
    """Where the adopted arm has another optimizer or model than the sum: what that alone brings, if it is known."""
    optimizer, model = optimizer_of(chosen.arm), architecture_of(chosen.arm)
    other = [name for name, differs in (("optimizer", optimizer != PLAIN), ("model", model != HARD)) if differs]
    if not other:
        return []
    plain = f"{optimizer.label}{model.label}{SUM}"
    text = f"{chosen.arm} has another {_and(other)} than the sum, and the gain is of all that differs"
    if plain == chosen.arm:
        return [f"{text}: none of it is that of a method of balancing tasks."]
    alone = next((e for e in evidence if e.arm == plain and not math.isnan(e.over_sum.mean)), None)
    if alone is None:
        return [f"{text}. What the method adds can't be said without {plain}."]
    return [f"{text}: {plain}, without the method, is {_difference(alone.over_sum.mean)} than the sum."]


def _no_harm(e: Evidence, rule: Rule) -> str:
    """Of an arm that is shown to be harmless."""
    if below(e.delta_m, 0.0, rule.alpha):
        return f"{_difference(e.delta_m.mean)} than single-task"
    return f"less than {_points(rule.margin)} worse than single-task"


def _runners_up(chosen: Evidence, candidates: Sequence[Evidence], p: Mapping[str, float], rule: Rule) -> list[str]:
    others = [
        e.arm for e in sorted(candidates, key=order) if e.usable and e is not chosen and adoptable(e, p[e.arm], rule)
    ]
    if not others:
        return []
    return [
        f"{_and(others)} would pass too; {chosen.arm} has the best mean, which does not prove it better than "
        f"{'that' if len(others) == 1 else 'those'}."
    ]


def _excluded(e: Evidence, rule: Rule) -> str:
    task, change = max(breaking(e, rule).items(), key=lambda item: item[1])
    return f"{e.arm} breaks the worst-task rule: {task!r} loses {number(change)} %, more than {rule.worst_task:g} %."


def _open_question(the_sum: Evidence, candidates: Sequence[Evidence], rule: Rule, seeds: int) -> str:
    least = seeds_needed(rule)
    if least is None or seeds < least:
        return f"fewer than {least} cannot establish any difference" if least else "no look has seeds enough"
    if not candidates:
        return "whether the sum is as good as single-task is not established"
    best = min([e for e in candidates if e.usable] or candidates, key=order).arm
    if harmless(the_sum, rule):
        return f"the sum does no harm, but whether {best} or another arm gains on it is not established"
    return f"neither that {best} is worth adopting nor that single-task is better is established"


def _obstacles(
    the_sum: Evidence, candidates: Sequence[Evidence], adjusted: Mapping[str, float], rule: Rule
) -> Iterator[str]:
    """What stands between the evidence and each decision."""
    usable = [e for e in candidates if e.usable]
    if usable:
        best = min(usable, key=order)
        missing = []
        if not better_than_sum(best, adjusted[best.arm], rule):
            missing.append("is not shown to be better than the sum")
        missing += _harm(best, rule)
        yield f"No ADOPT: {best.arm} {_and(missing)}."
    missing = _harm(the_sum, rule)
    gaining = [e.arm for e in usable if not no_gain(e, rule) and not breaks(e, rule)]
    if gaining:
        missing.append(f"could be beaten by {_points(rule.margin)} or more by {_and(gaining)}")
    yield f"No KEEP SUM: the sum {_and(missing)}."
    good = [
        e.arm for e in [the_sum, *usable] if e.usable and not above(e.delta_m, 0.0, rule.alpha) and not breaks(e, rule)
    ]
    if good:
        verb = "is" if len(good) == 1 else "are"
        yield f"No KEEP SINGLE: {_and(good)} {verb} not shown to be worse than single-task."


def _harm(e: Evidence, rule: Rule) -> list[str]:
    missing = []
    if not e.usable:
        missing.append("is left out of the decision")
    if not below(e.delta_m, rule.margin, rule.alpha):
        verb = "is" if above(e.delta_m, rule.margin, rule.alpha) else "may be"
        missing.append(f"{verb} worse than single-task by {_points(rule.margin)} or more")
    if e.worst[1] >= rule.worst_task:
        task, change = e.worst
        missing.append(_ruins(task) if e.ruined else f"costs the task {task!r} {number(change)} %")
    return missing


def _few_seeds(seeds: int, candidates: int, rule: Rule) -> Iterator[str]:
    least, with_holm = seeds_needed(rule), seeds_needed(rule, max(candidates, 1))
    look = "look of the rule" if rule.looks else ""
    if least is None:
        yield f"No {look} has enough seeds: the sign-flip test gives no p < {rule.alpha:g} with so few."
    elif seeds < least:
        yield (
            f"Fewer than {least} seeds can never give p < {rule.alpha:g}{' under this rule' if rule.looks else ''}: "
            f"with {_seeds(seeds)} the sign-flip test gives {least_p(rule, seeds):.3g} at the least."
        )
    if candidates > 1 and least is not None and with_holm is None:
        yield f"With {candidates} candidate arms no {look} has the seeds that Holm needs to show a gain on the sum."
    elif candidates > 1 and with_holm is not None and seeds < with_holm:
        yield f"With {candidates} candidate arms Holm needs at least {with_holm} seeds, and this study has {seeds}."


def _no_look(look: Look, rule: Rule) -> str:
    if look.following is not None:
        return f"the rule concludes nothing at this number, and its next look is at {look.following}"
    return f"the rule's last look was at {max(rule.looks)}, and more seeds than were planned conclude nothing"


def _hopeless(look: Look, rule: Rule) -> str:
    if not rule.looks:
        return f"If means and spreads stay as they are, {MOST_SEEDS} more seeds would not decide."
    if look.following is None:
        return "The rule has no further look, so this study can't decide any more: plan a new one with more seeds."
    return "If means and spreads stay as they are, the looks to come would not decide."


def _looks(look: Look, rule: Rule) -> str:
    planned = shares(rule)
    spent = joined([f"{100 * share:.0f} %" for share in planned.values()])
    text = f"The rule looks at {joined(map(str, planned))} seeds, which share alpha = {rule.alpha:g} out as {spent}"
    nothing = [seeds for seeds, share in planned.items() if share == 0]
    if nothing:
        text += f" (with {joined(map(str, nothing))} seeds the sign-flip test could not use a share)"
    whose = "this look's" if look.concludes else "the next look's" if look.following else "the last look's"
    return (
        f"{text}. p is divided by {whose} share and the intervals have its level, {100 * level(look.share):.3g} %, so "
        "that stopping at whichever look decides is no way to a chance finding."
    )


def _difference(mean: float) -> str:
    if mean == 0:
        return "no better and no worse"
    return f"{_points(abs(mean))} {'better' if mean < 0 else 'worse'}"


def _points(value: float) -> str:
    text = f"{value:g}" if float(value).is_integer() else number(value)
    return f"{text} {_plural('point', value)}"


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def _seeds(count: int) -> str:
    return f"{count} {_plural('seed', count)}"


def _plural(noun: str, count: float) -> str:
    return noun if count == 1 else f"{noun}s"


def _and(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else list(parts))
