"""Δm and the log-ratio: formula, sign, and what they refuse."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motet.metrics import delta_m, log_ratio

positive = st.floats(0.01, 100)
pairs = st.lists(st.tuples(positive, positive, st.booleans()), min_size=1, max_size=8)


def test_worse_is_positive_whatever_the_direction_of_the_metric():
    assert delta_m([0.8], [1.0], higher_is_better=True) == pytest.approx(20)
    assert delta_m([1.2], [1.0], higher_is_better=False) == pytest.approx(20)
    assert delta_m([1.2], [1.0], higher_is_better=True) == pytest.approx(-20)


def test_every_metric_counts_the_same_unless_tasks_are_given():
    results, baseline = [2.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]
    assert delta_m(results, baseline, False) == pytest.approx(25)
    assert delta_m(results, baseline, False, tasks=["depth", "normals", "normals", "normals"]) == pytest.approx(50)


def test_order_of_names_does_not_matter():
    results, baseline = {"a": 2.0, "b": 3.0}, {"b": 1.0, "a": 1.0}
    assert delta_m(results, baseline, {"b": False, "a": True}) == pytest.approx((-100 + 200) / 2)
    tasks = {"b": 1, "a": 0}
    assert delta_m(results, baseline, {"b": False, "a": True}, tasks) == pytest.approx((-100 + 200) / 2)


def test_arrays_are_taken_as_sequences():
    assert delta_m(np.array([2.0, 1.0]), np.array([1.0, 1.0]), False) == pytest.approx(50)


def test_a_better_result_lowers_delta_m_under_a_negative_baseline_too():
    # An R² of -0.1 that becomes 0.1 is an improvement.
    assert delta_m([0.1], [-0.1], higher_is_better=True) < 0


@settings(deadline=None, max_examples=50)
@given(pairs, st.floats(0.1, 10))
def test_units_do_not_matter(rows, factor):
    m, b, higher = map(list, zip(*rows, strict=True))
    scaled = [factor * v for v in m], [factor * v for v in b]
    assert delta_m(*scaled, higher) == pytest.approx(delta_m(m, b, higher), rel=1e-9, abs=1e-9)
    assert log_ratio(*scaled, higher) == pytest.approx(log_ratio(m, b, higher), rel=1e-9, abs=1e-9)


@settings(deadline=None, max_examples=50)
@given(pairs)
def test_the_baseline_itself_has_no_change(rows):
    _, b, higher = map(list, zip(*rows, strict=True))
    assert delta_m(b, b, higher) == 0
    assert log_ratio(b, b, higher) == 0


@settings(deadline=None, max_examples=50)
@given(pairs)
def test_log_ratio_only_changes_its_sign_when_the_two_are_swapped(rows):
    m, b, higher = map(list, zip(*rows, strict=True))
    assert log_ratio(m, b, higher) == pytest.approx(-log_ratio(b, m, higher), abs=1e-9)


def test_log_ratio_has_the_sign_and_for_small_changes_the_size_of_delta_m():
    results, baseline, higher = [0.99, 0.502], [1.0, 0.5], [True, False]
    assert log_ratio(results, baseline, higher) == pytest.approx(delta_m(results, baseline, higher), rel=0.01)
    assert log_ratio([0.5], [1.0], higher_is_better=True) == pytest.approx(100 * math.log(2))


def test_log_ratio_averages_within_tasks_first_where_they_are_given():
    ours = log_ratio([2.0, 1.0, 1.0], [1.0, 1.0, 1.0], False, tasks=["a", "b", "b"])
    assert ours == pytest.approx(50 * math.log(2))


@pytest.mark.parametrize("mean", [delta_m, log_ratio])
@pytest.mark.parametrize(
    ("results", "baseline", "higher", "message"),
    [
        ([1.0], [1.0, 2.0], False, "the baseline has length 2 and results has length 1"),
        ([1.0, 2.0], [1.0, 2.0], [True], "higher_is_better has length 1 and results has length 2"),
        ([], [], False, "results has no metric"),
        ([math.nan], [1.0], False, "'metric 0' is nan in results"),
        ({"mae": 1.0}, {"mae": math.inf}, False, "'mae' is inf in the baseline"),
        ({"depth": 1.0}, {"dept": 1.0}, False, "the baseline has no 'depth', which results has; did you mean 'dept'?"),
        ({"a": 1.0}, {"a": 1.0, "b": 1.0}, False, "the baseline has 'b', which results has not"),
        ({"a": 1.0}, [1.0], False, "the baseline goes by position and results by name"),
        ({"a": 1.0}, {"a": 1.0}, [True], "higher_is_better goes by position and results by name"),
        ({"a": 1.0}, {"a": 1.0}, {"aa": True}, "higher_is_better has no 'a'.* did you mean 'aa'"),
    ],
)
def test_what_does_not_match_is_named(mean, results, baseline, higher, message):
    with pytest.raises(ValueError, match=message):
        mean(results, baseline, higher)


def test_a_zero_baseline_is_named():
    with pytest.raises(ValueError, match="baseline of 'errors' is zero"):
        delta_m({"errors": 1.0}, {"errors": 0.0}, False)


def test_log_ratio_names_what_is_not_positive():
    with pytest.raises(ValueError, match=r"'r2' is -0\.1, and a log-ratio needs positive values"):
        log_ratio({"r2": -0.1}, {"r2": 0.2}, True)


def test_tasks_must_match_the_metrics():
    with pytest.raises(ValueError, match="tasks has length 1 and results has length 2"):
        delta_m([1.0, 2.0], [1.0, 2.0], False, tasks=["a"])
