"""Features: X as standardised numbers, with the names and checks that scikit-learn's estimators have."""

from collections import Counter
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from motet.columns import plain
from motet.estimators.cells import row_name

__all__ = ["Features", "check_weights"]

_ROUNDING = 8 * np.finfo(np.float64).eps
"""A column whose values differ by less than this share of the largest is constant but for rounding."""


class Features(BaseEstimator):  # type: ignore[misc]
    """Columns of X with mean 0 and standard deviation 1 on the training rows, in float32.

    z_iq = (x_iq - m_q) / s_q,   m_q = Σ_i c_i x_iq / Σ_i c_i,   s_q² = Σ_i c_i (x_iq - m_q)² / Σ_i c_i

    A column that is constant in the training data is 0 in every row, later ones too: no loss depends on it,
    so that it is never selected. A sample weight of 2 is the same as a second copy of the row.

    Attributes:
        n_features_in_: Number of columns.
        feature_names_in_: Their names, where X has names and all are strings.
        mean_: (p,) m.
        scale_: (p,) s; infinite for constant columns.

    Shapes:
        X is (n, p), a numpy array, a pandas or polars DataFrame, or a list of lists.
    """

    def fit(self, X: Any, sample_weight: ArrayLike | None = None, owner: Any = None) -> Self:
        """Learn means and deviations.

        Args:
            X: (n, p).
            sample_weight: (n,), ≥ 0. Rows of weight 0 are not looked at.
            owner: The estimator that errors and warnings are about. It is given `n_features_in_` and, where X
                has names, `feature_names_in_`.

        Raises:
            ValueError: if a column is not numeric, has NaN or infinity, or a name that occurs twice.
        """
        values = self.read(X, owner)
        weights = check_weights(sample_weight, len(values))
        if not weights.all():
            values, weights = values[weights > 0], weights[weights > 0]
        return self.learn(values, weights)

    def read(self, X: Any, owner: Any = None) -> NDArray[np.float64]:
        """X as numbers (n, p), its names kept; the part of `fit` that can refuse it."""
        values = _read(X, self if owner is None else owner, reset=True)
        if owner is not None:
            self.n_features_in_ = owner.n_features_in_
            if hasattr(owner, "feature_names_in_"):
                self.feature_names_in_ = owner.feature_names_in_
        return values

    def learn(self, values: NDArray[np.float64], weights: NDArray[np.float64]) -> Self:
        """Means and deviations of rows (n, p) with weights > 0, (n,)."""
        weights = weights / weights.sum()
        low, high = values.min(axis=0), values.max(axis=0)
        constant = high - low <= _ROUNDING * np.maximum(abs(low), abs(high))
        self.mean_ = np.where(constant, low, weights @ values)
        # Within a unit of the largest deviation, so that no square overflows or vanishes.
        unit = np.where(constant, 1.0, np.maximum(high - self.mean_, self.mean_ - low))
        centred = (values - self.mean_) / unit
        centred *= centred
        self.scale_ = np.where(constant, np.inf, unit * np.sqrt(weights @ centred))
        return self

    def transform(self, X: Any, owner: Any = None) -> NDArray[np.float32]:
        """Standardise, after checking that the columns are those of fit.

        Raises:
            ValueError: as `fit` does, and if number, names or order of the columns are not those of fit.
        """
        check_is_fitted(self, "scale_")
        return self.standardised(_read(X, self if owner is None else owner, reset=False))

    def standardised(self, values: NDArray[np.float64]) -> NDArray[np.float32]:
        """What `transform` makes of numbers (n, p) that were read already."""
        values = values - self.mean_
        values /= self.scale_
        with np.errstate(over="ignore"):
            z: NDArray[np.float32] = values.astype(np.float32)
        if not np.isfinite(z).all():
            row, column = np.argwhere(~np.isfinite(z))[0]
            raise ValueError(
                f"X is {values[row, column]:.3g} standard deviations off in {self._name(column)}, row {row} "
                "(counted from 0), which is too far for float32: correct that value"
            )
        return z

    @property
    def constant_(self) -> NDArray[np.bool_]:
        """(p,) Which columns are constant in the training data."""
        return np.isinf(self.scale_)

    @property
    def names_(self) -> list[str]:
        """(p,) The columns' names; x0, x1, … where X had none."""
        return [str(name) for name in getattr(self, "feature_names_in_", _numbered(self.n_features_in_))]

    def state(self) -> dict[str, Any]:
        """All that was fitted, for `saving.save`."""
        names = getattr(self, "feature_names_in_", None)
        return {"mean": self.mean_, "scale": self.scale_, "names": None if names is None else list(map(str, names))}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """The inverse of `state`."""
        features = cls()
        features.mean_, features.scale_ = state["mean"], state["scale"]
        features.n_features_in_ = len(features.mean_)
        if state["names"] is not None:
            features.feature_names_in_ = np.array(state["names"], dtype=object)
        return features

    def _name(self, column: int) -> str:
        return f"column {self.names_[column]!r}"


def check_weights(sample_weight: ArrayLike | None, rows: int) -> NDArray[np.float64]:
    """Sample weights as (n,) float64, 1 where there are none.

    Raises:
        ValueError: if they are not one finite number ≥ 0 for each row, or all are 0.
    """
    if sample_weight is None:
        return np.ones(rows)
    weights = np.asarray(sample_weight, dtype=np.float64)
    if weights.shape != (rows,):
        raise ValueError(f"sample_weight has the shape {weights.shape}: it must be ({rows},), one number for each row")
    if not np.isfinite(weights).all() or (weights < 0).any():
        row = int(np.argmax(~np.isfinite(weights) | (weights < 0)))
        raise ValueError(f"sample_weight is {weights[row]:g} in row {row} (counted from 0): weights are finite and ≥ 0")
    if not weights.any():
        raise ValueError("sample_weight is zero in every row: leave it out, or give some row a weight")
    return weights


def _read(X: Any, owner: Any, *, reset: bool) -> NDArray[np.float64]:
    """X as (n, p) float64, its names and number of columns kept in or checked against the owner."""
    index = X.index if isinstance(X, pd.DataFrame) else None
    if hasattr(X, "columns") and hasattr(X, "to_numpy"):
        _refuse_repeated(X)
        validate_data(owner, X, reset=reset, skip_check_array=True)  # names and number of columns
        values = check_array(_numbers(X), dtype=np.float64, ensure_all_finite=False, input_name="X", estimator=owner)
    else:
        try:
            values = validate_data(owner, X, reset=reset, dtype=np.float64, ensure_all_finite=False)
        except ValueError as error:
            if str(error).startswith("could not convert string"):
                raise ValueError(f"X is not numeric: {_text_in(np.asarray(X, dtype=object))}") from error
            raise
    # One sum is quicker than a look at each value, and is finite only if all are.
    with np.errstate(over="ignore", invalid="ignore"):
        finite = np.isfinite(values.sum())
    if not finite and (bad := ~np.isfinite(values)).any():
        columns = np.flatnonzero(bad.any(axis=0))
        mask = bad[:, columns[0]]
        nan = np.isnan(values[mask, columns[0]][0])
        names = getattr(owner, "feature_names_in_", _numbered(values.shape[1]))
        more = f" and in {len(columns) - 1} more columns" if len(columns) > 1 else ""
        where = row_name(mask, pd.RangeIndex(len(values)) if index is None else index)
        fix = (
            "impute it inside a pipeline, for example make_pipeline(SimpleImputer(), …)" if nan else "correct the value"
        )
        raise ValueError(
            f"X is {'NaN' if nan else 'infinite (inf)'} in column {str(names[columns[0]])!r}, {where}{more}: {fix}"
        )
    return np.asarray(values)


def _refuse_repeated(X: Any) -> None:
    if not pd.Index(X.columns).is_unique:
        twice = [name for name, count in Counter(X.columns).items() if count > 1]
        more = f" (and {len(twice) - 1} more)" if len(twice) > 1 else ""
        raise ValueError(f"X has the column {twice[0]!r}{more} twice: rename one of them, or merge them by their mean")


def _numbers(X: Any) -> NDArray[np.float64]:
    """The values of a DataFrame whose columns are all numeric, or objects that hold numbers.

    Going over thousands of columns one by one takes seconds, so that only odd ones are looked at.
    """
    if not isinstance(X, pd.DataFrame):
        values = np.asarray(X)
        if values.dtype.kind in "biuf":
            return values
        X = X.to_pandas()
    numeric = {dtype: dtype.kind in "biuf" for dtype in set(X.dtypes)}
    changed: dict[Any, pd.Series] = {}
    for name, dtype in X.dtypes.items():
        if not numeric[dtype]:
            series = plain(X[name])
            types = pd.api.types
            if not (types.is_float_dtype(series) or types.is_bool_dtype(series)) or types.is_timedelta64_dtype(dtype):
                what = _sort(series, dtype)
                raise ValueError(f"X column {name!r} is not numeric but holds {what}: {_FIXES[what.split()[0]]}")
            changed[name] = series.astype("Float64").astype("float64")
    return np.asarray((X.assign(**changed) if changed else X).to_numpy(np.float64, na_value=np.nan))


_FIXES = {
    "categories": "encode it, for example with OneHotEncoder in a ColumnTransformer, or leave it out",
    "text": "encode it, for example with OneHotEncoder in a ColumnTransformer, or leave it out",
    "dates": "make them numbers, such as days, or leave it out",
    "durations": "make them numbers, such as days, or leave it out",
    "objects": "make them numbers, or leave it out",
}


def _sort(series: pd.Series, dtype: Any) -> str:
    types = pd.api.types
    if types.is_datetime64_any_dtype(series):
        return "dates"
    if types.is_timedelta64_dtype(dtype):
        return "durations"
    known = series.dropna()
    example = f" ({known.iloc[0]!r} …)" if len(known) else ""
    if isinstance(dtype, pd.CategoricalDtype):
        return f"categories{example}"
    return f"text{example}" if types.is_string_dtype(series) else "objects"


def _text_in(values: NDArray[np.object_]) -> str:
    """The first column of an array with something that is no number."""
    for column in range(values.shape[1] if values.ndim == 2 else 0):
        broken = (
            pd.to_numeric(pd.Series(values[:, column]), errors="coerce").isna() & pd.Series(values[:, column]).notna()
        )
        if broken.any():
            row = int(np.argmax(broken.to_numpy()))
            return f"column {column} holds {values[row, column]!r} in row {row} (both counted from 0)"
    return "it holds text"


def _numbered(columns: int) -> list[str]:
    return [f"x{number}" for number in range(columns)]
