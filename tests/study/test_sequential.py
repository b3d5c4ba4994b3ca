"""Several looks at a verdict: the level is shared out, and all looks together err no more often than one."""

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from motet.study.inference import Observed, floor, holm
from motet.study.judgement import Evidence, outcome
from motet.study.results import Rule, Summary
from motet.study.sequential import least_p, look_at, seeds_needed, shares
from motet.study.statistics import summarise
from tests.study.runs import lower, study, tasks

LOOKS = (6, 8, 10, 12)
RULE = Rule(looks=LOOKS)
GOOD = {"sum": 3.0, "a": -3.0}
STUDIES = 700


def summary(changes: dict, seeds: int, rule: Rule = RULE, noise: float = 0.3) -> Summary:
    return summarise(tasks(3), study(changes, seeds, noise), rule, higher_is_better=lower(3))


def test_a_look_has_the_share_of_its_seeds_among_those_that_can_reject():
    assert shares(RULE) == {6: 0, 8: 8 / 30, 10: 10 / 30, 12: 12 / 30}
    assert shares(Rule(looks=(7, 8))) == {7: 7 / 15, 8: 8 / 15}
    assert shares(Rule(looks=(9,))) == {9: 1}
    assert shares(Rule()) == {}


@given(st.sets(st.integers(2, 40), min_size=1, max_size=6), st.sampled_from([0.01, 0.05, 0.1]))
def test_shares_add_to_one_and_each_can_reject_where_any_can(looks, alpha):
    rule = Rule(alpha=alpha, looks=tuple(sorted(looks)))
    found = shares(rule)
    assert sum(found.values()) == pytest.approx(1)
    assert list(found) == sorted(looks)
    counted = [seeds for seeds, share in found.items() if share > 0]
    if len(counted) > 1:
        assert all(floor(seeds) < alpha * found[seeds] for seeds in counted)
    assert all(a < b for a, b in pairwise(found[seeds] for seeds in counted))


@pytest.mark.parametrize("looks", [(8, 6), (6, 6), (1, 6)])
def test_looks_that_are_no_plan_are_refused(looks):
    with pytest.raises(ValueError, match="looks must be increasing numbers of seeds, each at least 2"):
        shares(Rule(looks=looks))


def test_between_and_beyond_the_looks_nothing_is_concluded():
    assert [look_at(RULE, n).concludes for n in (6, 7, 8, 9, 10, 11, 12, 13)] == [0, 0, 1, 0, 1, 0, 1, 0]
    assert [look_at(RULE, n).following for n in (5, 6, 8, 11, 12, 13)] == [8, 8, 10, 12, None, None]
    assert look_at(RULE, 7).share == look_at(RULE, 8).share
    assert look_at(RULE, 13).share == look_at(RULE, 12).share
    assert look_at(Rule(), 7) == look_at(Rule(), 7).__class__(7, 1.0, True, None)


def test_seeds_that_a_look_needs_know_its_share():
    for comparisons, expected in ((1, 8), (2, 10), (5, 10), (8, 10), (9, 12), (41, None)):
        assert seeds_needed(RULE, comparisons) == expected
        if expected:
            assert comparisons * floor(expected) < 0.05 * shares(RULE)[expected]
    assert least_p(RULE, 8) == pytest.approx(floor(8) * 30 / 8)
    assert least_p(Rule(), 8) == floor(8)


def test_p_is_divided_by_the_share_and_the_interval_has_its_level():
    once, look = summary(GOOD, 8, Rule()), summary(GOOD, 8)
    a, b = (next(row for row in found.arms if row.arm == "a") for found in (once, look))
    assert (once.level, look.level) == (0.95, 1 - 0.05 * 8 / 30)
    assert b.p_sum_holm == pytest.approx(a.p_sum_holm * 30 / 8)
    assert b.p_single == pytest.approx(a.p_single * 30 / 8)
    assert b.over_sum.low < a.over_sum.low < a.over_sum.high < b.over_sum.high
    assert any("98.7 % interval" in reason for reason in look.verdict.reasons)
    assert any("share alpha = 0.05 out as 0 %, 27 %, 33 % and 40 %" in reason for reason in look.verdict.reasons)


def test_a_planned_look_decides_and_a_number_between_does_not():
    found = {seeds: summary(GOOD, seeds).verdict for seeds in range(6, 14)}
    assert [seeds for seeds, verdict in found.items() if verdict.decision == "ADOPT"] == [8, 10, 12]
    assert all(found[seeds].decision == "UNDECIDED" for seeds in (6, 7, 9, 11, 13))
    assert "concludes nothing at this number, and its next look is at 10" in found[9].headline
    assert (found[6].more_seeds, found[7].more_seeds, found[9].more_seeds) == (2, 1, 1)
    assert "last look was at 12" in found[13].headline
    assert found[13].more_seeds is None
    assert any("can't decide any more" in reason for reason in found[13].reasons)


def test_more_seeds_are_counted_to_a_look_with_a_share_large_enough():
    arms = {"sum": 10.0, **{f"arm{i}": -10.0 + i for i in range(5)}}
    found = summary(arms, 8).verdict
    assert (found.decision, found.more_seeds) == ("UNDECIDED", 2)
    assert "With 5 candidate arms Holm needs at least 10 seeds, and this study has 8." in found.reasons


def test_looks_that_can_never_decide_say_so():
    found = summary(GOOD, 4, Rule(looks=(3, 4))).verdict
    assert (found.decision, found.more_seeds) == ("UNDECIDED", None)
    assert any("No look of the rule has enough seeds" in reason for reason in found.reasons)


def test_a_candidate_that_lacks_a_seed_of_the_look_is_left_out():
    runs = [run for run in study(GOOD, 8, 0.3) if (run.arm, run.seed) != ("a", 7)]
    found = summarise(tasks(3), runs, RULE, higher_is_better=lower(3)).verdict
    assert found.decision != "ADOPT"
    assert "a is left out of the decision: it has 7 of the 8 seeds of this look." in found.reasons


# Simulation: every arm is the sum with other noise, which is symmetric, of unequal spread, and shared through the sum.


@cache
def errors(arms: int, shared_out: bool, studies: int = STUDIES) -> tuple[float, float]:
    """How often any look shows a difference that is not there, and how often one ends in ADOPT."""
    generator = np.random.default_rng(11)
    rule = Rule(margin=1000.0, worst_task=1000.0)
    shown = adopted = 0
    for _ in range(studies):
        spread = np.exp(0.5 * generator.standard_normal(LOOKS[-1]))
        noise = generator.standard_normal((arms + 1, LOOKS[-1])) * spread
        differences = noise[1:] - noise[0]
        any_shown = any_adopted = False
        for seeds in LOOKS:
            look = look_at(RULE, seeds)
            if shared_out and not look.concludes:
                continue
            share = look.share if shared_out else 1.0
            # Intervals that exclude zero whenever the mean does: only the tests stand between noise and a claim.
            over = [Observed(d[:seeds], d[:seeds].mean(), d[:seeds].mean(), share) for d in differences]
            if min(holm(o.p() for o in over)) >= rule.alpha:
                continue
            any_shown = True
            own = Observed(np.full(seeds, -50.0), -50.0, -50.0, share)
            evidence = [Evidence("sum", own, own, {}), *(Evidence(f"a{i}", own, o, {}) for i, o in enumerate(over))]
            any_adopted |= outcome(evidence, rule)[0] == "ADOPT"
        shown += any_shown
        adopted += any_adopted
    return shown / studies, adopted / studies


@pytest.mark.parametrize("arms", [1, 5])
def test_all_looks_together_err_no_more_often_than_the_level(arms):
    shown, adopted = errors(arms, shared_out=True)
    bound = stats.binom.ppf(0.999, STUDIES, 0.05) / STUDIES
    assert adopted <= shown <= bound
    assert adopted <= 0.05


@pytest.mark.parametrize("arms", [1, 5])
def test_adding_seeds_without_the_rule_errs_far_more_often(arms):
    shown, adopted = errors(arms, shared_out=False)
    assert shown > 0.08
    assert adopted > 1.5 * errors(arms, shared_out=True)[1]
