"""Rows in an order of their own."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from motet.estimators.canonical import canonical
from motet.estimators.outcomes import encode, read_outcomes


def rows(seed, n=12):
    rng = np.random.default_rng(seed)
    X = rng.integers(0, 2, (n, 2)).astype(float)
    Y = {"a": np.where(rng.random(n) < 0.2, np.nan, rng.integers(0, 3, n)), "b": np.arange(n) % 2}
    Y["a"][:2] = 0, 1
    return X, Y, rng.integers(0, 3, n).astype(float) + (np.arange(n) < 2)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_a_permutation_gives_the_same_rows_and_weights(seed):
    X, Y, weight = rows(seed)
    tasks = encode(read_outcomes({"a": "continuous", "b": "binary"}, Y), Y)
    found = canonical(X, tasks, weight)
    order = np.random.default_rng(seed).permutation(len(X))
    other = canonical(X[order], [task.at(order) for task in tasks], weight[order])
    np.testing.assert_array_equal(X[found.rows], X[order][other.rows])
    for task in tasks:
        np.testing.assert_array_equal(task.y[found.rows], task.y[order][other.rows])
    np.testing.assert_array_equal(found.weight, other.weight)
    np.testing.assert_array_equal(found.place[order], other.place)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_equal_rows_are_one_with_their_weight_and_rows_of_weight_zero_are_gone(seed):
    X, Y, weight = rows(seed)
    tasks = encode(read_outcomes({"a": "continuous", "b": "binary"}, Y), Y)
    found = canonical(X, tasks, weight)
    whole = np.column_stack([X, *(task.y for task in tasks)])
    distinct = np.unique(np.nan_to_num(whole[weight > 0], nan=-1), axis=0)
    assert len(found.rows) == len(distinct)
    assert found.weight.sum() == weight.sum()
    assert ((found.place < 0) == (weight == 0)).all()
    there = found.place >= 0
    np.testing.assert_array_equal(whole[there], whole[found.rows][found.place[there]])


def test_rows_of_different_groups_stay_apart():
    X, Y = np.zeros((4, 1)), {"a": [0.0, 0.0, 1.0, 1.0]}
    tasks = encode(read_outcomes({"a": "continuous"}, Y), Y)
    assert len(canonical(X, tasks, np.ones(4)).rows) == 2
    assert len(canonical(X, tasks, np.ones(4), np.array(["p", "q", "p", "p"])).rows) == 3
