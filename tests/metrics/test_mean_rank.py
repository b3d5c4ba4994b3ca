"""Mean rank: ties, directions, and what it refuses."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from motet.metrics import mean_rank

tables = st.integers(1, 5).flatmap(
    lambda metrics: st.lists(
        st.lists(st.integers(0, 4).map(float), min_size=metrics, max_size=metrics), min_size=1, max_size=6
    )
)


def test_ties_share_the_better_rank_and_the_next_one_is_skipped():
    ranks = mean_rank({"a": [1.0], "b": [1.0], "c": [2.0]}, higher_is_better=False)
    assert ranks == {"a": 1, "b": 1, "c": 3}


def test_each_metric_is_ranked_in_its_own_direction():
    ranks = mean_rank({"a": {"acc": 0.9, "mae": 3.0}, "b": {"mae": 1.0, "acc": 0.8}}, {"mae": False, "acc": True})
    assert ranks == {"a": 1.5, "b": 1.5}


def test_one_method_is_first():
    assert mean_rank({"only": [3.0, 4.0]}, False) == {"only": 1}


@settings(deadline=None, max_examples=60)
@given(tables)
def test_agrees_with_scipys_min_ranks(rows):
    ours = mean_rank({str(i): row for i, row in enumerate(rows)}, False)
    assert list(ours.values()) == pytest.approx(rankdata(rows, method="min", axis=0).mean(1).tolist())


@settings(deadline=None, max_examples=60)
@given(tables)
def test_only_the_order_of_values_matters(rows):
    plain = {str(i): row for i, row in enumerate(rows)}
    warped = {name: [math.exp(v) - 7 for v in row] for name, row in plain.items()}
    assert mean_rank(plain, False) == mean_rank(warped, False)


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ({}, "no method to rank"),
        ({"a": [1.0], "b": [1.0, 2.0]}, "method 'b' has length 2 and method 'a' has length 1"),
        ({"a": {"depth": 1.0}, "b": {"depht": 1.0}}, "method 'b' has no 'depth'.* did you mean 'depht'"),
        ({"a": {"depth": 1.0}, "b": [1.0]}, "method 'b' goes by position and method 'a' by name"),
        ({"a": [1.0], "b": [math.nan]}, "'metric 0' is nan in method 'b'"),
        ({"a": []}, "method 'a' has no metric"),
    ],
)
def test_what_does_not_match_is_named(methods, message):
    with pytest.raises(ValueError, match=message):
        mean_rank(methods, higher_is_better=False)
