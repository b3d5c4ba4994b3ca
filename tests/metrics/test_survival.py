"""The Brier score under censoring against its definition, truth without censoring, and bad input."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motet.metrics.survival import brier_score, censoring_curve, integrated_brier_score


def brier_by_definition(time, event, survival, t, weight):
    """With the definition of G spelt out: of those who share a time, events come first."""

    def still_seen(until, inclusive):
        product = 1.0
        for s in np.unique(time):
            if s < until or (inclusive and s == until):
                at_risk = weight[(time > s) | ((time == s) & (event == 0))].sum()
                lost = weight[(time == s) & (event == 0)].sum()
                product *= 1 - lost / at_risk if at_risk else 1.0
        return product

    total = 0.0
    for i in range(len(time)):
        if time[i] <= t and event[i] == 1:
            total += weight[i] * survival[i] ** 2 / still_seen(time[i], False)
        elif time[i] > t:
            total += weight[i] * (1 - survival[i]) ** 2 / still_seen(t, True)
    return total / weight.sum()


@given(st.integers(0, 10**6), st.integers(1, 15))
def test_brier_score_is_its_definition_with_ties_and_weights(seed, n):
    rng = np.random.default_rng(seed)
    time, event, weight = rng.integers(0, 6, n) * 1.0, rng.integers(0, 2, n), rng.integers(1, 4, n) * 1.0
    times, survival = np.array([0.0, 1.5, 3.0, 5.0]), rng.random((n, 4))
    expected = [brier_by_definition(time, event, survival[:, j], t, weight) for j, t in enumerate(times)]
    np.testing.assert_allclose(brier_score(time, event, survival, times, weight), expected, atol=1e-12)


def test_a_weight_of_two_is_a_row_twice():
    rng = np.random.default_rng(0)
    time, event, weight = rng.integers(0, 9, 30) * 1.0, rng.integers(0, 2, 30), rng.integers(1, 3, 30)
    survival, times = rng.random((30, 3)), [1.0, 4.0, 6.0]
    twice = np.repeat(np.arange(30), weight)
    np.testing.assert_allclose(
        integrated_brier_score(time, event, survival, times, weight),
        integrated_brier_score(time[twice], event[twice], survival[twice], times),
    )


def test_censored_score_estimates_the_score_without_censoring():
    rng = np.random.default_rng(1)
    time, censoring = rng.exponential(size=20000), 2 * rng.exponential(size=20000)
    times = np.linspace(0.1, 2, 10)
    survival = np.tile(np.exp(-times), (20000, 1))
    free = brier_score(time, np.ones(20000), survival, times)
    seen = brier_score(np.minimum(time, censoring), time <= censoring, survival, times)
    np.testing.assert_allclose(free, np.exp(-times) * (1 - np.exp(-times)), atol=0.005)
    np.testing.assert_allclose(seen, free, atol=0.01)


def test_integral_is_the_mean_over_time():
    time, event = np.array([1.0, 2.0, 3.0]), np.ones(3)
    assert integrated_brier_score(time, event, np.full((3, 4), 0.5), [0.0, 0.5, 2.0, 3.0]) == pytest.approx(0.25)
    survival = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
    assert integrated_brier_score(time, event, survival, [0.5, 1.5]) == 0.0


def test_censoring_of_training_rows_can_be_used():
    curve = censoring_curve([1.0, 2.0, 4.0], [0, 1, 1])
    np.testing.assert_allclose(curve.at([0.5, 1.0, 9.0]), [1, 2 / 3, 2 / 3])
    np.testing.assert_allclose(curve.before([1.0, 1.5]), [1, 2 / 3])
    np.testing.assert_allclose(brier_score([3.0], [1], [[0.5]], [2.0], censoring=curve), 0.25 * 3 / 2)


def test_times_after_the_last_one_that_the_censoring_leaves_are_refused():
    curve = censoring_curve([1.0, 2.0], [1, 0])
    assert curve.at([2.0]) == [0]
    with pytest.raises(ValueError, match="use times below 2.5"):
        brier_score([9.0], [1], [[0.5, 0.5]], [1.0, 2.5], censoring=curve)


@pytest.mark.parametrize(
    ("time", "event", "survival", "times", "message"),
    [
        ([], [], np.zeros((0, 1)), [1.0], "not empty"),
        ([1.0], [1, 0], [[0.5]], [1.0], "same length"),
        ([-1.0], [1], [[0.5]], [1.0], "not negative"),
        ([np.nan], [1], [[0.5]], [1.0], "finite"),
        ([1.0], [2], [[0.5]], [1.0], "event indicator"),
        ([1.0], [1], [[1.5]], [1.0], "probabilities"),
        ([1.0], [1], [[np.nan]], [1.0], "probabilities"),
        ([1.0], [1], [[0.5, 0.5]], [1.0], "shape"),
    ],
)
def test_bad_input_is_refused(time, event, survival, times, message):
    with pytest.raises(ValueError, match=message):
        brier_score(time, event, survival, times)


def test_integral_needs_increasing_times_and_weights_that_are_not_all_zero():
    with pytest.raises(ValueError, match="increasing"):
        integrated_brier_score([1.0], [1], [[0.5, 0.5]], [1.0, 1.0])
    with pytest.raises(ValueError, match="not all zero"):
        brier_score([1.0], [1], [[0.5]], [1.0], weight=[0.0])
