"""What a study could have shown, and intervals for splits that share rows."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from motet.study.inference import floor, sign_flip
from motet.study.results import ArmSummary, Rule, Summary
from motet.study.sensitivity import detectable, effect_size, resampled
from motet.study.statistics import summarise
from tests.study.runs import lower, study, tasks


def summary(changes: dict, seeds: int = 8, noise: float = 1.0, rule: Rule = Rule(), **options) -> Summary:  # noqa: B008
    return summarise(tasks(3), study(changes, seeds, noise), rule, higher_is_better=lower(3), **options)


def rows(found: Summary) -> dict[str, ArmSummary]:
    return {row.arm: row for row in found.arms}


@pytest.mark.parametrize(("seeds", "level"), [(6, 0.05), (8, 0.05), (8, 0.025), (10, 0.01), (13, 0.05)])
def test_a_difference_of_the_detectable_size_is_shown_four_times_in_five(seeds, level):
    draws = np.random.default_rng(3).standard_normal((1500, seeds)) + effect_size(seeds, level)
    assert np.mean([sign_flip(row) < level for row in draws]) == pytest.approx(0.8, abs=0.04)


def test_six_seeds_show_a_difference_only_if_all_signs_agree():
    # P(all six positive) = Φ(d)⁶ = 0.8.
    assert effect_size(6, 0.05) == pytest.approx(stats.norm.ppf(0.8 ** (1 / 6)), rel=0.03)


@pytest.mark.parametrize("seeds", [2, 5, 8, 14])
def test_below_the_least_p_value_no_difference_is_large_enough(seeds):
    assert math.isinf(effect_size(seeds, floor(seeds)))
    assert math.isfinite(effect_size(seeds, 1.01 * floor(seeds)))


def test_more_seeds_and_a_larger_level_show_smaller_differences():
    sizes = [effect_size(n, 0.05) for n in range(6, 17)]
    assert sizes == sorted(sizes, reverse=True)
    levels = [effect_size(10, level) for level in (0.005, 0.01, 0.025, 0.05)]
    assert levels == sorted(levels, reverse=True)


@given(
    st.lists(st.integers(-100, 100).map(float), min_size=6, max_size=9).map(np.array),
    st.floats(0.1, 10),
    st.floats(-100, 100),
)
def test_the_detectable_size_is_proportional_to_the_spread_and_blind_to_the_mean(values, factor, shift):
    once = detectable(values, 0.05)
    assert detectable(factor * values + shift, 0.05) == pytest.approx(factor * once, abs=1e-9)
    assert detectable(1.01 * values, 0.05) >= once >= 0


def test_a_single_seed_says_nothing_of_what_could_be_shown():
    assert math.isnan(detectable(np.array([1.0]), 0.05))


def test_the_table_has_what_could_be_shown_against_the_sum_with_holm_and_against_single_task():
    found = rows(summary({"sum": 1.0, "a": 0.0, "b": 2.0}))
    runs = study({"sum": 1.0, "a": 0.0, "b": 2.0}, 8, 1.0)
    level = {f"t{k}": np.mean([run.test[f"t{k}"] for run in runs if run.arm == "stl"]) for k in range(3)}
    results = {(run.arm, run.seed): run.test for run in runs}

    def change(seed: int, other: str) -> float:
        return np.mean([100 * (results["a", seed][t] - results[other, seed][t]) / level[t] for t in level])

    for size, other, alpha in ((found["a"].mde_sum, "sum", 0.025), (found["a"].mde_single, "stl", 0.05)):
        spread = np.std([change(seed, other) for seed in range(8)], ddof=1)
        assert size == pytest.approx(spread * effect_size(8, alpha))
    assert math.isnan(found["sum"].mde_sum)
    assert math.isnan(found["stl"].mde_single)


def test_what_would_have_been_missed_is_said_where_no_gain_was_found():
    wide = summary({"sum": 0.0, "a": 0.0}, noise=4.0)
    size = rows(wide)["a"].mde_sum
    said = f"a gain of a on the sum smaller than {size:.1f} points would have been missed"
    assert wide.verdict.decision == "UNDECIDED"
    assert any(said in reason for reason in wide.verdict.reasons)
    kept = summary({"sum": -1.0, "a": -1.1}, noise=0.2)
    assert kept.verdict.decision == "KEEP SUM"
    assert any("would have missed a gain of a smaller than" in reason for reason in kept.verdict.reasons)
    adopted = summary({"sum": 3.0, "a": -3.0}, noise=0.2)
    assert adopted.verdict.decision == "ADOPT"
    assert not any("would have been missed" in reason for reason in adopted.verdict.reasons)
    few = summary({"sum": 3.0, "a": -3.0}, seeds=5)
    assert math.isinf(rows(few)["a"].mde_sum)
    assert any("would have been missed however large it is" in reason for reason in few.verdict.reasons)


def test_without_a_share_of_test_rows_the_corrected_interval_is_students():
    values = np.random.default_rng(0).normal(1, 2, 9)
    found = resampled(values, 0.0)
    assert (found.low, found.high) == pytest.approx(tuple(stats.ttest_1samp(values, 0).confidence_interval()))


def test_the_corrected_variance_adds_the_ratio_of_test_to_training_rows():
    values = np.array([1.0, 2.0, 4.0, 5.0])
    found = resampled(values, 0.25)
    reach = stats.t.ppf(0.975, 3) * np.sqrt((1 / 4 + 1 / 4) * values.var(ddof=1))
    assert (found.mean, found.low, found.high) == pytest.approx((3, 3 - reach, 3 + reach))


def with_rows(runs, **rows):
    from dataclasses import replace

    return [replace(run, provenance={"rows": rows}) for run in runs]


def test_the_corrected_interval_is_given_beside_the_other_where_rows_recur_and_changes_no_decision():
    plain = study({"sum": 3.0, "a": 2.0}, 8, 1.0)
    known = with_rows(plain, train=600, validation=200, test=200)
    once = summarise(tasks(3), plain, higher_is_better=lower(3))
    found = summarise(tasks(3), known, higher_is_better=lower(3), rows_recur=True)
    row = rows(found)["a"]
    assert row.over_sum == rows(once)["a"].over_sum
    assert found.verdict.decision == once.verdict.decision
    assert row.over_sum_resampled.low < row.over_sum.low < row.over_sum.high < row.over_sum_resampled.high
    assert sum(reason.startswith("For other data of this kind") for reason in found.verdict.reasons) == 1
    for other in (
        summarise(tasks(3), known, higher_is_better=lower(3)),
        summarise(tasks(3), plain, higher_is_better=lower(3), rows_recur=True),
        summarise(tasks(3), [*plain[:-1], known[-1]], higher_is_better=lower(3), rows_recur=True),
    ):
        assert math.isnan(rows(other)["a"].over_sum_resampled.low)
        assert not any("For other data" in reason for reason in other.verdict.reasons)
