"""How one group's effect is shared out, and its exponential means with their standard errors."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from motet.grouping.attribution import Pairwise, pair_values

NAN = math.nan


def shared(relative, members):
    """The values of one update."""
    return pair_values(relative[None], [members])


@pytest.mark.parametrize(
    ("target", "source", "towards_target", "towards_source"),
    [
        (0.04, 0.02, 0.04, 0.02),
        (-0.04, -0.02, -0.04, -0.02),
        (0.04, -0.02, -0.04, -0.04),
        (-0.04, 0.02, -0.02, -0.02),
        (0.0, -0.02, 0.0, -0.02),
    ],
)
def test_two_members_are_credited_by_their_signs(target, source, towards_target, towards_source):
    # Shares are halves of the relative decrease in a group of two.
    values = shared(2 * np.array([target, source]), np.array([0, 1]))
    assert_allclose([values[1, 0], values[0, 1]], [towards_target, towards_source])


def test_a_member_that_lost_has_no_value_for_itself():
    values = shared(np.array([0.04, -0.02]), np.array([0, 1]))
    assert_array_equal(values.diagonal(), [0.02, NAN])
    assert_array_equal(shared(np.array([0.0, 0.1]), np.array([0]))[0, 0], 0.0)


def test_those_outside_get_an_equal_share_whatever_its_sign():
    values = shared(np.array([0.2, -0.1, 0.3, -0.6]), np.array([1, 0]))
    assert_allclose(values[:, 2:], [[0.15, -0.3], [0.15, -0.3]])


def test_an_unknown_member_says_nothing_within_the_group_but_is_a_source_outside():
    values = shared(np.array([NAN, 0.2, 0.4]), np.array([0, 1]))
    assert_array_equal(values, [[NAN, NAN, 0.2], [NAN, 0.1, 0.2]])


def test_the_first_values_are_their_plain_mean_where_they_weigh_alike():
    # (1-β) v + v' over (1-β) + 1, by hand, with v = 0.3, v' = 0.1, β = 0.5.
    mean = Pairwise(1, 0.5, corrected=True)
    mean.add(np.array([[0.3]]), [np.array([0])])
    mean.add(np.array([[0.1]]), [np.array([0])])
    value, error = mean.solve()
    assert_allclose(value, [[0.25 / 1.5]])
    # σ² = Σw(v-m)² / (1-Σw²) and SE² = σ² Σw², w = 1/3 and 2/3.
    spread = (0.3 - 0.5 / 3) ** 2 / 3 + (0.1 - 0.5 / 3) ** 2 * 2 / 3
    assert_allclose(error, [[math.sqrt(spread / (1 - 5 / 9) * 5 / 9)]])


def test_without_correction_the_mean_and_its_error_keep_the_zero_start():
    free, raw = Pairwise(2, 0.1, corrected=True), Pairwise(2, 0.1, corrected=False)
    for value in (0.3, 0.1, 0.2):
        free.add(np.array([[value, -value]]), [np.array([0])])
        raw.add(np.array([[value, -value]]), [np.array([0])])
    for ours, theirs in zip(raw.solve(), free.solve(), strict=True):
        assert_allclose(ours[0], (1 - 0.9**3) * theirs[0])


def test_rows_of_other_tasks_are_untouched_and_below_two_values_the_error_is_infinite():
    mean = Pairwise(3, 0.1, corrected=True)
    mean.add(np.array([[0.1, 0.2, NAN]]), [np.array([1])])
    value, error = mean.solve()
    assert_array_equal(mean.counts, [[0, 0, 0], [1, 1, 0], [0, 0, 0]])
    assert_allclose(value, [[0, 0, 0], [0.1, 0.2, 0], [0, 0, 0]])
    assert np.isinf(error).all()


@pytest.mark.parametrize(("decay", "updates"), [(1e-3, 30), (1e-3, 400), (0.05, 400)])
def test_the_truth_lies_within_two_standard_errors_as_often_as_it_should(decay, updates):
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 0.05, (20, 20))
    np.fill_diagonal(truth, 0.5)
    mean = Pairwise(20, decay, corrected=True)
    for _ in range(updates):
        for source in range(20):
            mean.add((truth[source] + rng.normal(0, 0.04, 20))[None], [np.array([source])])
    value, error = mean.solve()
    assert 0.9 < (np.abs(value - truth) < 2 * error).mean() < 0.99


def test_updates_of_one_batch_at_once_are_those_one_after_another():
    rng = np.random.default_rng(1)
    relative = rng.normal(0, 0.05, (3, 6))
    relative[1, 4] = NAN
    groups = [np.array([4, 0]), np.array([2]), np.array([1, 5])]
    together, apart = Pairwise(6, 0.1, corrected=True), Pairwise(6, 0.1, corrected=True)
    together.add(relative, groups)
    for change, group in zip(relative, groups, strict=True):
        apart.add(change[None], [group])
    assert_array_equal(together.mean, apart.mean)
    assert_array_equal(together.counts, apart.counts)
