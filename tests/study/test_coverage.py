"""The volume that arms cover, against figures by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motet.study.coverage import covered
from motet.study.statistics import summarise
from tests.study.runs import lower, study, tasks


def points(**arms: list[float]) -> dict[str, np.ndarray]:
    return {arm: np.array(row, dtype=float) for arm, row in arms.items()}


def test_a_front_of_two_tasks_by_hand():
    # In units of the limit of 10 %: boxes of 1 x 1, 2 x 1 and 0.5 x 3; the last two share 0.5 x 1, all three too.
    found = covered(points(stl=[0, 0], a=[-10, 0], b=[5, -20]), limit=10)
    assert found.volume == pytest.approx(3)
    assert found.alone == pytest.approx({"stl": 0, "a": 1 / 3, "b": 1 / 3})


def test_single_task_alone_has_a_volume_of_one():
    assert covered(points(stl=[0, 0, 0], a=[1, 2, 3]), 10).volume == pytest.approx(1)


def test_a_point_beyond_the_limit_adds_nothing():
    found = covered(points(stl=[0, 0], a=[11, -50]), 10)
    assert found.alone == {"stl": 1, "a": 0}


@pytest.mark.parametrize("count", [1, 5])
def test_one_task_and_many_have_no_volume(count):
    found = covered({"stl": np.zeros(count), "a": np.full(count, -1.0)}, 10)
    assert math.isnan(found.volume)


def test_of_equal_arms_neither_is_needed():
    found = covered(points(a=[-1, 1], b=[-1, 1]), 10)
    assert found.alone == {"a": 0, "b": 0}


def test_an_arm_without_a_result_stays_out():
    assert set(covered(points(a=[-1, math.nan], b=[1, 1]), 10).alone) == {"b"}
    assert covered({}, 10).alone == {}


@given(st.lists(st.tuples(*[st.integers(-30, 30)] * 3), min_size=1, max_size=5), st.permutations(range(3)))
def test_the_order_of_tasks_does_not_matter_and_another_arm_never_shrinks_the_volume(rows, order):
    arms = {str(i): np.array(row, dtype=float) for i, row in enumerate(rows)}
    found = covered(arms, 10)
    turned = covered({arm: row[list(order)] for arm, row in arms.items()}, 10)
    assert turned.volume == pytest.approx(found.volume)
    fewer = covered(dict(list(arms.items())[:-1]), 10).volume
    assert math.isnan(fewer) or found.volume >= fewer - 1e-9


def test_the_table_says_what_only_one_arm_contributes():
    runs = study({"sum": 3.0, "a": [-5.0, 2.0, 0.5], "b": 4.0}, 6, noise=0.1)
    found = summarise(tasks(3), runs, higher_is_better=lower(3))
    assert found.hypervolume > 1
    assert {row.arm: row.hypervolume > 0 for row in found.arms} == {"stl": True, "sum": False, "a": True, "b": False}
