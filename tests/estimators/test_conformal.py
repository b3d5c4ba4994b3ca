"""Conformal statements: coverage on heavy tails, nested bands, sets without gaps, and too few rows."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError

from motet.estimators.calibration_rows import Rows
from motet.estimators.conformal import SplitConformal
from motet.estimators.conformity import band, conformal_quantile, misfits, off_centre, unlikely
from motet.estimators.cv_plus import CVPlus
from motet.estimators.outcome_scale import LAWS, OutcomeScale
from tests.estimators.calibration import censored, outcome

NEW = 4000


def binomial(level, calibration, new=NEW):
    """Four standard errors of a coverage: of the calibration's quantile and of the new rows."""
    return 4 * (level * (1 - level) * (1 / calibration + 1 / new)) ** 0.5


def held(intervals, y):
    return ((intervals[:, 0] <= y) & (y <= intervals[:, 1])).mean()


def split(kind, n, seed, law=None):
    rng = np.random.default_rng(seed)
    u, y, event = outcome(kind, 2 * n, rng)
    first, second = np.arange(n), np.arange(n, 2 * n)

    def part(rows):
        return u[rows], y[rows], None if event is None else event[rows]

    conformal = SplitConformal(OutcomeScale(kind, law=law).fit(*part(first)))
    return conformal.calibrate(*part(second), random_state=seed), outcome(kind, NEW, rng)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("level", [0.5, 0.9])
def test_split_intervals_cover_heavy_tails(law, level):
    conformal, (u, y, _) = split("continuous", 1000, 0, law)
    assert abs(held(conformal.interval(u, level), y) - level) < binomial(level, 1000)


def test_few_rows_are_covered_over_many_repetitions():
    covered = []
    for seed in range(60):
        conformal, (u, y, _) = split("continuous", 40, seed)
        covered.append(held(conformal.interval(u, 0.9), y))
    assert abs(np.mean(covered) - 37 / 41) < 4 * np.std(covered) / 60**0.5


def test_cv_plus_covers_heavy_tails_with_all_rows():
    rng = np.random.default_rng(4)
    u, y, _ = outcome("continuous", 600, rng)
    new, truth, _ = outcome("continuous", 1000, rng)
    intervals = CVPlus("continuous").fit(u, y, np.arange(600) % 5, random_state=0).interval(new)
    assert 0.9 - binomial(0.9, 600, 1000) < held(intervals, truth) < 0.94


def test_counts_are_covered_with_whole_numbers_that_are_not_negative():
    conformal, (u, y, _) = split("count", 800, 2)
    intervals = conformal.interval(u)
    assert held(intervals, y) > 0.9 - binomial(0.9, 800)
    assert (intervals >= 0).all()
    np.testing.assert_array_equal(intervals, np.rint(intervals))


@pytest.mark.parametrize("kind", ["binary", "ordinal"])
def test_sets_cover_and_have_no_gap_and_are_not_empty(kind):
    conformal, (u, y, _) = split(kind, 800, 1)
    rng = np.random.default_rng(9)
    v, z, _ = outcome(kind, 800, rng)
    for method in (conformal, CVPlus(kind).fit(v, z, np.arange(800) % 4)):
        for level in (0.3, 0.8, 0.95):
            sets = method.sets(u, level)
            assert sets[np.arange(NEW), y.astype(int)].mean() > level - binomial(level, 800)
            assert sets.any(1).all()
            assert (np.abs(np.diff(np.pad(sets, ((0, 0), (1, 1))).astype(int), axis=1)).sum(1) == 2).all()
        assert sets.sum(1).mean() > method.sets(u, 0.8).sum(1).mean()


def test_unlikely_closes_gaps_between_likely_classes():
    scale = OutcomeScale("ordinal", classes=[0, 1, 2, 3]).fit(np.zeros(10), [0, 0, 0, 0, 1, 2, 2, 2, 3, 3])
    p = (10 * np.array([0.4, 0.1, 0.3, 0.2]) + 0.5) / 12
    np.testing.assert_allclose(unlikely(scale, np.zeros(1))[0], 1 - p[[0, 2, 2, 3]])


def test_survival_bounds_hold_for_the_times_that_censoring_hides():
    rng = np.random.default_rng(8)
    u, time, event, _ = censored(1600, rng)
    half, rest = slice(800), slice(800, None)
    conformal = SplitConformal(OutcomeScale("survival").fit(u[half], time[half], event[half]))
    conformal.calibrate(u[rest], time[rest], event[rest], random_state=0)
    new = rng.normal(size=NEW)
    truth = np.exp(new) * rng.exponential(size=NEW) ** 0.7
    for level in (0.7, 0.9):
        bound = conformal.lower_bound(new, level)
        assert abs((truth >= bound).mean() - level) < binomial(level, 800) * 1.5  # weights above 1 cost rows
    assert (conformal.lower_bound(new, 0.7) <= time[half].max()).all()


def test_survival_bound_is_at_most_the_end_of_follow_up():
    scale = OutcomeScale("survival").fit(np.zeros(20), np.arange(1.0, 21), np.arange(20) == 0)
    conformal = SplitConformal(scale).calibrate(np.zeros(20), np.arange(1.0, 21), np.zeros(20), random_state=0)
    np.testing.assert_array_equal(conformal.lower_bound([0.0], 0.8), [20])


@given(st.integers(0, 10**6), st.sampled_from(["continuous", "count"]), st.sampled_from(LAWS))
def test_an_outcome_lies_in_the_band_of_its_own_misfit(seed, kind, law):
    rng = np.random.default_rng(seed)
    u, y, _ = outcome(kind, 20, rng)
    scale = OutcomeScale(kind, law=law, max_thresholds=int(rng.integers(2, 30))).fit(u, y)
    v, z, _ = outcome(kind, 30, rng)
    radius = np.sort(off_centre(scale, Rows(v, z, np.ones(30), np.ones(30)), 0))
    lower, upper = band(scale, v, radius * (1 + 1e-9))
    own = np.argsort(np.argsort(off_centre(scale, Rows(v, z, np.ones(30), np.ones(30)), 0)))
    rows = np.arange(30)
    assert (lower[rows, own] <= z).all()
    assert (z <= upper[rows, own]).all()
    assert (np.diff(lower, axis=1) <= 0).all()
    assert (np.diff(upper, axis=1) >= 0).all()
    few = band(scale, v, radius[:3] * (1 + 1e-9))  # fewer radii than rows take another way through the quantiles
    np.testing.assert_array_equal(few[0], lower[:, :3])
    np.testing.assert_array_equal(few[1], upper[:, :3])


def test_misfit_is_uniform_in_jumps_and_grows_outside_the_support():
    scale = OutcomeScale("continuous").fit(np.zeros(4), [0.0, 0.0, 1.0, 4.0])
    rows = Rows(np.zeros(4000), np.zeros(4000), np.ones(4000), np.ones(4000))
    values = off_centre(scale, rows, 1)  # F jumps from 0 to ½ at 0
    assert abs(values.mean() - 0.25) < 0.02
    assert values.max() <= 0.5
    # The interquartile range of 0, 0, 1, 4 by the inverse of its distribution function is 1 - 0.
    outside = Rows(np.zeros(2), np.array([-2.0, 6.0]), np.ones(2), np.ones(2))
    np.testing.assert_allclose(misfits(scale, outside, None), [0.5 + 2, 0.5 + 2])
    lower, upper = band(scale, np.zeros(1), np.array([0.1, 0.26, 1.5]))
    np.testing.assert_array_equal(lower, [[0, 0, -1]])
    np.testing.assert_array_equal(upper, [[1, 4, 5]])


def test_quantile_is_the_smallest_value_with_enough_weight():
    values = np.arange(9.0)
    assert conformal_quantile(values, np.ones(9), 0.1) == 8
    assert conformal_quantile(values, np.ones(9), 0.2) == 7
    assert conformal_quantile(values, np.ones(9), 0.09) == np.inf
    weight = np.array([1, 2, 3, 1, 2, 1, 1, 1, 1])
    repeated = np.repeat(values, weight)
    for miss in (0.1, 0.3, 0.5):
        assert conformal_quantile(values, weight, miss) == conformal_quantile(repeated, np.ones(13), miss)


def test_cv_plus_takes_quantiles_of_the_ends_of_all_bands():
    rng = np.random.default_rng(3)
    u, y, _ = outcome("continuous", 30, rng)
    fold = np.arange(30) % 3
    method = CVPlus("continuous", law="isotonic").fit(u, y, fold, random_state=5)
    new, ends, draw = rng.normal(size=4), [], np.random.default_rng(5)
    by_fold = new[:, None] + np.array([0.0, 0.1, 0.2])
    for k in range(3):
        mine = fold == k
        scale = OutcomeScale("continuous").fit(u[~mine], y[~mine])
        values = off_centre(scale, Rows(u[mine], y[mine], np.ones(10), np.ones(10)), draw)
        ends.append(np.stack(band(scale, by_fold[:, k], values)))
    lower, upper = np.concatenate(ends, axis=2)
    expected = np.stack([np.sort(lower, 1)[:, 30 - 25], np.sort(upper, 1)[:, 25 - 1]], 1)  # ⌈0.8 · 31⌉ = 25
    np.testing.assert_array_equal(method.interval(by_fold, 0.8), expected)
    np.testing.assert_array_equal(method.interval(new), method.interval(np.tile(new[:, None], 3)))


def test_too_few_rows_give_an_empty_statement_and_one_warning():
    u, y, event = np.arange(8.0), np.arange(8.0), np.ones(8)
    new = [0.0, 3.0]
    everything = [[-np.inf, np.inf]] * 2
    scale = OutcomeScale("continuous").fit(u, y)
    with pytest.warns(UserWarning, match="8 calibration rows are too few for the level 0.9, which needs 9") as seen:
        np.testing.assert_array_equal(SplitConformal(scale).calibrate(u, y).interval(new), everything)
    assert len(seen) == 1
    assert seen[0].filename == __file__
    with pytest.warns(UserWarning, match="too few"):
        np.testing.assert_array_equal(CVPlus("continuous").fit(u, y, np.arange(8) % 2).interval(new), everything)
    binary = OutcomeScale("binary").fit(u, y > 3)
    with pytest.warns(UserWarning, match="too few"):
        assert SplitConformal(binary).calibrate(u, y > 3).sets(new).all()
    with pytest.warns(UserWarning, match="too few"):
        assert CVPlus("binary").fit(u, y > 3, np.arange(8) % 2).sets(new).all()
    survival = OutcomeScale("survival").fit(u, y, event)
    with pytest.warns(UserWarning, match="too few"):
        assert (SplitConformal(survival).calibrate(u, y, event).lower_bound(new) == 0).all()
    with pytest.warns(UserWarning, match="too few"):
        SplitConformal(scale).calibrate(u, y).interval(new, 0.8, outcomes=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(SplitConformal(scale).calibrate(u, y).interval(new, 0.8)).all()


def test_simultaneous_outcomes_share_the_error():
    conformal, (u, _, _) = split("continuous", 400, 6)
    np.testing.assert_array_equal(conformal.interval(u, 0.9, outcomes=2), conformal.interval(u, 0.95))


def test_a_weight_of_two_is_a_row_twice():
    rng = np.random.default_rng(1)
    u, y, _ = outcome("ordinal", 60, rng)
    weight = rng.integers(0, 3, 60)
    twice = np.repeat(np.arange(60), weight)
    scale = OutcomeScale("ordinal").fit(u, y)
    ours = SplitConformal(scale).calibrate(u, y, weight=weight)
    theirs = SplitConformal(scale).calibrate(u[twice], y[twice])
    np.testing.assert_array_equal(ours.sets(u, 0.7), theirs.sets(u, 0.7))
    fold = np.arange(60) % 3
    weighted = CVPlus("ordinal", classes=np.unique(y)).fit(u, y, fold, weight)
    repeated = CVPlus("ordinal", classes=np.unique(y)).fit(u[twice], y[twice], fold[twice])
    np.testing.assert_array_equal(weighted.sets(u, 0.7), repeated.sets(u, 0.7))


def test_missing_outcomes_are_left_out():
    rng = np.random.default_rng(1)
    u, y, _ = outcome("continuous", 90, rng)
    fold, missing = np.arange(90) % 3, rng.random(90) < 0.3
    with_holes = np.where(missing, np.nan, y)
    ours = CVPlus("continuous").fit(u, with_holes, fold, random_state=0).interval(u)
    theirs = CVPlus("continuous").fit(u[~missing], y[~missing], fold[~missing], random_state=0).interval(u)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("kind", ["continuous", "ordinal", "survival"])
def test_a_state_gives_the_same_statements_without_pickle(kind):
    conformal, (u, _, _) = split(kind, 50, 0)
    state = conformal.state()
    assert all(isinstance(value, np.ndarray | float | str) for value in state.values())
    copy = SplitConformal.from_state(state)
    statement = {"continuous": "interval", "ordinal": "sets", "survival": "lower_bound"}[kind]
    np.testing.assert_array_equal(getattr(copy, statement)(u), getattr(conformal, statement)(u))
    if kind == "survival":
        return
    v, y, _ = outcome(kind, 60, np.random.default_rng(2))
    method = CVPlus(kind).fit(v, y, np.arange(60) % 3, random_state=0)
    state = method.state()
    assert all(isinstance(value, np.ndarray | float | str) for value in state.values())
    np.testing.assert_array_equal(getattr(CVPlus.from_state(state), statement)(u), getattr(method, statement)(u))


def test_misuse_is_refused():
    scale = OutcomeScale("continuous").fit([0.0, 1.0], [0.0, 1.0])
    conformal = SplitConformal(scale)
    with pytest.raises(NotFittedError, match="calibrate first"):
        conformal.interval([0.0])
    conformal.calibrate([0.0, 1.0], [0.0, 1.0])
    with pytest.raises(ValueError, match="level must lie between 0 and 1"):
        conformal.interval([0.0], 1.0)
    with pytest.raises(ValueError, match="at least 1"):
        conformal.interval([0.0], 0.5, outcomes=0)
    with pytest.raises(ValueError, match="continuous outcome has no conformal set"):
        conformal.sets([0.0])
    with pytest.raises(ValueError, match="no conformal lower bound"):
        conformal.lower_bound([0.0])
    with pytest.raises(ValueError, match="survival outcome has no conformal CV"):
        CVPlus("survival")
    with pytest.raises(NotFittedError):
        CVPlus("count").interval([0.0])
    with pytest.raises(ValueError, match="at least two folds"):
        CVPlus("count").fit([0.0, 1.0], [0.0, 1.0], [0, 0])
    method = CVPlus("count").fit([0.0, 1.0], [0.0, 1.0], [0, 1])
    with pytest.raises(ValueError, match="a column for each of 2 folds"):
        method.interval(np.zeros((1, 3)))
    ordinal = SplitConformal(OutcomeScale("ordinal").fit([0.0, 1.0], [0.0, 1.0]))
    with pytest.raises(ValueError, match="class that the scale does not know"):
        ordinal.calibrate([0.0], [2.0])
