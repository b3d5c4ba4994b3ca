"""Pairing, changes, costs and what is left out, from runs to the verdict's table."""

import math

import numpy as np
import pytest

from motet.metrics import delta_m
from motet.study.inference import observe
from motet.study.results import ArmSummary, Run, Summary
from motet.study.statistics import summarise
from tests.study.runs import lower, run, study, tasks


def summary(runs: list[Run], count: int = 3, **options) -> Summary:
    return summarise(tasks(count), runs, higher_is_better=options.pop("higher", lower(count)), **options)


def rows(found: Summary) -> dict[str, ArmSummary]:
    return {row.arm: row for row in found.arms}


NOISY = study({"sum": 3.0, "a": [-2.0, 0.0, 5.0], "b": 1.0}, seeds=7, noise=1.0)


def test_mean_delta_m_is_that_of_the_mean_results():
    found = rows(summary(NOISY))
    means = {
        arm: [np.mean([r.test[f"t{k}"] for r in NOISY if r.arm == arm]) for k in range(3)]
        for arm in ("stl", "sum", "a")
    }
    for arm in ("sum", "a"):
        assert found[arm].delta_m.mean == pytest.approx(delta_m(means[arm], means["stl"], False))
        assert found[arm].over_sum.mean == pytest.approx(found[arm].delta_m.mean - found["sum"].delta_m.mean)


def test_single_task_has_no_change_against_itself():
    single = rows(summary(NOISY))["stl"]
    assert (single.delta_m.mean, single.delta_m.low, single.delta_m.high) == (0, 0, 0)
    assert all(change.mean == 0 for change in single.per_task.values())
    assert (single.worst_task, single.worst_change, single.harmed) == ("", 0, [])
    assert math.isnan(single.p_single)
    assert math.isnan(single.p_sum_holm)
    assert math.isnan(single.mean_rank)


def test_difficulty_of_a_seed_cancels():
    # The arms differ from single-task by the same amount in every seed, though seeds differ by far more.
    plain = rows(summary(study({"sum": 3.0}, seeds=6)))["sum"]
    assert plain.delta_m.high - plain.delta_m.low < 1e-9
    assert plain.delta_m.mean == pytest.approx(np.mean([c.mean for c in plain.per_task.values()]))


def test_one_seed_with_a_single_task_result_near_zero_does_not_dominate():
    runs = [run(arm, seed, {"t0": v}) for seed in range(6) for arm, v in [("stl", 1.0), ("sum", 1.1)]]
    runs[0], runs[1] = run("stl", 0, {"t0": 1e-6}), run("sum", 0, {"t0": 0.1})
    assert abs(rows(summary(runs, 1))["sum"].delta_m.mean) < 15


def test_worse_is_positive_where_higher_is_better():
    higher = dict.fromkeys(lower(3), True)
    up, down = rows(summary(NOISY)), rows(summary(NOISY, higher=higher))
    assert down["sum"].delta_m.mean == pytest.approx(-up["sum"].delta_m.mean)
    assert down["sum"].log_ratio.mean == pytest.approx(-up["sum"].log_ratio.mean)


def test_worst_and_harmed_tasks_are_named():
    row = rows(summary(study({"sum": 3.0, "a": [-2.0, -1.0, 5.0]}, seeds=7, noise=0.3)))["a"]
    assert row.worst_task == "t2"
    assert row.worst_change == row.per_task["t2"].mean == pytest.approx(5 / 1.1, abs=0.5)
    assert row.harmed == ["t2"]


def test_intervals_are_the_paired_bootstrap_of_the_changes():
    stl = np.array([r.test["t1"] for r in NOISY if r.arm == "stl"])
    arm = np.array([r.test["t1"] for r in NOISY if r.arm == "b"])
    (expected,) = observe([(arm - stl) * (100 / stl.mean())])
    found = rows(summary(NOISY))["b"].per_task["t1"]
    assert (found.mean, found.low, found.high) == pytest.approx((expected.mean, expected.low, expected.high))


def test_the_same_runs_in_another_order_give_the_same_numbers():
    there, back = rows(summary(NOISY)), rows(summary(NOISY[::-1]))
    for arm, row in there.items():
        assert row.delta_m == back[arm].delta_m
        assert row.per_task == back[arm].per_task


def test_mean_rank_leaves_single_task_out_and_ties_share():
    found = rows(summary(study({"sum": 3.0, "a": 3.0, "b": [9.0, 1.0, 1.0]}, seeds=4)))
    assert {arm: row.mean_rank for arm, row in found.items() if arm != "stl"} == pytest.approx(
        {"sum": (1 + 2 + 2) / 3, "a": (1 + 2 + 2) / 3, "b": (3 + 1 + 1) / 3}
    )


def test_costs_are_medians_and_the_step_is_compared_seed_by_seed():
    steps = {"stl": [0.1, 0.1, 0.1], "sum": [0.1, 0.2, 0.4], "a": [0.15, 0.3, 0.4]}
    runs = [
        run(arm, s, {"t0": 1.0 + s}, step=v, total=v * 100) for arm, own in steps.items() for s, v in enumerate(own)
    ]
    row = rows(summary(runs, 1))["a"]
    assert (row.seconds_per_step, row.total_seconds, row.peak_memory_mib) == (0.3, 30, 51)
    assert row.step_cost == pytest.approx(1.5)
    assert row.parameters == 7
    assert rows(summary(runs, 1))["sum"].step_cost == 1


def test_an_arm_with_missing_seeds_uses_those_in_common_and_the_verdict_says_so():
    runs = [r for r in NOISY if not (r.arm == "a" and r.seed in (2, 5))]
    found = summary(runs)
    assert {row.arm: row.seeds for row in found.arms} == {"stl": 7, "sum": 7, "a": 5, "b": 7}
    assert any("a has no run with seeds 2 and 5" in reason for reason in found.verdict.reasons)
    assert rows(found)["b"] == rows(summary(NOISY))["b"]


def test_an_arm_without_any_common_seed_stays_out_of_the_decision():
    runs = [*study({"sum": 3.0}, seeds=6), run("late", 17, {"t0": 0.1, "t1": 0.1, "t2": 0.1})]
    found = summary(runs)
    assert rows(found)["late"].seeds == 0
    assert math.isnan(rows(found)["late"].delta_m.mean)
    assert found.verdict.decision == "KEEP SINGLE"


def test_a_task_undefined_for_everyone_in_a_seed_is_left_out_there():
    runs = [run(r.arm, r.seed, {**r.test, "t1": math.nan}) if r.seed == 3 else r for r in NOISY]
    found = summary(runs)
    row = rows(found)["sum"]
    assert row.seeds == 7
    own = {r.seed: r.test for r in runs if r.arm == "sum"}
    single = {r.seed: r.test for r in runs if r.arm == "stl"}
    without = np.mean([own[s]["t1"] - single[s]["t1"] for s in range(7) if s != 3])
    level = np.mean([single[s]["t1"] for s in range(7) if s != 3])
    assert row.per_task["t1"].mean == pytest.approx(100 * without / level)
    assert "Task 't1' is left out of seed 3 for all arms: stl or sum has no finite result." in found.verdict.reasons
    assert found.verdict.decision == summary(NOISY).verdict.decision


def test_an_arm_that_diverged_cannot_be_adopted_and_costs_the_others_nothing():
    good = study({"sum": 3.0, "a": -6.0}, seeds=8, noise=0.2)
    assert summary(good).verdict.arm == "a"
    runs = [run(r.arm, r.seed, {**r.test, "t0": math.inf}) if (r.arm, r.seed) == ("a", 4) else r for r in good]
    found = summary(runs)
    assert found.verdict.decision != "ADOPT"
    assert rows(found)["a"].seeds == 7
    assert rows(found)["sum"].delta_m == rows(summary(good))["sum"].delta_m
    assert "a has no finite result for task 't0' in seed 4, where other arms have one." in found.verdict.reasons
    assert "a is left out of the decision: it lacks results that other arms have." in found.verdict.reasons


def test_a_task_that_single_task_solves_perfectly_is_left_out_of_delta_m_by_name():
    runs = [run(r.arm, r.seed, {**r.test, "t2": 0.0 if r.arm == "stl" else 0.1}) for r in NOISY]
    found = summary(runs)
    row = rows(found)["sum"]
    assert math.isnan(row.per_task["t2"].mean)
    assert row.delta_m.mean == pytest.approx((row.per_task["t0"].mean + row.per_task["t1"].mean) / 2)
    assert any("'t2' has a single-task result of zero" in reason for reason in found.verdict.reasons)


def test_a_task_with_negative_results_keeps_its_delta_m_and_leaves_the_log_ratio():
    runs = [run(r.arm, r.seed, {**r.test, "t2": -r.test["t2"]}) for r in NOISY]
    found = summary(runs)
    assert rows(found)["sum"].per_task["t2"].mean == pytest.approx(-rows(summary(NOISY))["sum"].per_task["t2"].mean)
    assert math.isfinite(rows(found)["sum"].log_ratio.mean)
    assert any("log-ratio leaves out task t2" in reason for reason in found.verdict.reasons)


def test_a_single_task_result_uncertain_for_its_size_is_pointed_out():
    runs = [run(r.arm, r.seed, {**r.test, "t0": r.test["t0"] - 1.1}) for r in NOISY]
    assert any("'t0' is uncertain for its size" in reason for reason in summary(runs).verdict.reasons)


def test_one_task_and_one_seed_are_enough_for_a_table():
    found = summary([run("stl", 0, {"t0": 1.0}), run("sum", 0, {"t0": 1.1})], 1)
    assert rows(found)["sum"].delta_m.mean == pytest.approx(10)
    assert math.isnan(rows(found)["sum"].delta_m.low)
    assert found.verdict.decision == "UNDECIDED"
    assert found.baseline == {"t0": 1.0}


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([], "there is no run of 'stl'.* have none"),
        ([run("stl", 0, {"t0": 1.0}), run("a", 0, {"t0": 1.0})], "there is no run of 'sum'.* have stl and a"),
        ([run("stl", 0, {"t0": 1.0}), run("sum", 1, {"t0": 1.0})], "'stl' and 'sum' have no seed in common"),
        ([run("stl", 0, {"t0": 1.0})] * 2, "arm 'stl' has two runs with seed 0"),
        ([run(a, 0, {"t_0": 1.0}) for a in ("stl", "sum")], "'stl' with seed 0 has no result of task 't0'.*'t_0'"),
        ([run(a, 0, {"t0": 0.0}) for a in ("stl", "sum")], "no task has a finite result of both stl and sum"),
    ],
)
def test_what_cannot_be_compared_is_refused_by_name(runs, message):
    with pytest.raises(ValueError, match=message):
        summary(runs, 1)


def test_a_task_without_direction_is_named():
    with pytest.raises(ValueError, match="higher_is_better has no task 't2'"):
        summary(NOISY, higher={"t0": False, "t1": False})


def test_means_and_delta_m_by_seed_are_of_the_seeds_that_enter():
    runs = [run for run in study({"sum": 1.0, "a": 2.0}, 6, 0.3) if run.arm != "sum" or run.seed < 4]
    found = rows(summary(runs))
    used = [run for run in runs if run.arm == "a" and run.seed < 4]
    assert found["a"].means["t0"] == pytest.approx(np.mean([run.test["t0"] for run in used]))
    assert list(found["a"].by_seed) == [0, 1, 2, 3]
    assert np.mean(list(found["a"].by_seed.values())) == pytest.approx(found["a"].delta_m.mean)
