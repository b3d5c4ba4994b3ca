"""Splits: a partition, by chance, by class, by group, by time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motet.problems import splits

SEEDS = st.integers(0, 1000)


def assert_partition(parts, rows):
    assert sorted(np.concatenate(parts).tolist()) == list(range(rows))


@settings(deadline=None, max_examples=40)
@given(rows=st.integers(5, 300), seed=SEEDS)
def test_random_parts_are_a_partition_of_the_right_sizes(rows, seed):
    parts = splits.random(rows, seed)
    assert_partition(parts, rows)
    assert [len(part) for part in parts] == pytest.approx([0.6 * rows, 0.2 * rows, 0.2 * rows], abs=1)


def test_seeds_decide():
    assert np.array_equal(splits.random(50, 3)[2], splits.random(50, 3)[2])
    assert not np.array_equal(splits.random(50, 3)[2], splits.random(50, 4)[2])


@settings(deadline=None, max_examples=40)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=8), seed=SEEDS)
def test_classes_of_five_rows_are_in_every_part(sizes, seed):
    strata = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    parts = splits.stratified(strata, seed)
    assert_partition(parts, len(strata))
    for stratum, size in enumerate(sizes):
        counts = [np.sum(strata[part] == stratum) for part in parts]
        assert counts == pytest.approx([0.6 * size, 0.2 * size, 0.2 * size], abs=1)
        assert size < 5 or min(counts) > 0


def test_many_tiny_classes_starve_no_part():
    sizes = np.array([len(part) for part in splits.stratified(np.repeat(np.arange(500), 2), 0)])
    assert sizes / 1000 == pytest.approx([0.6, 0.2, 0.2], abs=0.05)


@settings(deadline=None, max_examples=40)
@given(sizes=st.lists(st.integers(1, 30), min_size=3, max_size=40), seed=SEEDS)
def test_no_group_is_in_two_parts_and_no_part_is_empty(sizes, seed):
    groups = np.repeat(np.arange(len(sizes)) * 7, sizes)
    parts = splits.grouped(groups, seed)
    assert_partition(parts, len(groups))
    names = [set(groups[part]) for part in parts]
    assert sum(map(len, names)) == len(sizes)
    assert all(names)


def test_many_groups_come_near_the_wanted_sizes():
    parts = splits.grouped(np.repeat(np.arange(100), 5), 0)
    assert [len(part) for part in parts] == [300, 100, 100]


def test_two_groups_can_not_make_three_parts():
    with pytest.raises(ValueError, match="three groups or more, and there are 2"):
        splits.grouped(np.array([0, 0, 1]), 0)


@settings(deadline=None, max_examples=40)
@given(times=st.lists(st.integers(0, 30), min_size=5, max_size=100))
def test_time_order_holds_and_equal_times_stay_together(times):
    times = np.array(times)
    parts = splits.ordered(times)
    assert_partition(parts, len(times))
    train, validation, test = (times[part] for part in parts)
    assert max(train, default=-1) < min(validation, default=99)
    assert max([*train, *validation], default=-1) < min(test, default=99)
