"""The epoch that counts: best on validation, and never one in which a task is undefined."""

import math

import pytest

from motet.problems.base import Task
from motet.study.choice import score

TASKS = (Task("dose", "regression", "mae"), Task("ill", "binary", "auroc"))
SINGLE = {"dose": 2.0, "ill": 0.8}


def test_a_shared_model_is_judged_by_its_mean_relative_gain():
    assert score(TASKS, {"dose": 1.0, "ill": 0.6}, SINGLE) == pytest.approx((0.5 - 0.25) / 2)
    assert score(TASKS, SINGLE, SINGLE) == 0


@pytest.mark.parametrize(("task", "worse", "better"), [(TASKS[0], 2.0, 1.0), (TASKS[1], 0.4, 0.5)])
def test_a_single_task_is_judged_by_its_metric_in_its_direction(task, worse, better):
    assert score((task,), {task.name: better}, None) > score((task,), {task.name: worse}, None)


@pytest.mark.parametrize("undefined", [math.nan, math.inf])
def test_an_epoch_with_an_undefined_task_is_the_worst_of_all(undefined):
    # The other task is much better than ever: its mean alone would win.
    assert score(TASKS, {"dose": 0.01, "ill": undefined}, SINGLE) == -math.inf
    assert score(TASKS[:1], {"dose": undefined}, None) == -math.inf


@pytest.mark.parametrize("reference", [math.nan, 0.0])
@pytest.mark.parametrize("value", [math.nan, 0.3])
def test_a_task_without_a_reference_to_divide_by_is_left_out_of_every_epoch(reference, value):
    assert score(TASKS, {"dose": value, "ill": 0.6}, {"dose": reference, "ill": 0.8}) == pytest.approx(-0.25)


def test_without_any_reference_the_metrics_themselves_decide():
    nothing = {"dose": 0.0, "ill": math.nan}
    assert score(TASKS, {"dose": 1.0, "ill": 0.5}, nothing) > score(TASKS, {"dose": 2.0, "ill": 0.5}, nothing)
