"""What a run keeps for comparisons at equal cost, and of a checkpoint for each task."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest

from motet import problems
from motet.metrics import METRICS
from motet.study.arms import parse
from motet.study.training import train

TRAINING = {"epochs": 4, "patience": 4}


@pytest.fixture(scope="module")
def runs():
    problem = problems.get("planted-scale")
    data = problem.load(0)
    training = replace(problem.training, **TRAINING)
    single = train(problem, data, parse("stl"), 0, training).run
    return {"stl": single} | {
        arm: train(problem, data, parse(arm), 0, training, single.validation).run for arm in ("sum", "pcgrad@exact")
    }


@pytest.mark.parametrize("arm", ["stl", "sum", "pcgrad@exact"])
def test_a_curve_ends_with_the_runs_own_results_and_cost(runs, arm):
    run = runs[arm]
    last = run.curve[-1]
    assert last.test == pytest.approx(run.test)
    assert (last.updates, last.forwards, last.backwards) == (run.cost.updates, run.cost.forwards, run.cost.backwards)


@pytest.mark.parametrize("arm", ["stl", "sum", "pcgrad@exact"])
def test_cost_grows_with_every_epoch(runs, arm):
    for field in ("seconds", "updates", "forwards", "backwards"):
        values = [getattr(row, field) for row in runs[arm].curve]
        assert all(late > early > 0 for early, late in pairwise(values))


def test_a_task_alone_is_its_own_specialist(runs):
    assert runs["stl"].specialised == pytest.approx(runs["stl"].test)


def test_a_specialist_is_of_the_epoch_that_is_best_for_its_task(runs):
    run = runs["sum"]
    tasks = {task.name: METRICS[task.metric] for task in problems.get("planted-scale").load(0).tasks}
    for name, metric in tasks.items():
        sign = 1 if metric.higher_is_better else -1
        values = [sign * row.validation[name] for row in run.curve]
        if values.index(max(values)) == run.best_epoch[name] - 1:
            assert run.specialised[name] == pytest.approx(run.test[name])
        assert math.isfinite(run.specialised[name])


def test_one_backward_a_task_counts_as_many(runs):
    assert runs["pcgrad@exact"].cost.backwards > runs["sum"].cost.backwards
