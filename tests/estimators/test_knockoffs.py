"""Knockoffs: their moments, the filter against its definition, and the false discovery rate that they promise."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.linalg import toeplitz
from sklearn.linear_model import Lasso

from motet.estimators.knockoffs import (
    CovarianceWarning,
    GaussianKnockoffs,
    KnockoffSelection,
    e_filter,
    e_values,
    exchangeability,
    gaussian_knockoffs,
    knockoff_filter,
    knockoff_selection,
    knockoff_threshold,
    paired,
)


def gaussian(n, covariance, seed=0):
    return np.random.default_rng(seed).standard_normal((n, len(covariance))) @ np.linalg.cholesky(covariance).T


def autoregressive(p, rho):
    return toeplitz(rho ** np.arange(p))


@pytest.mark.parametrize("method", ["mvr", "equicorrelated"])
def test_swapping_any_columns_leaves_the_second_moments(method):
    n, scale = 40_000, np.array([1.0, 10.0, 0.1, 1.0])
    covariance = autoregressive(4, 0.6) * np.outer(scale, scale)
    law = GaussianKnockoffs(gaussian(n, covariance) + np.array([0, 5, 0, -3]), covariance=covariance, method=method)
    drawn = law.draw(np.random.default_rng(1))
    both = np.hstack([law.X, drawn])
    S = np.diag(law.s * scale**2)
    expected = np.block([[covariance, covariance - S], [covariance - S, covariance]])
    spread = np.tile(scale, 2)
    # Each correlation is known to about 1/√n: 5 of these.
    assert_allclose(np.cov(both.T) / np.outer(spread, spread), expected / np.outer(spread, spread), atol=5 * n**-0.5)
    assert_allclose(drawn.mean(axis=0), law.mean, atol=5 * 10 * n**-0.5)


@pytest.mark.parametrize("method", ["mvr", "equicorrelated"])
@pytest.mark.parametrize("rho", [0.0, 0.5, 0.99])
def test_the_joint_covariance_is_positive(method, rho):
    covariance = autoregressive(12, rho)
    s = GaussianKnockoffs(gaussian(30, covariance), covariance=covariance, method=method).s
    assert (s > 0).all()
    assert np.linalg.eigvalsh(2 * covariance - np.diag(s))[0] > 0


def test_mvr_is_the_minimum_of_its_objective():
    covariance = autoregressive(70, 0.7)  # More than one block of columns.
    s = GaussianKnockoffs(gaussian(30, covariance), covariance=covariance).s

    def objective(s):
        return (1 / s).sum() + np.trace(np.linalg.inv(2 * covariance - np.diag(s)))

    inverse = np.linalg.inv(2 * covariance - np.diag(s))
    gradient = -1 / s**2 + (inverse**2).sum(axis=0)
    assert_allclose(gradient * s, 0, atol=0.02 * (1 / s).max())
    equal = GaussianKnockoffs(gaussian(30, covariance), covariance=covariance, method="equicorrelated").s
    assert objective(s) < 0.9 * objective(equal)


def test_independent_features_have_independent_knockoffs():
    assert_allclose(GaussianKnockoffs(gaussian(9, np.eye(5)), covariance=np.eye(5)).s, 1, atol=1e-3)


def test_good_knockoffs_pass_the_swap_test_and_shuffled_columns_fail_it():
    covariance = autoregressive(10, 0.6)
    good, shuffled = [], []
    for run in range(60):
        X, rng = gaussian(100, covariance, run), np.random.default_rng(run)
        law = gaussian_knockoffs(X, rng, covariance=covariance)
        good.append(exchangeability(X, law, run, permutations=99))
        columns = np.column_stack([rng.permutation(column) for column in X.T])
        shuffled.append(exchangeability(X, columns, run, permutations=99))
    # A valid p-value is ≤ 0.1 in a tenth of the runs at most: three binomial standard deviations above.
    assert np.mean(np.array(good) <= 0.1) <= 0.1 + 3 * (0.1 * 0.9 / 60) ** 0.5
    assert np.mean(shuffled) < 0.02


def test_pairs_are_swapped_at_random_and_put_back():
    X, Xk = np.arange(40.0).reshape(2, 20), -np.arange(40.0).reshape(2, 20)
    pair = paired(X, Xk, 0)
    assert 0 < pair.swapped.sum() < 20
    assert_array_equal(pair.features[:, 20:][:, pair.swapped], X[:, pair.swapped])
    original, knockoff = pair.undo(pair.features)
    assert_array_equal(original, X)
    assert_array_equal(knockoff, Xk)
    assert_array_equal(pair.contrast(pair.features[1]), X[1] - Xk[1])


def brute_threshold(W, q, offset):
    for t in sorted({abs(w) for w in W if w}):
        if offset + sum(w <= -t for w in W) <= q * max(1, sum(w >= t for w in W)) + 1e-9:
            return t
    return np.inf


@given(
    st.lists(st.integers(-6, 9).map(float), min_size=1, max_size=30),
    st.sampled_from([0.1, 0.2, 0.5, 0.9]),
    st.sampled_from([0, 1]),
)
def test_the_threshold_is_its_definition(W, q, offset):
    T = brute_threshold(W, q, offset)
    assert knockoff_threshold(W, q, offset) == T
    assert_array_equal(knockoff_filter(W, q, offset), np.array(W) >= T)


@given(st.lists(st.integers(-6, 9).map(float), min_size=1, max_size=30), st.sampled_from([0.1, 0.2, 0.5]))
def test_e_values_of_one_draw_select_what_the_filter_selects(W, q):
    assert_array_equal(e_filter(e_values(W, q), q), knockoff_filter(W, q))


def test_e_values_by_hand():
    W = [5, 4, 3, 2, 2, -1, 0]  # At level 1/2, T = 2: (1 + 0)/5. e = 7/(1 + 0).
    assert_array_equal(e_values(W, 0.2), [7, 7, 7, 7, 7, 0, 0])
    assert_array_equal(e_filter([10, 4, 3, 0], 0.5), [True, True, True, False])  # 4/(0.5·3) = 2.7 ≤ 3
    assert not e_filter([7, 3, 2, 0], 0.5)[1:].any()


def absolute_lasso(y):
    return lambda features, seed: np.abs(Lasso(alpha=0.1).fit(features, y).coef_)


def false_share_and_power(select, runs=100, n=300, p=60, true=15):
    covariance, shares, power = autoregressive(p, 0.8), [], []
    for run in range(runs):
        X, rng = gaussian(n, covariance, run), np.random.default_rng((1, run))
        signal = np.arange(p) % (p // true) == 0
        y = X @ (0.5 * signal) + rng.standard_normal(n)
        selected = select(X, y, covariance, run)
        shares.append((selected & ~signal).sum() / max(1, selected.sum()))
        power.append((selected & signal).sum() / true)
    return np.mean(shares), np.mean(power)


Q = 0.1
HIGHEST = Q + 3 * (Q * (1 - Q) / 100) ** 0.5
"""A share with mean ≤ q has a variance ≤ q(1 - q), that of the binomial: three standard errors of 100 runs above q."""


@pytest.mark.parametrize("known", [True, False])
def test_the_false_discovery_rate_is_held(known):
    def select(X, y, covariance, run):
        found = knockoff_selection(
            absolute_lasso(y), X, q=Q, covariance=covariance if known else None, random_state=run
        )
        return found.selected

    share, power = false_share_and_power(select)
    assert share <= HIGHEST
    assert power >= 0.7


def test_the_test_of_the_rate_would_notice_bad_knockoffs():
    def select(X, y, covariance, run):
        rng = np.random.default_rng(run)
        shuffled = np.column_stack([rng.permutation(column) for column in X.T])
        pair = paired(X, shuffled, rng)
        return knockoff_filter(pair.contrast(absolute_lasso(y)(pair.features, 0)), Q)

    assert false_share_and_power(select, runs=30)[0] > HIGHEST + 0.1


def test_many_draws_depend_less_on_the_draw():
    # At level 0.2 a draw needs 5 features to pass any, and the mean of the draws holds q = 0.4.
    covariance = autoregressive(30, 0.5)
    X = gaussian(120, covariance)
    y = X[:, ::4] @ np.full(8, 0.45) + np.random.default_rng(1).standard_normal(120)

    def disagreement(draws):
        runs = [
            knockoff_selection(absolute_lasso(y), X, q=0.4, level=0.2, draws=draws, random_state=run).selected
            for run in range(6)
        ]
        return np.mean([first ^ second for first in runs for second in runs])

    assert disagreement(20) < disagreement(1)


def test_jobs_and_progress_change_nothing():
    X = gaussian(60, np.eye(5))
    y = X[:, 0]
    heard = []
    one = knockoff_selection(absolute_lasso(y), X, draws=4, random_state=2, progress=lambda *n: heard.append(n))
    many = knockoff_selection(absolute_lasso(y), X, draws=4, random_state=2, n_jobs=2, prefer="threads")
    assert_array_equal(one.W, many.W)
    assert heard == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert one.level == 0.05


def test_too_few_rows_for_the_covariance_are_warned_of_and_said():
    X = gaussian(20, np.eye(30))
    with pytest.warns(CovarianceWarning, match="20 rows don't determine the covariance of 30 features") as caught:
        found = knockoff_selection(lambda features, seed: np.ones(60), X)
    assert caught[0].filename == __file__
    assert "Doubtful: 20 rows" in found.explain()
    assert "covariance doubtful" in repr(found)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gaussian_knockoffs(X, covariance=np.eye(30))  # A covariance from elsewhere is not doubted.


def test_nothing_selected_says_how_many_there_would_have_to_be():
    found = knockoff_selection(lambda features, seed: np.zeros(10), gaussian(40, np.eye(5)), q=0.1)
    assert not found.selected.any()
    assert "nothing or at least 10 features" in found.explain()


def test_constant_columns_are_their_own_knockoffs():
    X = gaussian(40, np.eye(4))
    X[:, 2] = 1e6
    knockoffs = gaussian_knockoffs(X, 0)
    assert_array_equal(knockoffs[:, 2], X[:, 2])
    assert (knockoffs[:, [0, 1, 3]] != X[:, [0, 1, 3]]).all()
    assert_array_equal(gaussian_knockoffs(np.ones((5, 2)), 0), np.ones((5, 2)))


def test_the_result_is_a_table_by_name_and_plain_arrays():
    X = gaussian(60, np.eye(3))
    weights = np.array([3.0, 2.0, 1.0])
    found = knockoff_selection(lambda F, seed: np.tile(weights, 2) * (F[0] > 0), X, q=0.5, draws=2, random_state=0)
    state = found.state()
    assert all(array.dtype.kind in "biuf" for array in state.values())
    again = KnockoffSelection.from_state(state)
    assert again.explain(["a", "b", "c"]) == found.explain(["a", "b", "c"])
    assert sorted(found.to_frame(["a", "b", "c"]).index) == ["a", "b", "c"]
    assert found.to_frame()["e_value"].is_monotonic_decreasing


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gaussian_knockoffs(np.full((5, 2), np.nan)), "X must be finite"),
        (lambda: gaussian_knockoffs(np.ones(5)), "X must be"),
        (lambda: gaussian_knockoffs(np.eye(5), method="sdp"), "method must be one of mvr, equicorrelated"),
        (lambda: gaussian_knockoffs(np.ones((5, 2)), covariance=np.eye(3)), r"symmetric \(2, 2\)"),
        (lambda: gaussian_knockoffs(np.ones((5, 2)), covariance=np.ones((2, 2))), "covariance is singular"),
        (lambda: knockoff_filter([1, np.nan]), "finite number a feature"),
        (lambda: knockoff_filter([1, 2], q=1), "q must"),
        (lambda: knockoff_filter([1, 2], offset=2), "offset must be 0 or 1"),
        (lambda: paired(np.ones((3, 2)), np.ones((3, 3))), r"have shapes \(3, 2\) and \(3, 3\)"),
        (lambda: paired(np.ones((3, 2)), np.ones((3, 2))).contrast(np.ones(3)), "there are 4 columns"),
        (lambda: paired(np.ones((3, 2)), np.ones((3, 2))).contrast([1, 2, np.inf, 0]), "must be finite"),
        (lambda: exchangeability(np.ones((3, 2)), np.ones((2, 2))), "must both be"),
        (lambda: knockoff_selection(lambda F, seed: np.ones(2), np.eye(9)[:, :2], draws=0), "draws must"),
        (lambda: knockoff_selection(lambda F, seed: np.ones(2), np.eye(9)[:, :2], level=0), "level must"),
    ],
)
def test_bad_input_is_one_clear_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()
