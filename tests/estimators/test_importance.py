"""Permutation importance: whose score falls, by how much, and that nothing else is touched."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from motet.estimators.importance import PermutationImportance, permutation_importance


def negative_errors(y, model):
    """Score of K outcomes: minus the mean squared error."""
    return lambda X: -((model(np.asarray(X, dtype=float)) - y) ** 2).mean(axis=0)


@pytest.fixture
def table():
    X = np.random.default_rng(0).standard_normal((400, 4))
    weights = np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    return X, weights


def test_drops_are_those_of_a_linear_model(table):
    X, weights = table
    found = permutation_importance(negative_errors(X @ weights, lambda X: X @ weights), X, 0, repeats=30)
    # Shuffling an independent column of variance 1 raises the squared error by 2 w²; 400 rows know it to ± 3/√400.
    assert_allclose(found.mean, 2 * weights**2, rtol=0.15, atol=1e-12)
    assert_array_equal(found.mean[3], [0, 0])
    assert_array_equal(found.baseline, [0, 0])


def test_the_standard_error_is_that_of_the_mean_over_the_shuffles(table):
    X, weights = table
    found = permutation_importance(negative_errors(X @ weights, lambda X: X @ weights), X, 0, repeats=5)
    assert_allclose(found.standard_error, found.drops.std(axis=0, ddof=1) / 5**0.5)
    assert np.isnan(permutation_importance(lambda X: [X.mean()], X, repeats=1).standard_error).all()


def test_a_group_is_shuffled_in_one_order():
    X = np.repeat(np.random.default_rng(0).standard_normal((50, 1)), 2, axis=1)
    score = lambda X: {"same": -np.abs(X[:, 0] - X[:, 1]).max()}  # noqa: E731
    together = permutation_importance(score, X, 0, groups={"both": [0, 1]})
    apart = permutation_importance(score, X, 0)
    assert (together.drops == 0).all()
    assert (apart.drops > 0).all()
    assert together.features == ("both",)
    assert together.outcomes == ("same",)


def test_frames_keep_their_types_and_their_values():
    X = pd.DataFrame(
        {"age": [30, 40, 50, 60], "grade": pd.Categorical(list("abca")), "size": [0.5, np.nan, 1.5, 2.0]},
        index=[7, 8, 9, 3],
    )
    before, seen = X.copy(), []

    def score(frame):
        seen.append(frame)
        return [0.0]

    found = permutation_importance(score, X, 0, repeats=2, columns=["grade", "size"])
    pd.testing.assert_frame_equal(X, before)
    assert found.features == ("grade", "size")
    for frame in seen[1:]:
        assert list(frame.dtypes) == list(X.dtypes)
        assert list(frame.index) == [7, 8, 9, 3]
        assert frame["age"].equals(X["age"])
        assert sorted(frame["grade"]) == ["a", "a", "b", "c"]


def test_an_array_is_not_changed_and_a_seed_repeats_it(table):
    X, weights = table
    before = X.copy()
    score = negative_errors(X @ weights, lambda X: X @ weights)
    runs = [permutation_importance(score, X, seed, repeats=2).drops for seed in (3, 3, 4)]
    assert_array_equal(X, before)
    assert_array_equal(runs[0], runs[1])
    assert (runs[0] != runs[2]).any()


def test_what_can_not_be_scored_stays_unknown():
    X = np.random.default_rng(0).standard_normal((20, 2))
    found = permutation_importance(lambda X: {"er": np.nan, "age": X[0, 0]}, X, 0, columns=[0])
    assert np.isnan(found.mean[0, 0])
    assert np.isfinite(found.mean[0, 1])


def test_the_table_is_sorted_and_the_state_gives_it_again(table):
    X, weights = table
    heard = []
    found = permutation_importance(
        negative_errors(X @ weights, lambda X: X @ weights), X, 0, progress=lambda *n: heard.append(n)
    )
    assert list(found.to_frame().index) == ["x0", "x2", "x1", "x3"]
    assert list(found.to_frame(standard_error=True).index) == ["x0", "x2", "x1", "x3"]
    assert list(found.to_frame().columns) == ["y0", "y1"]
    assert heard[-1] == (4, 4)
    assert all(array.dtype.kind in "biuf" for array in found.state().values())
    assert repr(PermutationImportance.from_state(found.state())) == repr(found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repeats": 0}, "repeats must"),
        ({"columns": ["x9"]}, "there are 0 columns 'x9'"),
        ({"columns": [2]}, "there is no column 2"),
        ({"columns": [0], "groups": {"a": [0]}}, "columns or groups"),
        ({"groups": {"a": []}}, "the groups a have no columns"),
        ({"X": np.ones(3)}, "X must be"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        permutation_importance(lambda X: [0.0], **{"X": np.ones((3, 2)), **options})
