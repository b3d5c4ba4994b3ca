"""Folds: that each has its share of what is rare, and no group in two."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import KFold, ShuffleSplit, StratifiedKFold, cross_val_score

from motet.estimators.outcomes import Survival, encode, read_outcomes
from motet.estimators.splits import OutcomeKFold, assign_folds, check_folds, given_folds, without_pairs

OUTCOMES = {
    "age": "continuous",
    "er": "binary",
    "grade": "ordinal",
    "os": Survival("time", "event"),
    "phase": "nominal",
}


def outcomes(rows=200, seed=0):
    """Several kinds, with rare classes, few events and gaps."""
    rng = np.random.default_rng(seed)
    Y = pd.DataFrame(
        {
            "age": rng.normal(size=rows),
            "er": rng.permutation(np.arange(rows) < rows // 10).astype(float),
            "grade": rng.permutation(
                np.repeat([1.0, 2.0, 3.0], [rows // 20, rows // 2, rows - rows // 20 - rows // 2])
            ),
            "time": rng.exponential(size=rows),
            "event": rng.permutation(np.arange(rows) < rows // 8),
            "phase": rng.permutation(
                np.repeat(["a", "b", "c"], [rows // 20, rows // 4, rows - rows // 20 - rows // 4])
            ),
        }
    )
    Y.loc[rng.permutation(rows)[: rows // 4], "age"] = np.nan
    return Y


def tasks(Y):
    return encode(read_outcomes(OUTCOMES, Y), Y)


def spread(mask, fold):
    """Most minus least rows of a kind in a fold."""
    counts = np.bincount(fold[mask], minlength=fold.max() + 1)
    return counts.max() - counts.min()


@given(st.integers(0, 1000))
@settings(max_examples=8)
def test_rare_classes_events_and_gaps_are_even_over_the_folds(seed):
    Y = outcomes(seed=seed)
    fold = assign_folds(tasks(Y), 5, random_state=seed)
    assert spread(Y["grade"] == 1, fold) == 0  # 10 rows
    assert spread(Y["phase"] == "a", fold) == 0
    assert spread(Y["er"] == 1, fold) == 0  # 20 rows
    assert spread(Y["event"], fold) == 0  # 25 rows
    assert spread(Y["age"].isna(), fold) <= 2  # 50 rows
    assert spread(Y["age"] > Y["age"].quantile(0.75), fold) <= 2
    assert spread(np.ones(200, dtype=bool), fold) <= 2


def test_chance_alone_is_worse():
    Y = outcomes()
    uneven = [spread(Y["event"], np.random.default_rng(seed).permutation(np.arange(200) % 5)) for seed in range(20)]
    assert np.mean(uneven) > 3


@given(st.integers(2, 7), st.integers(0, 100))
@settings(max_examples=8)
def test_every_row_is_tested_once(n_splits, seed):
    Y = outcomes(70, seed)
    seen = np.zeros(70, dtype=int)
    for train, test in OutcomeKFold(n_splits, outcomes=OUTCOMES).split(None, Y):
        assert not set(train) & set(test)
        assert len(train) + len(test) == 70
        seen[test] += 1
    assert (seen == 1).all()


def test_the_same_seed_gives_the_same_folds_and_another_one_others():
    Y = tasks(outcomes())
    np.testing.assert_array_equal(assign_folds(Y, 5, None, 3), assign_folds(Y, 5, None, 3))
    assert (assign_folds(Y, 5, None, 3) != assign_folds(Y, 5, None, 4)).any()


def test_values_matter_by_their_order_alone():
    Y = outcomes()
    fold = assign_folds(tasks(Y), 5)
    np.testing.assert_array_equal(assign_folds(tasks(Y.assign(age=np.exp(3 * Y["age"]))), 5), fold)


@given(st.integers(0, 1000))
@settings(max_examples=8)
def test_no_group_is_in_two_folds_and_folds_are_even(seed):
    Y = outcomes(seed=seed)
    rng = np.random.default_rng(seed)
    groups = np.array([f"patient {number}" for number in rng.integers(0, 60, 200)])
    fold = assign_folds(tasks(Y), 5, groups, seed)
    assert (pd.Series(fold).groupby(groups).nunique() == 1).all()
    assert spread(np.ones(200, dtype=bool), fold) <= 6
    assert spread(Y["grade"] == 1, fold) <= 2
    assert spread(Y["event"], fold) <= 4


def test_scikit_learn_takes_it_as_cv():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 2)), rng.normal(size=60)
    groups = np.repeat(np.arange(20), 3)
    assert len(cross_val_score(LinearRegression(), X, y, cv=OutcomeKFold(4), groups=groups)) == 4
    assert OutcomeKFold(4).get_n_splits() == 4


def test_what_can_not_be_scored_in_a_fold_is_told():
    Y = {"er": [0] * 17 + [1] * 3}
    read = encode(read_outcomes("infer", Y), Y)
    fold = assign_folds(read, 5)
    lines = without_pairs(read, fold)
    assert len(lines) == 2
    assert "outcome 'er' can't be scored in fold" in lines[0]


def test_splitters_see_the_outcomes():
    Y = outcomes()
    X = np.zeros((len(Y), 1))
    assert spread(Y["event"], given_folds(OutcomeKFold(5, outcomes=OUTCOMES), X, None, Y)) == 0
    for er in (Y["er"].to_numpy(), Y[["er"]], {"er": Y["er"]}, Y["er"].tolist()):
        assert spread(Y["er"] == 1, given_folds(StratifiedKFold(5), X, None, er)) == 0
    np.testing.assert_array_equal(given_folds(KFold(2), X, None, Y.to_dict("list")), np.repeat([0, 1], 100))


# Mistakes


@pytest.mark.parametrize(
    ("message", "cv"),
    [
        ("leaves out row", ShuffleSplit(3)),
        ("cv gives 1 splits: at least 2", [(np.arange(5), np.arange(5))]),
        ("a splitter or splits, not None", None),
    ],
)
def test_what_are_no_folds_is_refused(message, cv):
    with pytest.raises(ValueError, match=message):
        given_folds(cv, np.zeros((10, 1)))


def test_folds_of_the_callers_own_that_leave_nothing_to_learn_are_refused_by_the_outcomes_name():
    Y = {"er": [0] * 9 + [1], "age": np.arange(10)}
    with pytest.raises(ValueError, match="outcome 'er' has too few .* for 2 folds: without fold 1"):
        check_folds(encode(read_outcomes("infer", Y), Y), np.repeat([0, 1], 5))


@pytest.mark.parametrize(
    ("message", "Y", "options", "groups"),
    [
        ("n_splits must be a whole number ≥ 2, not 1", [0, 1, 2, 3], {"n_splits": 1}, None),
        ("5 folds need as many rows, and there are 4", [0, 1, 2, 3], {}, None),
        ("3 folds need as many groups, and there are 2", [0, 1, 2, 3], {"n_splits": 3}, [1, 1, 2, 2]),
        (r"groups has the shape \(3,\)", [0, 1, 2, 3], {}, [1, 2, 3]),
        ("groups is missing in row 2", [0, 1, 2, 3], {}, [1, 2, None, 3]),
        ("groups is missing in row 0", [0, 1, 2, 3], {}, [np.nan, 2, 2, 3]),
        ("outcome 'y0' has too few different values .* leave the outcome out", [0] * 9 + [1], {}, None),
        ("outcome 'y0' has too few .* or use other groups", [0, 0, 1, 1], {"n_splits": 2}, [1, 1, 2, 2]),
        ("outcome 'y0=c' has too few .* merge the class", list("aaaaabbbbbc"), {}, None),
        ("outcome 'y0' is 1 in all", [1, 1, 1, 1], {}, None),
    ],
)
def test_what_can_not_be_split_is_refused(message, Y, options, groups):
    with pytest.raises(ValueError, match=message):
        list(OutcomeKFold(**options).split(None, Y, groups))
