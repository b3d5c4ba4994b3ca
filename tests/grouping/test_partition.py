"""What holds for every way of grouping, and what is refused."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from motet.grouping import partition
from motet.grouping.partition import METHODS


class Map:
    """The part of an Affinity that grouping reads."""

    tasks = ("depth", "edges", "normals")

    def __init__(self, matrix, standard_errors=None):
        self.matrix = torch.tensor(matrix, dtype=torch.float64)
        self._errors = standard_errors

    @property
    def standard_errors(self):
        if self._errors is None:
            raise AssertionError("the standard errors were read without need")
        return torch.tensor(self._errors, dtype=torch.float64)


def options(method, tasks):
    return {"max_groups": max(1, tasks // 2)} if method == "random" else {}


def check(groups, tasks):
    assert sorted(task for group in groups for task in group) == list(range(tasks))
    assert all(group == sorted(group) and group for group in groups)
    assert [group[0] for group in groups] == sorted(group[0] for group in groups)
    assert all(type(task) is int for group in groups for task in group)


entries = st.one_of(st.sampled_from([0.0, -1.0, 1.0, np.nan, 1e-300, 1e300]), st.floats(-1e308, 1e308))


@st.composite
def matrices(draw):
    tasks = draw(st.integers(1, 12))
    return draw(arrays(np.float64, (tasks, tasks), elements=entries))


@pytest.mark.parametrize("method", METHODS)
@given(matrix=matrices())
@example(matrix=np.zeros((4, 4)))
@example(matrix=np.full((12, 12), np.nan))
@example(matrix=np.full((5, 5), -1.0))
@settings(max_examples=40)
def test_every_task_is_in_exactly_one_group(method, matrix):
    before = matrix.copy()
    check(partition(matrix, method, **options(method, len(matrix))), len(matrix))
    np.testing.assert_array_equal(matrix, before)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("tasks", [1, 2, 9, 10, 40])
def test_the_result_is_the_same_each_time(method, tasks):
    matrix = np.random.default_rng(tasks).normal(size=(tasks, tasks))
    results = [partition(matrix, method, seed=3, **options(method, tasks)) for _ in range(3)]
    check(results[0], tasks)
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("method", METHODS)
def test_one_task_is_one_group(method):
    for value in (0.0, -1.0, 1.0, np.nan):
        assert partition([[value]], method, **options(method, 1)) == [[0]]


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        (np.ones((3, 3)), [[0, 1, 2]]),
        (np.zeros((3, 3)), [[0], [1], [2]]),
        (-np.ones((3, 3)), [[0], [1], [2]]),
        (np.full((3, 3), np.nan), [[0], [1], [2]]),
    ],
)
@pytest.mark.parametrize("method", ["affinity-propagation", "correlation"])
def test_maps_of_one_value_have_a_defined_result(method, matrix, expected):
    assert partition(matrix, method) == expected


def test_two_tasks_are_joined_by_the_sum_of_both_directions():
    assert partition([[0.0, 0.3], [-0.2, 0.0]], "correlation") == [[0, 1]]
    assert partition([[0.0, 0.2], [-0.3, 0.0]], "correlation") == [[0], [1]]
    assert partition([[0.0, 0.3], [np.nan, 0.0]], "correlation") == [[0, 1]]


@pytest.mark.parametrize("kind", [np.array, torch.tensor, list, lambda rows: torch.tensor(rows, requires_grad=True)])
def test_arrays_tensors_and_lists_are_the_same(kind):
    rows = [[1.0, 0.5, -1.0], [0.5, 1.0, -1.0], [-1.0, -1.0, 1.0]]
    assert partition(kind(rows), "correlation") == [[0, 1], [2]]


def test_singletons_and_all():
    assert partition(np.ones((3, 3)), "singletons") == [[0], [1], [2]]
    assert partition(-np.ones((3, 3)), "all", max_groups=1) == [[0, 1, 2]]


@pytest.mark.parametrize("max_groups", [1, 2, 3, 7, 11, 30])
def test_random_groups_are_as_equal_as_can_be(max_groups):
    results = [partition(np.eye(11), "random", max_groups=max_groups, seed=seed) for seed in range(20)]
    for groups in results:
        sizes = [len(group) for group in groups]
        assert len(sizes) == min(max_groups, 11)
        assert max(sizes) - min(sizes) <= 1
    assert max_groups in (1, 11, 30) or len({str(groups) for groups in results}) > 10


def test_a_fixed_partition_is_itself_in_order():
    assert partition(np.eye(4), [[3, 1], [2, 0]]) == [[0, 2], [1, 3]]
    assert partition(np.eye(4), ((np.int64(3), 1), (2, 0)), max_groups=2) == [[0, 2], [1, 3]]
    assert partition(Map(np.eye(3)), [["normals", "depth"], ["edges"]]) == [[0, 2], [1]]


def test_an_affinity_brings_its_own_standard_errors_which_are_read_only_if_needed():
    matrix = np.full((3, 3), 0.2)
    errors = np.full((3, 3), 0.1)
    errors[2] = errors[:, 2] = 1.0
    assert partition(Map(matrix), "correlation") == [[0, 1, 2]]
    assert partition(Map(matrix, errors), "correlation", significance=2.0) == [[0, 1], [2]]
    given = partition(Map(matrix), "correlation", significance=2.0, standard_errors=np.full((3, 3), 0.1))
    assert given == [[0, 1, 2]]


def test_previous_groups_can_be_named():
    matrix = [[0.0, 1.0, -3.0], [1.0, 0.0, 1.0], [-3.0, 1.0, 0.0]]
    assert partition(Map(matrix), "correlation", previous=[["depth"], ["normals", "edges"]]) == [[0], [1, 2]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"matrix": np.ones((2, 3))}, r"square.*\(2, 3\)"),
        ({"matrix": np.ones(3)}, "square"),
        ({"matrix": np.ones((0, 0))}, "square"),
        ({"matrix": [[1.0, 2.0], [3.0]]}, "K rows of K"),
        ({"matrix": [["a"]]}, "must hold numbers"),
        ({"matrix": [[1.0, np.inf], [0.0, 1.0]]}, "infinite at row 0, column 1"),
        ({"method": "corelation"}, "no way of grouping 'corelation': did you mean 'correlation'"),
        ({"method": "x"}, "there are affinity-propagation, correlation"),
        ({"max_groups": 0}, "max_groups .* from 1 on, not 0"),
        ({"max_groups": 1.5}, "max_groups"),
        ({"max_groups": True}, "max_groups"),
        ({"max_groups": 2}, "affinity propagation has no bound .*correlation"),
        ({"method": "singletons", "max_groups": 2}, "max_groups=2"),
        ({"method": "random"}, "random groups need max_groups"),
        ({"method": [[0], [1], [2]], "max_groups": 2}, "3 groups, more than max_groups=2"),
        ({"method": [[0, 1]]}, "fixed partition misses 2"),
        ({"method": [[0, 1], [1, 2]]}, "task 1 twice"),
        ({"method": [[0, 1, 2], []]}, "empty group"),
        ({"method": [[0, 1], [3]]}, "3, which is no task: the numbers go from 0 to 2"),
        ({"method": [[0, 1], [-1]]}, "-1, which is no task"),
        ({"method": [[0, 1], [2.0]]}, "2.0, which is no task"),
        ({"method": [[0, True], [2]]}, "True, which is no task"),
        ({"method": ["all"]}, "list of groups"),
        ({"method": [["depth"], [1, 2]]}, "no names"),
        ({"matrix": Map(np.eye(3)), "method": [["depht"], [1, 2]]}, "'depht', which is no task: did you mean 'depth'"),
        ({"matrix": Map(np.eye(3)), "method": [["depth", "edges"]]}, "misses 'normals'"),
        ({"previous": [[0, 1]]}, "previous misses 2"),
        ({"hysteresis": -0.1}, "hysteresis"),
        ({"significance": float("nan")}, "significance"),
        ({"significance": float("inf")}, "significance"),
        ({"method": "correlation", "significance": 1.0}, "significance > 0 needs standard_errors"),
        ({"method": "correlation", "significance": 1.0, "standard_errors": np.ones((2, 2))}, "shape of the matrix"),
        ({"method": "correlation", "significance": 1.0, "standard_errors": -np.ones((3, 3))}, "negative"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "seed"),
    ],
)
def test_bad_input_is_refused_with_its_name(call, message):
    with pytest.raises(ValueError, match=message):
        partition(**{"matrix": np.eye(3), **call})
