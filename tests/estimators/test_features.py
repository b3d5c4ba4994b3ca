"""Features: standardisation, names, and what each mistake is answered with."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from sklearn.base import BaseEstimator

from motet.estimators.features import Features, check_weights

RNG = np.random.default_rng(0)
X = RNG.normal(3, 2, (30, 4))
TABLE = pd.DataFrame(X, columns=["TP53", "BRCA1", "MYC", "EGFR"], index=[f"S{row}" for row in range(30)])


class Owner(BaseEstimator):
    """Stands for an estimator."""


def test_columns_have_mean_0_and_deviation_1_in_float32():
    z = Features().fit(X).transform(X)
    assert z.dtype == np.float32
    np.testing.assert_allclose(z, (X - X.mean(0)) / X.std(0), rtol=1e-5, atol=1e-6)


def test_a_weight_of_2_is_a_second_copy_and_a_weight_of_0_no_row():
    weights = RNG.integers(0, 3, len(X))
    weighted, copied = Features().fit(X, weights), Features().fit(np.repeat(X, weights, axis=0))
    np.testing.assert_allclose(weighted.mean_, copied.mean_, rtol=1e-12)
    np.testing.assert_allclose(weighted.scale_, copied.scale_, rtol=1e-12)


@given(st.integers(-150, 150), st.integers(-150, 150))
def test_units_do_not_matter(scale, shift):
    moved = X * 10.0**scale
    expected = Features().fit(X).transform(X)
    np.testing.assert_allclose(Features().fit(moved).transform(moved), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e9, -7.3e-200])
def test_a_constant_column_is_0_in_every_row_later_ones_too(value):
    constant = np.column_stack([X[:, 0], np.full(len(X), value)])
    features = Features().fit(constant)
    assert features.constant_.tolist() == [False, True]
    assert (features.transform(constant + np.array([0, 5]))[:, 1] == 0).all()


def test_a_column_that_differs_by_rounding_is_constant():
    values = np.where(np.arange(30) % 2, 0.3, 0.1 + 0.2)
    assert Features().fit(np.column_stack([X[:, 0], values])).constant_.tolist() == [False, True]


def test_a_column_constant_in_the_rows_with_weight_is_constant():
    column = np.r_[np.ones(29), 5]
    weights = np.r_[np.ones(29), 0]
    assert Features().fit(np.column_stack([X[:, 0], column]), weights).constant_.tolist() == [False, True]


def test_duplicated_columns_and_more_columns_than_rows_are_no_error():
    wide = np.tile(X[:5], 10)
    z = Features().fit(wide).transform(wide)
    np.testing.assert_array_equal(z[:, :4], z[:, 4:8])


def test_inputs_are_not_changed():
    before = X.copy()
    Features().fit(X, np.ones(30)).transform(X)
    np.testing.assert_array_equal(X, before)


# Forms of X


def test_all_forms_of_x_say_the_same():
    expected = Features().fit(X).transform(X)
    mixed = TABLE.assign(MYC=TABLE["MYC"].astype(object), EGFR=TABLE["EGFR"].astype("Float64"))
    for form in (X.tolist(), TABLE, np.asfortranarray(X), X.astype(object), mixed):
        np.testing.assert_array_equal(Features().fit(form).transform(form), expected)


def test_truth_values_are_0_and_1():
    table = pd.DataFrame({"a": [True, False] * 5, "b": pd.array([True, False] * 5, dtype="boolean")})
    assert set(Features().fit(table).transform(table).ravel()) == {-1.0, 1.0}


def test_polars_is_read_as_pandas_is():
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({name: TABLE[name].to_numpy() for name in TABLE})
    features = Features().fit(frame)
    assert features.feature_names_in_.tolist() == list(TABLE)
    np.testing.assert_array_equal(features.transform(frame), Features().fit(TABLE).transform(TABLE))
    with pytest.raises(ValueError, match="The feature names should match"):
        features.transform(frame.select(reversed(frame.columns)))
    with pytest.raises(ValueError, match="X column 'sex' is not numeric but holds text"):
        Features().fit(frame.with_columns(polars.lit("F").alias("sex")))
    with pytest.raises(ValueError, match="X is NaN in column 'MYC', row 0"):
        Features().fit(frame.with_columns(polars.lit(None, dtype=polars.Float64).alias("MYC")))


# Names


def test_the_owner_gets_names_and_number_and_is_named_in_errors():
    owner = Owner()
    features = Features().fit(TABLE, owner=owner)
    assert owner.n_features_in_ == features.n_features_in_ == 4
    assert owner.feature_names_in_.tolist() == features.names_ == list(TABLE)
    with pytest.raises(ValueError, match="X has 3 features, but Owner is expecting 4 features as input"):
        Features().fit(X, owner=owner).transform(X[:, :3], owner=owner)


def test_names_are_those_of_fit_in_the_same_order():
    features = Features().fit(TABLE)
    with pytest.raises(ValueError, match="must be in the same order"):
        features.transform(TABLE[["BRCA1", "TP53", "MYC", "EGFR"]])
    with pytest.raises(ValueError, match="unseen at fit time:\n- KRAS"):
        features.transform(TABLE.rename(columns={"MYC": "KRAS"}))
    with pytest.raises(ValueError, match="now missing:\n- EGFR"):
        features.transform(TABLE.drop(columns="EGFR"))
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        features.transform(X)


def test_without_names_columns_are_numbered():
    assert Features().fit(X).names_ == ["x0", "x1", "x2", "x3"]


def test_state_is_all_of_it():
    features = Features().fit(TABLE)
    again = Features.from_state(features.state())
    np.testing.assert_array_equal(again.transform(TABLE), features.transform(TABLE))
    assert again.feature_names_in_.tolist() == list(TABLE)
    assert not hasattr(Features.from_state(Features().fit(X).state()), "feature_names_in_")


# Mistakes


@pytest.mark.parametrize(
    ("message", "columns"),
    [
        (r"X is NaN in column 'MYC', row 'S2': impute", {"MYC": TABLE["MYC"].where(TABLE.index != "S2")}),
        (r"X is NaN in column 'TP53', row 'S0' and in 1 more columns", {"TP53": np.nan, "MYC": np.nan}),
        (r"X is infinite \(inf\) in column 'MYC', row 'S2'", {"MYC": TABLE["MYC"].mask(TABLE.index == "S2", -np.inf)}),
        (r"X column 'sex' is not numeric but holds text \('F' …\): encode it", {"sex": "F"}),
        (r"X column 'arm' is not numeric but holds categories \('1' …\)", {"arm": pd.Categorical([1] * 30)}),
        (r"X column 'day' is not numeric but holds dates", {"day": pd.Timestamp("2020-01-01")}),
        (r"X column 'lag' is not numeric but holds durations", {"lag": pd.Timedelta(days=2)}),
        (r"X column 'z' is not numeric but holds objects", {"z": [[1]] * 30}),
        (r"X column 'z' is not numeric but holds objects", {"z": 1j}),
    ],
)
def test_a_column_that_can_not_be_used_is_named(message, columns):
    with pytest.raises(ValueError, match=message):
        Features().fit(TABLE.assign(**columns))


def test_a_name_that_occurs_twice_is_refused():
    with pytest.raises(ValueError, match="X has the column 'TP53' twice"):
        Features().fit(TABLE.set_axis(["TP53", "BRCA1", "TP53", "EGFR"], axis=1))


def test_sparse_is_refused_with_the_way_out():
    with pytest.raises(TypeError, match="Sparse data was passed.*toarray"):
        Features().fit(sparse.csr_matrix(X))


@pytest.mark.parametrize(
    ("message", "values"),
    [
        (
            "X is not numeric: column 1 holds 'a' in row 2",
            np.array([["1", "2"], ["3", "4"], ["5", "a"]], dtype=object),
        ),
        ("Reshape your data", X[:, 0]),
        ("0 feature", np.zeros((3, 0))),
        ("0 sample", np.zeros((0, 3))),
        (r"X is NaN in column 'x1', row 2 \(counted from 0\)", np.array([[1, 2], [3, 4], [5, np.nan]])),
    ],
)
def test_an_array_that_can_not_be_used_is_refused(message, values):
    with pytest.raises(ValueError, match=message):
        Features().fit(values)


def test_a_value_too_large_for_float32_is_refused_instead_of_becoming_infinite():
    features = Features().fit(TABLE)
    with pytest.raises(ValueError, match="standard deviations off in column 'BRCA1', row 0"):
        features.transform(TABLE.assign(BRCA1=1e60))


@pytest.mark.parametrize(
    ("message", "weights"),
    [
        (r"shape \(3, 1\): it must be \(3,\)", np.ones((3, 1))),
        ("is -1 in row 1", [1, -1, 1]),
        ("is nan in row 2", [1, 1, np.nan]),
        ("is zero in every row", [0, 0, 0]),
    ],
)
def test_weights_are_checked(message, weights):
    with pytest.raises(ValueError, match=message):
        check_weights(weights, 3)
