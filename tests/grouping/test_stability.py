"""Shares of shared groups against the normal distribution."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from motet.grouping import partition, stability


class Map:
    """The part of an Affinity that grouping reads."""

    tasks = ("depth", "edges", "normals")

    def __init__(self, matrix, standard_errors):
        self.matrix = torch.as_tensor(matrix)
        self.standard_errors = torch.as_tensor(standard_errors)


def test_a_map_without_errors_gives_its_own_groups():
    matrix = np.random.default_rng(0).normal(size=(6, 6))
    groups = partition(matrix, "correlation")
    expected = torch.zeros(6, 6, dtype=torch.float64)
    for group in groups:
        expected[np.ix_(group, group)] = 1.0
    assert_close(stability(matrix, np.zeros((6, 6)), "correlation", draws=5), expected)


@pytest.mark.parametrize("z", [-1.0, 0.0, 0.5, 2.0])
def test_two_tasks_share_a_group_as_often_as_the_drawn_affinity_is_positive(z):
    # s is the mean of two draws with SE 0.1 each, so that its own SE is 0.1/√2.
    matrix = np.full((2, 2), z * 0.1 / math.sqrt(2))
    share = stability(matrix, np.full((2, 2), 0.1), "correlation", draws=4000)[0, 1].item()
    expected = (1 + math.erf(z / math.sqrt(2))) / 2
    assert abs(share - expected) < 4 * math.sqrt(0.25 / 4000)


def test_an_unknown_entry_is_as_often_positive_as_negative_whatever_its_value():
    matrix = np.array([[1.0, 50.0], [50.0, 1.0]])
    errors = np.array([[0.1, np.inf], [np.nan, 0.1]])
    assert abs(stability(matrix, errors, "correlation", draws=2000)[0, 1].item() - 0.5) < 0.05
    holes = np.array([[1.0, np.nan], [np.nan, 1.0]])
    assert abs(stability(holes, np.zeros((2, 2)), "correlation", draws=2000)[0, 1].item() - 0.5) < 0.05
    nothing = np.full((2, 2), np.inf)
    assert abs(stability(matrix, nothing, "correlation", draws=2000)[0, 1].item() - 0.5) < 0.05


def test_an_unknown_entry_has_the_scale_of_the_known_ones():
    # s_01 = (0.4 + x)/2 with x of N(0, σ²), σ the root mean square of 0.4, 1 and 1.
    matrix = np.array([[1.0, 0.4], [np.nan, 1.0]])
    share = stability(matrix, np.zeros((2, 2)), "correlation", draws=4000)[0, 1].item()
    scale = math.sqrt((0.16 + 1 + 1) / 3)
    expected = (1 + math.erf(0.4 / scale / math.sqrt(2))) / 2
    assert abs(share - expected) < 4 * math.sqrt(0.25 / 4000)


@pytest.mark.parametrize("method", ["affinity-propagation", "correlation"])
def test_shares_are_symmetric_with_a_diagonal_of_one_and_reproducible(method):
    generator = np.random.default_rng(1)
    matrix, errors = generator.normal(size=(5, 5)) + 2 * np.eye(5), np.full((5, 5), 0.5)
    shares = stability(matrix, errors, method, draws=30, seed=4)
    assert shares.dtype == torch.float64
    assert_close(shares, shares.T)
    assert_close(shares.diagonal(), torch.ones(5, dtype=torch.float64))
    assert 0 < shares[0, 1:].max() < 1
    assert_close(stability(matrix, errors, method, draws=30, seed=4), shares, rtol=0, atol=0)
    assert not torch.equal(stability(matrix, errors, method, draws=30, seed=5), shares)


def test_random_groups_are_drawn_anew_each_time():
    share = stability(np.eye(4), np.zeros((4, 4)), "random", max_groups=2, draws=2000)[0, 1].item()
    assert abs(share - 1 / 3) < 0.05  # Of a task's three others one shares its pair.


def test_an_affinity_and_names_are_understood():
    matrix, errors = np.ones((3, 3)), np.full((3, 3), 0.01)
    assert_close(
        stability(Map(matrix, errors), method="correlation", draws=10, previous=[["depth"], ["edges", "normals"]]),
        torch.ones(3, 3, dtype=torch.float64),
    )
    fixed = stability(Map(matrix, errors), None, [["depth"], ["edges", "normals"]], draws=2)
    assert_close(fixed, torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 1.0, 1.0]], dtype=torch.float64))


def test_options_of_the_partition_are_passed_on():
    matrix, errors = np.full((4, 4), -1.0), np.full((4, 4), 0.1)
    assert_close(stability(matrix, errors, "correlation", draws=5, max_groups=1), torch.ones(4, 4, dtype=torch.float64))
    barred = stability(-matrix, errors, "correlation", draws=5, significance=1000.0)
    assert_close(barred, torch.eye(4, dtype=torch.float64))


def test_bad_input_is_refused_with_its_name():
    with pytest.raises(ValueError, match="draws .* from 1 on, not 0"):
        stability(np.eye(2), np.eye(2), draws=0)
    with pytest.raises(ValueError, match="stability needs standard_errors"):
        stability(np.eye(2))
    with pytest.raises(ValueError, match="shape of the matrix"):
        stability(np.eye(2), np.eye(3))
