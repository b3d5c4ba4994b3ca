"""Which points count and what they cover, against slow definitions."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from motet.pareto import hypervolume, nondominated, preferences


def some_points(count, tasks, seed, ties):
    points = np.random.default_rng(seed).random((count, tasks))
    return torch.from_numpy(np.round(points, 1) if ties else points)


cases = st.tuples(st.integers(1, 8), st.integers(1, 5), st.integers(0, 999), st.booleans())


def by_inclusion_and_exclusion(points, reference):
    total = 0.0
    for size in range(1, len(points) + 1):
        for some in itertools.combinations(points, size):
            sides = (reference - torch.stack(some).amax(0)).clamp(min=0)
            total -= (-1) ** size * float(sides.prod())
    return total


@given(cases)
def test_hypervolume_is_that_of_the_union_of_boxes(case):
    points, reference = some_points(*case), torch.full((case[1],), 0.9).double()
    assert hypervolume(points, reference) == pytest.approx(by_inclusion_and_exclusion(points, reference), abs=1e-12)


@given(cases)
def test_points_that_are_dominated_or_beyond_the_reference_change_nothing(case):
    points, reference = some_points(*case), torch.ones(case[1]).double()
    volume = hypervolume(points, reference)
    beyond = reference.clone()
    beyond[0] = 1.5
    more = torch.cat([points.flip(0), points[:1] + 0.01, beyond[None] * 0.999 + 0.002, points[-1:]])
    assert hypervolume(more, reference) == pytest.approx(volume, abs=1e-12)
    assert hypervolume(points[nondominated(points)], reference) == pytest.approx(volume, abs=1e-12)


@given(cases)
def test_a_better_point_raises_the_volume(case):
    points, reference = some_points(*case), torch.full((case[1],), 2.0).double()
    better = torch.cat([points, points.amin(0)[None] - 0.1])
    assert hypervolume(better, reference) > hypervolume(points, reference)


@given(cases)
def test_nondominated_by_its_definition(case):
    points = some_points(*case)
    for k, row in enumerate(points):
        dominated = any((other <= row).all() and (other < row).any() for other in points)
        assert bool(nondominated(points)[k]) != dominated


def test_equal_points_do_not_dominate_each_other():
    assert nondominated([[1.0, 2.0], [1.0, 2.0], [1.0, 3.0]]).tolist() == [True, True, False]


def test_the_volume_of_a_sphere_octant_in_three_tasks_comes_near_its_formula():
    grid = preferences(3, 120).sqrt()
    points = 1 - grid / grid.norm(dim=1, keepdim=True)  # on a sphere around (1, 1, 1)
    assert hypervolume(points, [1.0] * 3) == pytest.approx(np.pi / 6, rel=0.15)
    assert hypervolume(points, [1.0] * 3) < np.pi / 6


def test_samples_estimate_what_is_exact_and_are_repeatable():
    points = some_points(10, 4, 0, ties=False)
    exact = hypervolume(points, [1.0] * 4)
    estimate = hypervolume(points, [1.0] * 4, samples=40_000, seed=1)
    assert estimate == pytest.approx(exact, abs=4 * 0.5 / 200)
    assert estimate == hypervolume(points, [1.0] * 4, samples=40_000, seed=1)
    assert estimate != hypervolume(points, [1.0] * 4, samples=40_000, seed=2)


def test_many_tasks_need_samples():
    points = some_points(3, 7, 0, ties=False)
    with pytest.raises(ValueError, match="up to 6 tasks, not 7: samples="):
        hypervolume(points, [1.0] * 7)
    assert 0 < hypervolume(points, [1.0] * 7, samples=1000) < 1


@pytest.mark.parametrize(
    ("points", "reference", "message"),
    [
        ([1.0, 2.0], [1.0, 2.0], "must be a matrix"),
        ([[1.0, 2.0]], [1.0], "one loss a task, 2 of them"),
        ([[1.0, float("nan")]], [1.0, 2.0], "finite"),
        ([[1.0, 2.0]], [1.0, float("inf")], "finite"),
    ],
)
def test_bad_input_of_the_hypervolume_is_named(points, reference, message):
    with pytest.raises(ValueError, match=message):
        hypervolume(points, reference)


def test_nan_is_neither_better_nor_worse():
    with pytest.raises(ValueError, match="NaN"):
        nondominated([[1.0, float("nan")]])


@pytest.mark.parametrize("tasks", [1, 2, 3, 4, 10, 40])
@pytest.mark.parametrize("count", [1, 2, 5, 11])
def test_preferences_are_positive_distinct_and_sum_to_one(tasks, count):
    found = preferences(tasks, count)
    assert found.shape == (count, tasks)
    assert torch.allclose(found.sum(1), torch.ones(count).double())
    assert (found > 0).all()
    assert torch.equal(found, preferences(tasks, count))
    if tasks > 1:
        assert len(found.unique(dim=0)) == count


def test_preferences_of_two_tasks_are_equally_spaced_and_rise():
    assert torch.allclose(preferences(2, 3), torch.tensor([[0.25, 0.75], [0.5, 0.5], [0.75, 0.25]]).double())


def test_preferences_of_three_tasks_favour_each_before_they_repeat():
    assert sorted(preferences(3, 3).argmax(1).tolist()) == [0, 1, 2]
    # No simplex point is farther from one of ten than the lattice's own spacing.
    anywhere = torch.from_numpy(np.random.default_rng(0).dirichlet(np.ones(3), 2000))
    inner = anywhere[(anywhere > 0.1).all(1)]
    assert torch.cdist(inner, preferences(3, 10)).amin(1).max() < 0.2


@pytest.mark.parametrize(("tasks", "count"), [(0, 3), (2, 0)])
def test_there_must_be_tasks_and_preferences(tasks, count):
    with pytest.raises(ValueError, match="at least 1"):
        preferences(tasks, count)
