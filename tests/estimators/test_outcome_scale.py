"""Outcome scales against their definitions, their orders in y and in u, and simulated truth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError

from motet.estimators.calibration_rows import Rows
from motet.estimators.isotonic import interpolated, thresholds_of, weighted_quantiles
from motet.estimators.outcome_scale import LAWS, OutcomeScale
from motet.estimators.score_scale import ScoreScale
from motet.estimators.survival_scale import beran, ipcw
from tests.estimators.calibration import KINDS, censored, outcome


def antitonic_by_definition(values, weight):
    """Max-min formula of the weighted decreasing fit, cubic on purpose."""
    n = len(values)
    mean = {(a, b): np.average(values[a : b + 1], weights=weight[a : b + 1]) for a in range(n) for b in range(a, n)}
    return np.array([min(max(mean[a, b] for b in range(i, n)) for a in range(i + 1)) for i in range(n)])


def kaplan_meier(time, event, at):
    survival = 1.0
    for t in np.unique(time[event == 1]):
        if t <= at:
            survival *= 1 - ((time == t) & (event == 1)).sum() / (time >= t).sum()
    return survival


@given(st.integers(0, 10**6), st.integers(1, 12))
def test_cdf_is_the_least_squares_decreasing_fit_to_the_indicators(seed, n):
    rng = np.random.default_rng(seed)
    u, y, weight = rng.permutation(n) / 3, rng.integers(-2, 3, n) / 2, rng.integers(1, 4, n) * 1.0
    order = np.argsort(u)
    F = OutcomeScale("continuous").fit(u, y, weight=weight).cdf(u[order], np.unique(y))
    for t, column in zip(np.unique(y), F.T, strict=True):
        expected = antitonic_by_definition((y[order] <= t) * 1.0, weight[order])
        np.testing.assert_allclose(column, expected, atol=1e-12)


@given(st.integers(0, 10**6), st.sampled_from(KINDS), st.sampled_from(LAWS), st.integers(1, 40))
def test_predictions_are_monotone_in_the_outcome_and_in_the_score(seed, kind, law, n):
    rng = np.random.default_rng(seed)
    u, y, event = outcome(kind, n, rng)
    scale = OutcomeScale(kind, law=law, max_thresholds=int(rng.integers(1, 20)))
    scale.fit(np.round(u, 1), y, event, rng.random(n) + 0.01)
    grid = np.sort(np.concatenate([np.round(u, 1), rng.normal(size=30), [-9.0, 9.0]]))
    thresholds = np.sort(np.concatenate([y, rng.normal(size=9), [-10.0, y.max()]]))
    F = scale.cdf(grid, thresholds[thresholds <= y.max()])
    assert ((F >= 0) & (F <= 1)).all()
    assert (np.diff(F, axis=1) >= 0).all()
    assert (np.diff(F, axis=0) <= 1e-15).all()
    Q = scale.quantiles(grid, [0.05, 0.5, 0.5, 0.9])
    assert (Q[:, 1:] >= Q[:, :-1]).all()
    assert (Q[1:] >= Q[:-1]).all()
    if kind == "survival":
        assert (np.diff(scale.restricted_mean(grid)) >= -1e-9).all()
    else:
        assert (np.diff(scale.mean(grid)) >= -1e-12).all()
        assert (F[:, -1] == 1).all()


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_of_two_is_a_row_twice_and_a_weight_of_zero_none(kind, law):
    rng = np.random.default_rng(3)
    u, y, event = outcome(kind, 60, rng)
    times = rng.integers(0, 3, 60)
    times[y == y.max()] = 1  # the end of follow-up stays
    twice = np.repeat(np.arange(60), times)
    weighted = OutcomeScale(kind, law=law, max_thresholds=15).fit(u, y, event, times)
    repeated = OutcomeScale(kind, law=law, max_thresholds=15)
    repeated.fit(u[twice], y[twice], None if event is None else event[twice])
    np.testing.assert_array_equal(weighted.law.thresholds, repeated.law.thresholds)
    grid = np.linspace(-3, 3, 50)
    at = np.linspace(0, y.max(), 7)
    np.testing.assert_allclose(weighted.cdf(grid, at), repeated.cdf(grid, at), atol=1e-12)
    np.testing.assert_array_equal(weighted.median(grid), repeated.median(grid))
    if kind in ("binary", "ordinal"):
        np.testing.assert_allclose(weighted.proba(grid), repeated.proba(grid), atol=1e-12)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("kind", KINDS)
def test_an_increasing_transform_of_scores_changes_nothing_at_them(kind, law):
    u, y, event = outcome(kind, 80, np.random.default_rng(5))
    at = np.linspace(0, y.max(), 7)
    plain = OutcomeScale(kind, law=law).fit(u, y, event).cdf(u, at)
    np.testing.assert_allclose(OutcomeScale(kind, law=law).fit(np.exp(3 * u), y, event).cdf(np.exp(3 * u), at), plain)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_state_gives_the_same_predictions_without_pickle(kind, law):
    u, y, event = outcome(kind, 40, np.random.default_rng(1))
    scale = OutcomeScale(kind, law=law).fit(u, y, event)
    state = scale.state()
    assert all(isinstance(value, np.ndarray | float | str) for value in state.values())
    copy = OutcomeScale.from_state(state)
    np.testing.assert_array_equal(copy.quantiles(u, [0.1, 0.5]), scale.quantiles(u, [0.1, 0.5]))
    if kind != "survival":
        np.testing.assert_array_equal(copy.mean(u), scale.mean(u))
    if kind in ("binary", "ordinal"):
        np.testing.assert_array_equal(copy.proba(u), scale.proba(u))
    np.testing.assert_array_equal(copy.fit(u, y, event).median(u), scale.median(u))


def test_between_scores_predictions_are_linear_and_outside_constant():
    scale = OutcomeScale("continuous").fit([0.0, 1.0], [2.0, 4.0])
    np.testing.assert_allclose(scale.mean([-5.0, 0.25, 9.0]), [2, 2.5, 4])
    np.testing.assert_allclose(scale.cdf([-5.0, 0.25, 9.0], [1.9, 2.0, 4.0]), [[0, 1, 1], [0, 0.75, 1], [0, 0, 1]])
    np.testing.assert_array_equal(scale.quantiles([0.25, 1.0], [0.74, 0.76]), [[2, 4], [4, 4]])
    assert scale.quantiles([0.25], 0.75).shape == (1,)


def test_a_constant_score_gives_the_marginal_distribution():
    y = np.array([3.0, 1.0, 1.0, 8.0])
    scale = OutcomeScale("continuous").fit(np.full(4, 0.5), y)
    np.testing.assert_array_equal(scale.cdf([0.1, 0.9], [0.0, 1.0, 3.0, 8.0]), np.tile([0, 0.5, 0.75, 1], (2, 1)))
    np.testing.assert_allclose(scale.mean([0.5]), 3.25)
    time, event = np.array([1.0, 2.0, 2.0, 3.0, 5.0]), np.array([1, 0, 1, 1, 0])
    for law in LAWS:
        curve = OutcomeScale("survival", law=law).fit(np.zeros(5), time, event).survival([7.0], time)[0]
        np.testing.assert_allclose(curve, [kaplan_meier(time, event, t) for t in time], atol=1e-12)


def test_thresholds_are_all_values_or_quantiles_with_the_largest():
    y = np.random.default_rng(0).permutation(1000) * 1.0
    np.testing.assert_array_equal(thresholds_of(y, np.ones(1000), 1000), np.arange(1000))
    np.testing.assert_array_equal(thresholds_of(y, np.ones(1000), 4), [249, 499, 749, 999])
    zero_inflated = np.where(y < 700, 0.0, y)
    found = thresholds_of(zero_inflated, np.ones(1000), 10)
    np.testing.assert_array_equal(found, [0, 799, 899, 999])
    assert len(OutcomeScale("continuous").fit(y, y).law.thresholds) == 200
    quarter = weighted_quantiles(np.array([1.0, 2.0]), np.array([1.0, 3.0]), np.array([0.25, 0.26]))
    np.testing.assert_array_equal(quarter, [1, 2])


def test_probabilities_of_classes_sum_to_one_and_are_shrunk_away_from_zero():
    u, y = np.arange(4.0), np.array([0.0, 0.0, 1.0, 1.0])
    binary = OutcomeScale("binary").fit(u, y).proba(u)
    np.testing.assert_allclose(binary[:, 1], (4 * y + 0.5) / 5)
    ordinal = OutcomeScale("ordinal", classes=[0, 1, 2, 3]).fit(u, [0, 0, 2, 3]).proba(u)
    np.testing.assert_allclose(ordinal.sum(1), 1)
    np.testing.assert_allclose(ordinal[0], np.array([4.5, 0.5, 0.5, 0.5]) / 6)
    assert ordinal.shape == (4, 4)
    only_ones = OutcomeScale("binary").fit(u, np.ones(4)).proba([0.0])
    np.testing.assert_allclose(only_ones, [[0.1, 0.9]])


def test_zeros_of_a_count_have_their_probability():
    u, y = np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.0, 0.0, 0.0, 7.0])
    scale = OutcomeScale("count").fit(u, y)
    np.testing.assert_allclose(scale.zero_probability([0.0, 1.0]), [4.5 / 5, 2.5 / 5])
    np.testing.assert_allclose(scale.mean([0.0, 1.0]), [0, 3.5])


def test_missing_outcomes_are_left_out_whatever_their_scores():
    u, y = np.array([0.0, 1.0, np.nan, 2.0]), np.array([1.0, 2.0, np.nan, 3.0])
    np.testing.assert_array_equal(OutcomeScale("continuous").fit(u, y).mean([0.0, 1.0, 2.0]), [1, 2, 3])
    with pytest.raises(ValueError, match="score is NaN"):
        OutcomeScale("continuous").fit(u, np.nan_to_num(y))


@pytest.mark.parametrize("law", LAWS)
def test_survival_is_nearer_the_truth_than_censored_indicators_taken_as_they_are(law):
    rng = np.random.default_rng(7)
    u, time, event, law_of = censored(1000, rng)
    grid = np.quantile(time[event == 1], np.linspace(0.05, 0.9, 12))
    truth = law_of(u, grid)
    ours = np.abs(OutcomeScale("survival", law=law).fit(u, time, event).cdf(u, grid) - truth).mean()
    naive = OutcomeScale("continuous").fit(u, np.where(event == 1, time, 1e9))
    assert event.mean() < 0.7
    assert ours < 0.045
    assert ours < 0.6 * np.abs(naive.cdf(u, grid) - truth).mean()


def test_kernel_law_bears_censoring_that_depends_on_the_score():
    rng = np.random.default_rng(11)
    u, time, event, law_of = censored(3000, rng, dependence=-1.0)
    grid = np.quantile(time[event == 1], np.linspace(0.05, 0.9, 12))
    fits = {law: OutcomeScale("survival", law=law).fit(u, time, event) for law in LAWS}
    error = {law: np.abs(fit.cdf(u, grid) - law_of(u, grid)).mean() for law, fit in fits.items()}
    assert error["kernel"] < 0.03
    assert error["kernel"] < 0.8 * error["isotonic"]


def test_ipcw_law_is_the_decreasing_fit_to_weighted_indicators():
    rng = np.random.default_rng(2)
    u, time, event, _ = censored(12, rng)
    order = np.argsort(u)
    rows = Rows(u, time, event, np.ones(12))
    law = ipcw(rows, np.sort(time[event == 1]))
    free = [kaplan_meier(time, 1 - event, np.nextafter(t, 0)) for t in time]
    for t, column in zip(law.thresholds, law.at(u[order]).T, strict=True):
        fit = antitonic_by_definition((event * (time <= t) / free)[order], np.ones(12))
        np.testing.assert_allclose(column, np.clip(fit, 0, 1), atol=1e-12)


def test_kernel_law_is_a_product_of_local_hazards():
    u, time, event = np.array([0.0, 1.0, 2.0]), np.array([1.0, 2.0, 3.0]), np.array([1.0, 0.0, 1.0])
    law = beran(Rows(u, time, event, np.ones(3)), np.array([1.0, 3.0]))
    ranks, h = np.array([1, 3, 5]) / 6, 0.15 * 3**-0.2
    kernel = np.exp(-0.5 * ((ranks[:, None] - ranks) / h) ** 2)
    expected = kernel[:, 0] / kernel.sum(1)
    assert (np.diff(expected) < 0).all()
    np.testing.assert_allclose(law.at(u), np.stack([expected, np.ones(3)], 1), atol=1e-12)


def test_what_censoring_hides_is_infinite_or_nan():
    u, time, event = np.zeros(4), np.array([1.0, 2.0, 3.0, 4.0]), np.array([1, 0, 0, 0])
    for law in LAWS:
        scale = OutcomeScale("survival", law=law).fit(u, time, event)
        assert scale.median([0.0]) == [np.inf]
        np.testing.assert_allclose(scale.survival([0.0], [0.5, 1.0, 4.0, 4.1]), [[1, 0.75, 0.75, np.nan]])
        np.testing.assert_allclose(scale.restricted_mean([0.0]), 1 + 0.75 * 3)
        np.testing.assert_allclose(scale.restricted_mean([0.0], 0.5), 0.5)
        with pytest.raises(ValueError, match="end of follow-up, 4"):
            scale.restricted_mean([0.0], 5.0)
        nobody = OutcomeScale("survival", law=law).fit(u, time, np.zeros(4))
        np.testing.assert_array_equal(nobody.survival([0.0], [0.0, 4.0]), [[1, 1]])
        assert nobody.median([0.0]) == [np.inf]
        assert nobody.restricted_mean([0.0]) == [4]


@pytest.mark.parametrize("kind", KINDS)
def test_one_row_or_a_constant_outcome_is_predicted_everywhere(kind):
    for n in (1, 5):
        event = np.ones(n) if kind == "survival" else None
        scale = OutcomeScale(kind).fit(np.arange(n), np.ones(n), event)
        np.testing.assert_array_equal(scale.median([-1.0, 0.3, 9.0]), [1, 1, 1])


@pytest.mark.parametrize(
    ("kind", "y", "event", "weight", "message"),
    [
        ("continuous", [], None, None, "no row"),
        ("continuous", [np.nan, np.nan], None, None, "no row"),
        ("continuous", [1.0, 2.0], None, [0, 0], "no row"),
        ("continuous", [1.0, 2.0], None, [1, -1], "weights must be finite and not negative"),
        ("continuous", [1.0, np.inf], None, None, "infinite"),
        ("continuous", [1.0, 2.0], [1, 1], None, "has no event"),
        ("survival", [1.0, 2.0], None, None, "needs an event"),
        ("survival", [1.0, -2.0], [1, 1], None, "times must not be negative"),
        ("survival", [1.0, 2.0], [1, 2], None, "0 .censored. or 1"),
        ("count", [1.0, -2.0], None, None, "counts must not be negative"),
        ("count", [1.0, 1.5], None, None, "whole numbers"),
        ("binary", [1.0, 2.0], None, None, "none of its classes, 0, 1"),
    ],
)
def test_outcomes_that_cannot_be_are_refused(kind, y, event, weight, message):
    with pytest.raises(ValueError, match=message):
        OutcomeScale(kind).fit(np.arange(len(y)), y, event, weight)


def test_options_and_misuse_are_refused():
    with pytest.raises(ValueError, match="kind must be one of"):
        OutcomeScale("nominal")
    with pytest.raises(ValueError, match="max_thresholds must be at least 1"):
        OutcomeScale("count", max_thresholds=0)
    with pytest.raises(ValueError, match="law must be"):
        OutcomeScale("count", law="cox")
    with pytest.raises(ValueError, match="classes must be increasing"):
        OutcomeScale("ordinal", classes=[1, 0])
    with pytest.raises(NotFittedError):
        OutcomeScale("count").median([0.0])
    scale = OutcomeScale("count").fit([0.0], [1.0])
    with pytest.raises(ValueError, match="a count outcome has no such prediction"):
        scale.proba([0.0])
    with pytest.raises(ValueError, match="q must lie between"):
        scale.quantiles([0.0], 1.0)
    with pytest.raises(ValueError, match="score is NaN"):
        scale.mean([np.nan])
    with pytest.raises(ValueError, match=r"scores must be of shape \(2,\)"):
        scale.fit([0.0], [1.0, 2.0])


@settings(max_examples=50)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
def test_score_scale_keeps_order_and_centres_the_training_scores(training):
    scale = ScoreScale().fit(training)
    new = np.sort(np.concatenate([training, np.linspace(-1e6, 1e6, 9)]))
    u = scale.transform(new)
    assert (np.diff(u) >= -1e-15).all()
    assert ((u > 0) & (u < 1)).all()
    np.testing.assert_allclose(scale.transform(training).mean(), 0.5)
    copy = ScoreScale.from_state(scale.state())
    np.testing.assert_array_equal(copy.transform(new), u)


def test_score_scale_is_the_mid_distribution_function():
    scale = ScoreScale().fit([1.0, 3.0, 3.0, 5.0])
    np.testing.assert_allclose(scale.transform([0, 1, 2, 3, 6]), np.array([2, 2, 5, 8, 14]) / 16)
    np.testing.assert_array_equal(ScoreScale().fit(np.zeros(9)).transform([-1.0, 0.0, 1.0]), [0.5, 0.5, 0.5])
    np.testing.assert_array_equal(
        ScoreScale().fit([1.0, 2.0, 7.0], [2, 1, 0]).transform([1.5]), ScoreScale().fit([1, 1, 2]).transform([1.5])
    )
    for bad, message in (([], "needs a training row"), ([np.nan], "score is NaN")):
        with pytest.raises(ValueError, match=message):
            ScoreScale().fit(bad)


@given(st.integers(0, 10**6))
def test_interpolation_keeps_the_order_of_columns_to_the_last_bit(seed):
    rng = np.random.default_rng(seed)
    knots, values = np.sort(rng.normal(size=6)), np.sort(rng.random((6, 4)), axis=1)
    assert (np.diff(interpolated(rng.normal(size=200) * 2, knots, values), axis=1) >= 0).all()
