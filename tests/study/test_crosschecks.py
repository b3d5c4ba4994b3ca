"""What a sceptic would ask of a verdict: which tasks are harmed, one checkpoint for all, another measure."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motet.study.inference import holm, observe
from motet.study.results import ArmSummary, Run, Summary
from motet.study.statistics import summarise
from tests.study.runs import lower, run, study, tasks


def summary(runs: list[Run], count: int = 3) -> Summary:
    return summarise(tasks(count), runs, higher_is_better=lower(count))


def rows(found: Summary) -> dict[str, ArmSummary]:
    return {row.arm: row for row in found.arms}


def said(found: Summary, text: str) -> list[str]:
    return [reason for reason in found.verdict.reasons if text in reason]


HARM = {"sum": [-2.0, -2.0, 5.0]}


def test_a_task_is_harmed_if_interval_and_test_with_holm_over_the_tasks_say_so():
    found = summary(study(HARM, seeds=8, noise=0.3))
    assert (rows(found)["sum"].harmed, rows(found)["sum"].suspected) == (["t2"], [])
    assert said(found, "sum is shown to be worse than single-task on 't2' with Holm over 3 tasks.")


def test_an_interval_alone_harms_no_task():
    found = summary(study(HARM, seeds=6, noise=0.3))
    assert (rows(found)["sum"].harmed, rows(found)["sum"].suspected) == ([], ["t2"])
    assert said(found, "sum may be worse on 't2': 6 seeds can't show it with Holm over 3 tasks.")


def test_tasks_that_do_not_change_are_rarely_called_harmed_though_their_intervals_often_are_worse():
    generator = np.random.default_rng(4)
    shown = worse = 0
    for _ in range(40):
        estimates = observe(list(generator.standard_normal((10, 10))))
        adjusted = holm(e.p() for e in estimates)
        worse += any(e.low > 0 for e in estimates)
        shown += any(e.low > 0 and p < 0.05 for e, p in zip(estimates, adjusted, strict=True))
    assert shown <= 0.05 * 40
    assert worse > 0.2 * 40


def specialised(runs: list[Run], gain: float, but: str = "") -> list[Run]:
    """Every task of shared models better by ``gain`` per cent with a checkpoint of its own."""
    return [
        replace(r, specialised={t: v * (1 if r.arm == "stl" else 1 - gain / 100) for t, v in r.test.items()})
        if r.arm != but
        else r
        for r in runs
    ]


PLAIN = study({"sum": 3.0, "a": 2.0}, seeds=8, noise=0.3)


def test_changes_with_a_checkpoint_a_task_are_paired_like_the_others():
    found = rows(summary(specialised(PLAIN, 3.0)))
    level = {t: np.mean([r.test[t] for r in PLAIN if r.arm == "stl"]) for t in lower(3)}
    own = {(r.arm, r.seed): r.test for r in PLAIN}
    changes = [
        np.mean([(0.97 * own["a", s][t] - own["stl", s][t]) * (100 / level[t]) for t in level]) for s in range(8)
    ]
    (expected,) = observe([np.array(changes)])
    change = found["a"].specialised
    assert (change.mean, change.low, change.high) == pytest.approx((expected.mean, expected.low, expected.high))
    assert found["stl"].specialised.mean == 0


def test_a_harm_that_disappears_with_a_checkpoint_a_task_is_said():
    (text,) = said(summary(specialised(PLAIN, 3.0)), "With a checkpoint for each task")
    assert "one epoch for all tasks" in text
    assert not said(summary(specialised(PLAIN, 0.1)), "With a checkpoint")
    harmless = specialised(study({"sum": -3.0}, seeds=8, noise=0.3), 3.0)
    assert not said(summary(harmless), "With a checkpoint")


def test_runs_that_kept_no_checkpoint_a_task_have_no_such_change():
    found = summary(specialised(PLAIN, 3.0, but="sum"))
    assert math.isnan(rows(found)["sum"].specialised.mean)
    assert math.isfinite(rows(found)["a"].specialised.mean)
    assert not said(found, "With a checkpoint")


def three(changes: dict[str, list[float]], seeds: int = 8) -> list[Run]:
    """Arms with results of ``1 + change`` where single-task has 1, and a little noise."""
    generator = np.random.default_rng(1)
    return [
        run(arm, seed, {f"t{k}": (1 + c) * math.exp(0.002 * generator.standard_normal()) for k, c in enumerate(own)})
        for seed in range(seeds)
        for arm, own in {"stl": [0.0] * 3, **changes}.items()
    ]


def test_a_change_whose_log_ratio_has_the_other_sign_is_pointed_out():
    # +100 % and twice -40 %: Δm is worse by 7 %, the log-ratio better by 11 %.
    found = summary(three({"sum": [1.0, -0.4, -0.4]}))
    row = rows(found)["sum"]
    assert row.delta_m.mean > 5 > -5 > row.log_ratio.mean
    assert said(found, f"Δm of sum is +{row.delta_m.mean:.1f} %, but its mean log-ratio −{-row.log_ratio.mean:.1f} %")
    assert not said(summary(three({"sum": [0.1, 0.1, 0.1]})), "log-ratio")


def test_a_winner_that_another_measure_would_not_name_is_pointed_out():
    found = summary(three({"sum": [1.0, -0.4, -0.4], "a": [0.05, 0.05, 0.05]}))
    assert rows(found)["a"].over_sum.high < 0
    (text,) = said(found, "Against the sum a has −")
    assert "points in Δm, but +15" in text or "points in Δm, but +16" in text
    assert said(found, "By mean log-ratio the best shared model is sum, by Δm it is a.") or found.verdict.arm != "a"
    assert not said(summary(three({"sum": [0.1] * 3, "a": [0.05] * 3})), "log-ratio")


def test_measures_of_other_tasks_are_not_held_against_each_other():
    runs = [replace(r, test={**r.test, "t0": -r.test["t0"]}) for r in three({"sum": [1.0, -0.4, -0.4]})]
    assert not said(summary(runs), "but its mean log-ratio")


NOISY = study({"sum": 2.0, "a": [-2.0, 0.0, 3.0], "b": 1.0}, seeds=8, noise=1.0)


def figures(found: Summary) -> dict[str, list[float]]:
    """What must not depend on names, order or units; the bootstrap's bounds depend on the order of seeds a little."""
    return {
        row.arm: [
            row.delta_m.mean, row.log_ratio.mean, row.over_sum.mean, row.p_sum, row.p_sum_holm, row.p_single,
            row.mde_sum, row.mde_single, row.worst_change, row.hypervolume, len(row.harmed),
        ]
        for row in found.arms
    }  # fmt: skip


def same(found: Summary, other: Summary) -> None:
    assert found.verdict.decision == other.verdict.decision
    there, here = figures(other), figures(found)
    for arm, values in here.items():
        assert values == pytest.approx(there[arm], nan_ok=True, rel=1e-7, abs=1e-7)


BEFORE = summary(NOISY)


@settings(max_examples=6)
@given(st.permutations(range(3)))
def test_the_names_of_tasks_do_not_matter(order):
    same(summary([replace(r, test={f"t{k}": r.test[f"t{i}"] for k, i in enumerate(order)}) for r in NOISY]), BEFORE)


@settings(max_examples=6)
@given(st.permutations(range(8)))
def test_the_numbers_of_seeds_do_not_matter(order):
    same(summary([replace(r, seed=order[r.seed]) for r in NOISY]), BEFORE)


@settings(max_examples=6)
@given(st.integers(-8, 8), st.integers(0, 2))
def test_the_unit_of_a_metric_does_not_matter(exponent, task):
    factor = 2.0**exponent  # exact: other factors move the bootstrap's bounds where resamples tie up to rounding
    name = f"t{task}"
    found = summary([replace(r, test={**r.test, name: factor * r.test[name]}) for r in NOISY])
    same(found, BEFORE)
    for row in found.arms:
        assert row.delta_m.low == pytest.approx(rows(BEFORE)[row.arm].delta_m.low)
