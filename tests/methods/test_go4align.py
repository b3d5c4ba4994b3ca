"""GO4Align: its shares by hand, and its groups against every partition there is."""

import math
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from torch.testing import assert_close

from motet import methods
from motet.methods import GO4Align, Sum
from motet.methods.go4align import _grouped
from motet.testing import check_method

LOSSES = torch.tensor([1.0, 4.0, 0.3], dtype=torch.float64)
NUMBERS = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=7)


def within(values: list[float], cuts: tuple[int, ...]) -> float:
    """Squared error of the sorted values in the groups between the cuts."""
    bounds = [0, *cuts, len(values)]
    parts = [np.array(values[a:b]) for a, b in pairwise(bounds)]
    return sum(float(((part - part.mean()) ** 2).sum()) for part in parts)


@pytest.mark.parametrize("options", [{}, {"groups": 1}, {"groups": 3, "eta": 0.0}, {"groups": 99, "eta": 1.0}])
def test_it_keeps_what_motet_relies_on(options):
    check_method(lambda: GO4Align(**options))


def test_ungrouped_weights_are_scale_times_share():
    method = GO4Align(groups=3, eta=0.5)
    weights = [method.weights(LOSSES), method.weights(LOSSES / 2)]
    share = [1 / 3] * 3
    for losses, actual in zip([[1.0, 4.0, 0.3], [0.5, 2.0, 0.15]], weights, strict=True):
        powers = [p * math.exp(-0.5 * loss) for p, loss in zip(share, losses, strict=True)]
        share = [power / sum(powers) for power in powers]
        expected = [p * sum(losses) / loss for p, loss in zip(share, losses, strict=True)]
        assert_close(actual, torch.tensor(expected, dtype=torch.float64))


def test_one_group_is_the_sum_times_a_number():
    weights = GO4Align(groups=1).weights(LOSSES)
    assert_close(weights / weights[0], Sum().weights(LOSSES).double())


def test_tasks_of_a_group_share_the_mean_of_their_weights():
    alone, grouped = GO4Align(groups=3).weights(LOSSES), GO4Align(groups=2).weights(LOSSES)
    assert_close(grouped[2], alone[2])
    assert_close(grouped[:2], alone[:2].mean().expand(2))


@given(values=NUMBERS, groups=st.integers(1, 4))
def test_the_groups_are_those_of_least_squared_error(values, groups):
    groups = min(groups, len(values))
    actual = _grouped(torch.tensor(values, dtype=torch.float64), groups)
    least = min(within(sorted(values), cuts) for cuts in combinations(range(1, len(values)), groups - 1))
    error = float(((actual - torch.tensor(values, dtype=torch.float64)) ** 2).sum())
    assert error <= least + 1e-9 * max(values) ** 2
    assert len(set(actual.tolist())) <= groups


def test_the_groups_are_those_of_k_means():
    values = np.random.default_rng(0).lognormal(size=40)
    model = KMeans(4, n_init=50, random_state=0).fit(values[:, None])
    expected = model.cluster_centers_[model.labels_, 0]
    assert_close(_grouped(torch.tensor(values), 4), torch.tensor(expected), rtol=1e-9, atol=0)


def test_a_task_that_joins_late_starts_at_the_mean():
    method = GO4Align(groups=3, eta=0.1)
    for _ in range(1000):
        with method.on_tasks(torch.tensor([0, 1]), 2):
            method.weights(torch.tensor([1.0, 1.0]))
    with method.on_tasks(torch.tensor([0, 1, 2]), 3):
        assert_close(method.weights(torch.ones(3)), torch.ones(3, dtype=torch.float64))


@given(factor=st.floats(1e-6, 1e6))
def test_without_a_step_the_scale_of_all_losses_does_not_matter(factor):
    assert_close(GO4Align(eta=0.0).weights(LOSSES * factor), GO4Align(eta=0.0).weights(LOSSES))


@pytest.mark.parametrize("options", [{"groups": 0}, {"eta": -1.0}])
def test_an_option_out_of_range_is_named(options):
    (option,) = options
    with pytest.raises(ValueError, match=option):
        methods.get("go4align", **options)
