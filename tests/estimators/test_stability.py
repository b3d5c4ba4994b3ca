"""Stability selection: what it counts, whom it finds, and that it goes on where it was stopped."""

import pickle
from functools import partial

import numpy as np
import pytest
from joblib import wrap_non_picklable_objects
from numpy.testing import assert_array_equal
from sklearn.linear_model import lasso_path

from motet.estimators.stability import StabilitySelection, _one, stability_selection

ALPHAS = np.array([0.15, 0.2, 0.3, 0.4])


def linear(n=120, p=30, effects=(1.0, -1.0, 0.8), seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p))
    return X, X[:, : len(effects)] @ np.array(effects) + rng.standard_normal(n)


def lasso(X, y, rows, seed):
    return lasso_path(X[rows], y[rows] - y[rows].mean(), alphas=ALPHAS)[1].T[::-1] != 0


def random_features(p, q, rows, seed):
    return (np.random.default_rng(seed).permutation(p) < q)[None]


def by_rows(rows, seed):
    """Row r selects feature r: the result tells who was in which half."""
    return (np.isin(np.arange(12), rows))[None]


def test_true_features_are_stable_and_noise_is_not():
    X, y = linear()
    found = stability_selection(partial(lasso, X, y), 120, 30, pairs=20, lambdas=ALPHAS, random_state=0)
    assert_array_equal(np.flatnonzero(found.selected), [0, 1, 2])
    assert found.bound() == pytest.approx(found.q**2 / (0.5 * 30))
    assert "3 selected at 75%: x0, x1, x2." in found.explain()


def test_null_data_select_nothing():
    X, _ = linear()
    sizes = []
    for run in range(10):
        y = np.random.default_rng(run).standard_normal(120)
        select = partial(lasso, X, y)
        sizes.append(stability_selection(select, 120, 30, pairs=10, max_features=4, random_state=run).selected.sum())
    assert np.median(sizes) == 0
    assert np.mean(sizes) <= 4**2 / (0.5 * 30)


def test_probabilities_are_the_largest_share_over_the_region_and_q_counts_the_union():
    def select(rows, seed):
        first = 0 in rows  # True on exactly one half of every pair.
        return np.array([[first, True, False], [not first, False, False]])

    found = stability_selection(select, 10, 3, pairs=4, random_state=0)
    assert_array_equal(found.per_lambda, [[0.5, 1, 0], [0.5, 0, 0]])
    assert_array_equal(found.probabilities, [0.5, 1, 0])
    assert found.q == 2  # Feature 0 is in every half's union, though no λ has it in more than half of them.


def test_halves_are_complementary_and_of_one_size():
    found = stability_selection(by_rows, 12, 12, pairs=30, random_state=0)
    assert_array_equal(found.halves[::2], ~found.halves[1::2])
    assert (found.halves.sum(axis=1) == 6).all()
    # Each row is left as often as right, within 4 standard deviations.
    assert (np.abs(found.halves[::2].sum(axis=0) - 15) <= 4 * (30 / 4) ** 0.5).all()


def test_an_odd_row_stays_out_of_both_halves():
    found = stability_selection(lambda rows, seed: (np.isin(np.arange(13), rows))[None], 13, 13, pairs=5)
    assert (found.halves.sum(axis=1) == 6).all()


def test_each_half_has_half_of_every_stratum():
    strata = np.array(["a"] * 6 + ["b"] * 4 + [None] * 2, dtype=object)
    found = stability_selection(by_rows, 12, 12, pairs=20, strata=strata, random_state=0)
    for rows, share in ((slice(0, 6), 3), (slice(6, 10), 2), (slice(10, 12), 1)):
        assert (found.halves[:, rows].sum(axis=1) == share).all()


def test_groups_stay_together():
    found = stability_selection(by_rows, 12, 12, pairs=20, groups=np.repeat(np.arange(6), 2), random_state=0)
    assert_array_equal(found.halves[:, ::2], found.halves[:, 1::2])
    assert found.halves[:, ::2].any(axis=0).all()


def test_rows_of_weight_zero_are_never_drawn():
    weights = np.array([0.0, 2.0] * 6)
    found = stability_selection(by_rows, 12, 12, pairs=5, weights=weights, random_state=0)
    assert not found.halves[:, ::2].any()
    assert (found.halves[:, 1::2].sum(axis=1) == 3).all()


def test_halves_without_events_are_drawn_again_and_counted():
    events = {0, 1}
    usable = lambda rows: bool(events & set(rows.tolist()))  # noqa: E731
    found = stability_selection(by_rows, 12, 12, pairs=30, usable=usable, random_state=0)
    assert (found.halves[:, :2].sum(axis=1) == 1).all()
    assert found.redrawn > 0
    assert f"{found.redrawn} pairs were redrawn and 0 left out" in found.explain()


def test_an_outcome_that_no_half_can_have_is_one_clear_error():
    with pytest.raises(ValueError, match="no pair of half-samples .* give strata or more rows"):
        stability_selection(by_rows, 12, 12, pairs=3, usable=lambda rows: len(rows) > 6)


def test_the_region_ends_before_it_selects_too_much():
    def nested(rows, seed):  # From dense to sparse.
        return np.tri(5, 6, 1, dtype=bool)[::-1]

    free = stability_selection(nested, 10, 6, pairs=2)
    held = stability_selection(nested, 10, 6, pairs=2, max_features=3)
    reversed_path = stability_selection(
        lambda rows, seed: nested(rows, seed)[::-1], 10, 6, pairs=2, max_features=3, lambdas=np.arange(5.0, 0, -1)
    )
    assert (free.q, held.q, reversed_path.q) == (6, 3, 3)
    assert_array_equal(held.probabilities, [1, 1, 1, 0, 0, 0])
    assert_array_equal(held.per_lambda, reversed_path.per_lambda[::-1])


def test_jobs_change_nothing():
    select = partial(random_features, 20, 5)
    one = stability_selection(select, 30, 20, pairs=6, random_state=3)
    many = stability_selection(select, 30, 20, pairs=6, random_state=3, n_jobs=2, prefer="threads")
    assert_array_equal(one.halves, many.halves)


def test_a_job_can_be_sent_to_another_process():
    # As joblib sends it. Starting a process that imports torch would take longer than all other tests here.
    offset = 3
    rows = np.arange(5)
    job = partial(_one, lambda rows, seed: np.arange(4)[None] == offset, 4, 7, rows, 0)
    index, support = pickle.loads(pickle.dumps(wrap_non_picklable_objects(job)))()
    assert index == 7
    assert_array_equal(support, [[False, False, False, True]])


def test_a_seed_repeats_a_run_and_more_pairs_keep_the_first_ones():
    select = partial(random_features, 20, 5)
    few = stability_selection(select, 30, 20, pairs=3)
    more = stability_selection(select, 30, 20, pairs=5, random_state=few.random_state)
    other = stability_selection(select, 30, 20, pairs=3)
    assert_array_equal(more.halves[:6], few.halves)
    assert (other.halves != few.halves).any()


def test_an_interrupted_run_goes_on_and_ends_as_if_it_had_not_been(tmp_path):
    path, calls = tmp_path / "stability.npz", []

    def select(rows, seed):
        if len(calls) == 5:
            calls.append("interrupted")
            raise KeyboardInterrupt
        calls.append(seed)
        return random_features(20, 5, rows, seed)

    run = partial(stability_selection, select, 30, 20, pairs=4, random_state=1)
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint=path)
    heard = []
    resumed = run(checkpoint=path, progress=lambda *counts: heard.append(counts))
    assert len(calls) == 6 + 3
    assert heard == [(6, 8), (7, 8), (8, 8)]
    assert_array_equal(resumed.halves, run().halves)
    assert [file.name for file in tmp_path.iterdir()] == ["stability.npz"]


def test_a_finished_checkpoint_fits_nothing_and_takes_more_pairs(tmp_path):
    path, calls = tmp_path / "stability.npz", []

    def select(rows, seed):
        calls.append(seed)
        return random_features(20, 5, rows, seed)

    first = stability_selection(select, 30, 20, pairs=3, checkpoint=path)
    again = stability_selection(select, 30, 20, pairs=3, checkpoint=path)  # The seed is that of the file.
    assert len(calls) == 6
    assert_array_equal(first.halves, again.halves)
    stability_selection(select, 30, 20, pairs=4, checkpoint=path)
    assert len(calls) == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"p": 21}, "p was '20', now '21'"),
        ({"tag": "other genes"}, "tag was 'genes', now 'other genes'"),
        ({"random_state": 2}, "random_state was 1, now 2"),
        ({"strata": np.arange(30) % 2}, "rows was"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, change, message):
    path = tmp_path / "stability.npz"
    options = {"p": 20, "pairs": 2, "random_state": 1, "tag": "genes", "checkpoint": path}
    stability_selection(partial(random_features, 20, 5), 30, **options)
    with pytest.raises(ValueError, match=message):
        stability_selection(partial(random_features, 20, 5), 30, **{**options, **change})


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"not a file of arrays"])
def test_a_damaged_checkpoint_is_refused_with_its_name(tmp_path, content):
    path = tmp_path / "stability.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"stability\.npz is no checkpoint"):
        stability_selection(partial(random_features, 20, 5), 30, 20, pairs=2, checkpoint=path)


def test_a_failing_fit_is_not_hidden_and_loses_nothing(tmp_path):
    path = tmp_path / "stability.npz"
    done = []

    def select(rows, seed):
        if len(done) == 2:
            raise RuntimeError("outcome er has one class")
        done.append(seed)
        return random_features(20, 5, rows, seed)

    with pytest.raises(RuntimeError, match="outcome er has one class"):
        stability_selection(select, 30, 20, pairs=2, checkpoint=path)
    done.clear()
    done.append(0)
    with pytest.raises(RuntimeError):
        stability_selection(select, 30, 20, pairs=2, checkpoint=path)
    assert len(done) == 2


@pytest.mark.parametrize(
    ("select", "message"),
    [
        (lambda rows, seed: np.zeros((2, 5), dtype=bool), r"bool \(L, 4\), and returned bool \(2, 5\)"),
        (lambda rows, seed: np.zeros((2, 4)), "returned float64"),
        (lambda rows, seed: np.zeros((0, 4), dtype=bool), r"\(0, 4\)"),
        (lambda rows, seed: np.zeros((2 + (0 in rows), 4), dtype=bool), "fix the λ beforehand"),
    ],
)
def test_a_select_of_another_shape_is_one_clear_error(select, message):
    with pytest.raises(ValueError, match=message):
        stability_selection(select, 10, 4, pairs=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pairs": 0}, "pairs must"),
        ({"threshold": 0}, "threshold must"),
        ({"threshold": 1.01}, "threshold must"),
        ({"max_features": 0}, "max_features must"),
        ({"n": 1}, "n must"),
        ({"strata": [1, 2]}, r"strata must have one value a row, \(12,\)"),
        ({"weights": -np.ones(12)}, "weights must be finite and not negative"),
        ({"weights": np.eye(12)[0]}, "at least 2 rows"),
        ({"groups": np.zeros(12)}, "at least 2 rows or groups"),
        ({"prefer": "fibres"}, "prefer must"),
        ({"random_state": "one"}, "random_state must"),
        ({"lambdas": np.ones(3)}, "select returned 1 λ"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        stability_selection(by_rows, **{"n": 12, "p": 12, "pairs": 1, **options})


def result(per_lambda, halves, **options):
    return StabilitySelection(np.array(per_lambda, dtype=float), np.array(halves, dtype=bool), **options)


def test_nothing_selected_is_explained():
    weak = result([[0.5, 0.25]], [[1, 0], [0, 0], [1, 1], [0, 0]], threshold=0.75)
    assert "Nothing is selected: the most stable feature, TP53, is in 50% of the half-samples" in weak.explain(
        ["TP53", "ESR1"]
    )
    empty = result([[0.0, 0.0]], np.zeros((4, 2)), threshold=0.75)
    assert "the region holds only λ that empty the model" in empty.explain()
    assert np.isnan(empty.agreement)


def test_a_bound_that_says_nothing_is_explained():
    everything = result(np.ones((1, 100)), np.ones((4, 100)), threshold=0.75)
    assert "says nothing" in everything.explain()
    assert "max_features=7" in everything.explain()  # √(½ · 100)
    assert "has no error bound" in everything.at(0.5).explain()


def test_another_threshold_keeps_the_halves():
    found = result([[0.5, 0.75, 1.0]], np.ones((4, 3)), threshold=0.75)
    assert [found.at(threshold).selected.sum() for threshold in (0.51, 0.75, 0.76, 1.0)] == [2, 2, 1, 1]


def test_agreement_is_the_jaccard_index_of_disjoint_halves():
    found = result([[0.5, 0.5, 0.5]], [[1, 1, 0], [0, 1, 1], [0, 0, 0], [0, 0, 0]], threshold=0.75)
    assert found.agreement == pytest.approx(1 / 3)


def test_the_table_is_by_name_and_most_stable_first():
    found = result([[0.2, 0.9], [0.4, 0.3]], np.ones((4, 2)), threshold=0.75, lambdas=np.array([0.1, 0.2]))
    table = found.to_frame(["age", "size"])
    assert list(table.index) == ["size", "age"]
    assert table.loc["age", ["probability", "lambda", "selected"]].tolist() == [0.4, 0.2, False]
    with pytest.raises(ValueError, match="2 names are needed and 1 were given"):
        found.to_frame(["age"])
    assert "1 of 2 selected at 0.75, 2 pairs" in repr(found)


@pytest.mark.parametrize("lambdas", [None, np.array([1.0])])
def test_the_state_is_numeric_arrays_and_gives_the_result_again(lambdas):
    found = stability_selection(by_rows, 12, 12, pairs=3, random_state=5, lambdas=lambdas)
    state = found.state()
    assert all(array.dtype.kind in "biuf" for array in state.values())
    again = StabilitySelection.from_state(state)
    assert again.explain() == found.explain()
    assert_array_equal(again.halves, found.halves)
    state.pop("halves")
    with pytest.raises(ValueError, match="lacks halves"):
        StabilitySelection.from_state(state)
    with pytest.raises(ValueError, match="'extra' is no part"):
        StabilitySelection.from_state({"extra": np.ones(1)})
