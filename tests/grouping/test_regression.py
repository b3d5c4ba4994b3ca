"""Affinity by least squares against numpy's, and what it recovers that equal shares can't."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from motet.grouping.attribution import Pairwise
from motet.grouping.regression import Regression

NAN = math.nan


def measurements(truth, groups, noise, rng, absent=0.0):
    """(group, relative decrease) of each group: the sum of its members' effects and noise, some unknown."""
    for group in groups:
        relative = truth[group].sum(0) + rng.normal(0, noise, len(truth))
        yield np.array(group), np.where(rng.random(len(truth)) < absent, NAN, relative)


def random_groups(tasks, count, rng):
    """Batches of random partitions, one group after the other."""
    groups = []
    while len(groups) < count:
        labels = rng.integers(0, rng.integers(1, tasks + 1), tasks)
        groups += [np.flatnonzero(labels == label).tolist() for label in rng.permutation(np.unique(labels))]
    return groups[:count]


def clusters(*sizes):
    """Planted effects: 0.05 within a cluster, -0.03 across, 0.1 of a task on itself."""
    label = np.repeat(range(len(sizes)), sizes)
    return np.where(label[:, None] == label, 0.05, -0.03) + 0.05 * np.eye(len(label))


@pytest.mark.parametrize("count", [3, 20, 64, 150])
@pytest.mark.parametrize("absent", [0.0, 0.3])
def test_it_is_weighted_least_squares_of_least_norm_with_its_covariance(count, absent):
    rng = np.random.default_rng(count)
    decay, tasks = 0.02, 5
    data = list(measurements(rng.normal(0, 0.1, (tasks, tasks)), random_groups(tasks, count, rng), 0.05, rng, absent))
    regression = Regression(tasks, decay)
    for group, relative in data:
        regression.add(relative[None], [group])
    matrix, errors = regression.solve()
    for target in range(tasks):
        rows = [(np.isin(range(tasks), group) * 1.0, r[target]) for group, r in data if not np.isnan(r[target])]
        X, y = np.array([x for x, _ in rows]), np.array([value for _, value in rows])
        w = (1 - decay) ** np.arange(len(y))[::-1]
        root = np.sqrt(w)
        expected, _, rank, _ = np.linalg.lstsq(root[:, None] * X, root * y)
        assert_allclose(matrix[:, target], expected, atol=1e-9)
        assert_array_equal(regression.counts[:, target], X.sum(0))
        if rank < tasks:
            assert np.isinf(errors[:, target]).any()
            continue
        hat = np.linalg.pinv(root[:, None] * X) * root
        sigma = (w * (y - X @ expected) ** 2).sum() / (w.sum() - (w * (X @ hat).diagonal()).sum())
        if len(y) > tasks:
            assert_allclose(errors[:, target], np.sqrt(sigma * (hat**2).sum(1)), rtol=1e-6)


@pytest.mark.parametrize(("noise", "least"), [(0.0, 0.999), (0.01, 0.95)])
def test_pairs_are_recovered_where_equal_shares_can_not(noise, least):
    # Two usual groups, and one batch in ten with random ones; β = 1e-3.
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 0.05, (6, 6)) + 0.1 * np.eye(6)
    regression, shares = Regression(6, 1e-3), Pairwise(6, 1e-3, corrected=True)
    for _ in range(3000):
        usual = [[0, 1, 2], [3, 4, 5]]
        labels = rng.integers(0, 3, 6)
        other = [np.flatnonzero(labels == label).tolist() for label in np.unique(labels)]
        for group, relative in measurements(truth, other if rng.random() < 0.1 else usual, noise, rng):
            regression.add(relative[None], [group])
            shares.add(relative[None], [group])
    off = ~np.eye(6, dtype=bool)
    found, shared = (np.corrcoef(estimate.solve()[0][off], truth[off])[0, 1] for estimate in (regression, shares))
    assert found > least
    assert shared < 0.6


def test_three_planted_clusters_of_eleven_tasks_are_told_apart():
    rng = np.random.default_rng(1)
    truth = clusters(4, 4, 3)
    regression = Regression(11, 1e-3)
    groups = [group for batch in range(300) for group in random_groups(11, 3, np.random.default_rng(batch))]
    for group, relative in measurements(truth, groups, 0.05, rng):
        regression.add(relative[None], [group])
    matrix, errors = regression.solve()
    assert_array_equal(matrix > 0, truth > 0)
    assert np.isfinite(errors).all()


def test_members_that_were_always_together_share_alike_and_are_said_to_be_unknown():
    regression = Regression(4, 0.01)
    rng = np.random.default_rng(0)
    for group, relative in measurements(np.full((4, 4), 0.1), [[0, 1], [2]] * 10, 0.01, rng):
        regression.add(relative[None], [group])
    matrix, errors = regression.solve()
    assert_allclose(matrix[0], matrix[1])
    assert_allclose(matrix[:3], 0.1, atol=0.03)
    assert_array_equal(matrix[3], 0.0)
    assert_array_equal(np.isinf(errors).all(1), [True, True, False, True])


def test_as_many_measurements_as_unknowns_leave_the_error_unknown():
    regression = Regression(2, 0.01)
    for group in ([0], [1]):
        regression.add(np.array([[0.1, 0.2]]), [np.array(group)])
    matrix, errors = regression.solve()
    assert_allclose(matrix, [[0.1, 0.2], [0.1, 0.2]])
    assert np.isinf(errors).all()


def test_an_absent_target_keeps_its_estimate():
    rng = np.random.default_rng(0)
    regression = Regression(3, 0.05)
    for group, relative in measurements(rng.normal(0, 0.1, (3, 3)), random_groups(3, 100, rng), 0.02, rng):
        regression.add(relative[None], [group])
    before = [found[:, 2] for found in regression.solve()]
    for group in random_groups(3, 100, rng):
        regression.add(np.array([[0.5, 0.5, NAN]]), [np.array(group)])
    after = [found[:, 2] for found in regression.solve()]
    assert_allclose(after, before, rtol=1e-9)


@pytest.mark.parametrize(("decay", "updates"), [(1e-3, 100), (0.01, 1500)])
def test_the_truth_lies_within_two_standard_errors_as_often_as_it_should(decay, updates):
    rng = np.random.default_rng(2)
    truth = rng.normal(0, 0.05, (12, 12))
    inside = []
    for _ in range(5):
        regression = Regression(12, decay)
        for group, relative in measurements(truth, random_groups(12, updates, rng), 0.05, rng):
            regression.add(relative[None], [group])
        matrix, errors = regression.solve()
        inside.append(np.abs(matrix - truth) < 2 * errors)
    assert 0.9 < np.mean(inside) < 0.99


def test_thousands_of_updates_leave_no_rounding_behind():
    rng = np.random.default_rng(3)
    truth = clusters(2, 2)
    regression = Regression(4, 0.1)
    for group, relative in measurements(truth, random_groups(4, 20000, rng), 0.0, rng):
        regression.add(relative[None], [group])
    assert_allclose(regression.solve()[0], truth, atol=1e-9)
