"""Results at equal cost, from trainings that can be worked out by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest

from motet import problems
from motet.metrics import METRICS
from motet.study import budgets
from motet.study.arms import parse
from motet.study.budgets import CLOCKS, disagreements, ledger
from motet.study.pairing import pair
from motet.study.results import Epoch
from motet.study.statistics import summarise
from motet.study.training import train
from tests.study import runs as made

NAN = math.nan


def run(arm, seed, kept, updates=10, seconds=1.0, backwards=10, **tests):
    """A run that keeps ``kept[e]`` of task t0 after epoch e + 1, with so much spent an epoch."""
    rows = [
        Epoch(e + 1, seconds * (e + 1), {}, {}, {"t0": value}, updates * (e + 1), 1, backwards * (e + 1))
        for e, value in enumerate(kept)
    ]
    return replace(made.run(arm, seed, {"t0": kept[-1]}), curve=rows)


def of(*found, tasks=("t0",)):
    return ledger(pair(list(tasks), found, dict.fromkeys(tasks, False)))


def three():
    """Single-task ends at 100, the sum at 110; the arm is better at last, for three times as many passes."""
    return (
        run("stl", 0, [120.0, 100.0], updates=20, seconds=2.0, backwards=20),
        run("sum", 0, [140.0, 120.0, 115.0, 110.0]),
        run("arm", 0, [150.0, 112.0, 108.0, 105.0], seconds=2.0, backwards=30),
    )


def test_every_clock_stops_the_arm_where_the_sum_was_done():
    # The sum spends 4 epochs, 40 steps, 4 seconds, 40 passes. For 4 seconds the arm has two epochs, for 40 passes one.
    found = of(*three())
    assert found.units == {"epoch": 4, "updates": 40, "seconds": 4, "backwards": 40}
    stopped = {clock: by_arm["arm"] for clock, by_arm in found.stopped().items()}
    assert {c: s.delta_m.mean for c, s in stopped.items()} == pytest.approx(
        {"epoch": 5, "updates": 5, "seconds": 12, "backwards": 50}
    )
    assert {c: s.over_sum.mean for c, s in stopped.items()} == pytest.approx(
        {"epoch": -5, "updates": -5, "seconds": 2, "backwards": 40}
    )
    assert [s.total for s in stopped.values()] == [1, 1, 2, 3]
    # 10 % worse than single-task, as the sum is at last, is passed with the third epoch.
    assert [s.reach for s in stopped.values()] == [0.75, 0.75, 1.5, 2.25]


def test_single_task_pays_for_all_of_its_models():
    stopped = {clock: by_arm["stl"] for clock, by_arm in of(*three()).stopped().items()}
    # Two epochs in all: 40 steps, 4 seconds, 40 passes are its whole training.
    assert [s.delta_m.mean for s in stopped.values()] == [0, 0, 0, 0]
    assert [s.total for s in stopped.values()] == [0.5, 1, 1, 1]
    assert [s.reach for s in stopped.values()] == [0.5, 1, 1, 1]


def test_between_epochs_the_last_one_is_kept_and_before_the_first_there_is_nothing():
    kept = of(*three()).arms["arm"][0]
    asked = np.array([0.0, 0.7, 0.75, 1.49, 1.5, 3.0, 1e9])
    np.testing.assert_allclose(kept.at("backwards", asked), [NAN, NAN, 50, 50, 12, 5, 5])


def test_the_sum_against_itself_is_nothing_and_its_curve_ends_at_one():
    found = of(*three(), *(replace(r, seed=1) for r in three()))
    for by_arm in found.stopped().values():
        assert by_arm["sum"].over_sum == budgets.Interval(0, 0, 0)
        assert (by_arm["sum"].total, by_arm["sum"].reach) == (1, 1)
    for curves in found.curves().values():
        assert curves["sum"].cost[-1] == 1


def test_a_busy_machine_in_one_seed_changes_nothing():
    calm = of(*three(), *(replace(r, seed=1) for r in three()))
    slow = [replace(r, seed=1, curve=[replace(e, seconds=7 * e.seconds) for e in r.curve]) for r in three()]
    assert calm.stopped() == of(*three(), *slow).stopped()


def test_an_arm_that_ends_worse_never_reaches_the_sum_even_if_it_once_did():
    stl, total, _ = three()
    lucky = run("arm", 0, [120.0, 109.0, 111.0])
    assert math.isnan(of(stl, total, lucky).stopped()["epoch"]["arm"].reach)


def test_a_curve_begins_where_every_seed_has_an_epoch():
    long = run("arm", 0, [110.0, 104.0], backwards=20)
    later = run("arm", 1, [120.0], backwards=30)
    sums = [run("sum", seed, [100.0, 100.0]) for seed in (0, 1)]
    curve = of(*(run("stl", seed, [100.0]) for seed in (0, 1)), *sums, long, later).curves()["backwards"]["arm"]
    np.testing.assert_allclose(curve.cost, [1.5, 2])
    np.testing.assert_allclose(curve.mean, [(10 + 20) / 2, (4 + 20) / 2])


def test_an_arm_without_an_epoch_by_then_has_no_result_at_that_cost():
    stl, total, _ = three()
    slow = run("arm", 0, [90.0], seconds=5.0)
    at = of(stl, total, slow).stopped()
    assert math.isnan(at["seconds"]["arm"].delta_m.mean)
    assert math.isnan(at["seconds"]["arm"].over_sum.mean)
    assert at["epoch"]["arm"].delta_m.mean == pytest.approx(-10)


def test_an_epoch_in_which_a_task_has_no_result_yet_counts_as_none():
    stl, total, _ = three()
    found = of(stl, total, run("arm", 0, [NAN, 105.0]))
    np.testing.assert_allclose(found.curves()["epoch"]["arm"].cost, [0.5])


def test_one_seed_gives_means_without_intervals():
    for by_arm in of(*three()).stopped().values():
        for at in by_arm.values():
            assert math.isfinite(at.delta_m.mean)
            assert math.isnan(at.delta_m.low)
    assert disagreements(of(*three())) == []


def test_runs_of_older_versions_are_left_out_with_the_reason():
    stl, total, arm = three()
    old = replace(arm, curve=[replace(row, test={}) for row in arm.curve])
    found = of(stl, total, old)
    assert list(found.arms) == ["stl", "sum"]
    assert "do not tell" in found.lacking["arm"]
    uncounted = replace(arm, curve=[replace(row, updates=0) for row in arm.curve])
    assert "arm" in of(stl, total, uncounted).lacking
    assert "arm" in of(stl, total, replace(arm, curve=[])).lacking


def test_without_the_sums_curve_nothing_is_known():
    stl, total, arm = three()
    found = of(stl, replace(total, curve=[]), arm)
    assert found.arms == {}
    assert "sum" in found.lacking
    assert found.curves() == found.stopped() == {}
    assert disagreements(found) == []


def test_a_clock_that_did_not_move_is_left_out():
    stl, total, arm = (replace(r, curve=[replace(e, seconds=0.0) for e in r.curve]) for r in three())
    found = of(stl, total, arm)
    assert list(found.units) == list(found.stopped()) == ["epoch", "updates", "backwards"]


def test_an_arm_without_any_result_is_named():
    stl, total, _ = three()
    assert "no result" in of(stl, total, made.run("arm", 0, {"t0": NAN})).lacking["arm"]


def study(gains, seeds=8, noise=0.3, backwards=30):
    """The arm is better by ``gains[0]`` after its whole training, and by ``gains[1]`` after the first third."""
    generator = np.random.default_rng(1)
    found = []
    for seed in range(seeds):
        late, early = (110 - gain + noise * generator.standard_normal() for gain in gains)
        found.append(run("stl", seed, [100.0]))
        found.append(run("sum", seed, [120.0, 115.0, 110.0]))
        found.append(run("arm", seed, [early, (early + late) / 2, late], backwards=backwards))
    return of(*found)


def test_a_gain_that_only_more_passes_buy_is_said():
    (sentence,) = disagreements(study((5.0, -5.0)))
    assert sentence.startswith("arm is better than sum after its whole training (−")
    assert "but worse at equal backward passes (+" in sentence
    (sentence,) = disagreements(study((5.0, 0.0), noise=0.5))
    assert "but not shown to be better at equal backward passes" in sentence


def test_a_gain_by_every_clock_is_no_disagreement():
    assert disagreements(study((5.0, 5.0))) == []
    assert disagreements(study((5.0, 3.0))) == []


def test_significant_here_and_not_there_is_no_disagreement_by_itself():
    # Better by one everywhere; the early result is only noisier, so that the test fails there.
    generator = np.random.default_rng(0)
    found = []
    for seed in range(8):
        early = 109 + 3 * generator.standard_normal()
        found += [run("stl", seed, [100.0]), run("sum", seed, [120.0, 110.0])]
        found.append(run("arm", seed, [early, 109 + 0.1 * generator.standard_normal()], backwards=20))
    assert disagreements(of(*found)) == []


def test_too_few_seeds_to_show_anything_show_no_disagreement():
    assert disagreements(study((5.0, -5.0), seeds=5)) == []


def test_nothing_is_concluded_from_an_arm_that_broke_down():
    found = study((5.0, -5.0))
    assert disagreements(replace(found, broken=frozenset({"arm"}))) == []


@pytest.fixture(scope="module")
def real():
    problem = problems.get("planted-scale")
    training = replace(problem.training, epochs=4, patience=4)
    found = []
    for seed in (0, 1):
        data = problem.load(seed)
        single = train(problem, data, parse("stl"), seed, training).run
        others = [train(problem, data, parse(arm), seed, training, single.validation).run for arm in ("sum", "famo")]
        found += [single, *others]
    return data.tasks, found


def test_curves_of_real_trainings_end_with_the_summarys_figures(real):
    tasks, found = real
    higher = {task.name: METRICS[task.metric].higher_is_better for task in tasks}
    known = ledger(pair([task.name for task in tasks], found, higher))
    curves = known.curves()
    assert list(curves) == list(CLOCKS)
    for arm in summarise(tasks, found, higher_is_better=higher).arms:
        for by_arm in curves.values():
            curve = by_arm[arm.arm]
            assert curve.mean[-1] == pytest.approx(arm.delta_m.mean, abs=1e-9)
            assert (curve.low[-1], curve.high[-1]) == pytest.approx((arm.delta_m.low, arm.delta_m.high), abs=1e-9)
            assert (np.diff(curve.cost) > 0).all()
            assert (curve.low <= curve.mean + 1e-9).all()
            assert (curve.mean <= curve.high + 1e-9).all()


def test_a_long_training_is_thinned_with_its_first_and_last_step():
    long = run("arm", 0, [200 - e / 10 for e in range(1000)])
    curve = of(run("stl", 0, [100.0]), run("sum", 0, [110.0]), long).curves()["epoch"]["arm"]
    assert len(curve.cost) <= budgets.POINTS + 1
    assert (curve.cost[0], curve.cost[-1]) == (1, 1000)
    np.testing.assert_allclose(curve.mean, 100 - (curve.cost - 1) / 10)
