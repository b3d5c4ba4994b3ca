"""One outcome: a sparse network trained on its order, in scikit-learn's manners."""

from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.feature_selection import SelectorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from motet.estimators.cells import as_frame
from motet.estimators.features import check_weights
from motet.estimators.mixed_outcome import MixedOutcomeNet
from motet.estimators.outcomes import Survival

Floats = NDArray[np.float64]


class RankNet(SelectorMixin, BaseEstimator):  # type: ignore[misc]
    """What the estimators of one outcome share: a `MixedOutcomeNet` of that outcome, in `net_`."""

    def __init__(
        self,
        *,
        hidden_shared: int = 32,
        hidden_task: tuple[int, ...] = (16,),
        loss: str = "logistic",
        bandwidth: float = 1.0,
        penalty: Literal["group_lasso", "group_mcp", "lassonet"] = "group_lasso",
        lambda_: float | None = None,
        adaptive: bool = False,
        alpha: float = 0.05,
        refit: bool = True,
        n_lambdas: int = 60,
        bound: float = 1.5,
        cv: Any = 5,
        n_init: int = 1,
        max_iter: int = 60,
        tol: float = 0.02,
        device: str = "auto",
        n_jobs: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.hidden_shared = hidden_shared
        self.hidden_task = hidden_task
        self.loss = loss
        self.bandwidth = bandwidth
        self.penalty = penalty
        self.lambda_ = lambda_
        self.adaptive = adaptive
        self.alpha = alpha
        self.refit = refit
        self.n_lambdas = n_lambdas
        self.bound = bound
        self.cv = cv
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.device = device
        self.n_jobs = n_jobs
        self.random_state = random_state

    def _fit(self, X: Floats, Y: pd.DataFrame, kind: str | Survival, weight: ArrayLike | None) -> Self:
        if len(X) < 2:
            raise ValueError("there is n_samples=1 row: at least 2 are needed")
        net = MixedOutcomeNet({"y": kind}, **self.get_params())
        self.net_ = net.fit(X, Y, sample_weight=weight)
        self.exit_lambda_, self.lambda_best_ = net.exit_lambda_, net.lambda_best_
        self.n_iter_ = net.n_iter_
        names = getattr(self, "feature_names_in_", None)
        chosen = [int(name[1:]) for name in net.selected_features_]  # x0, x1, …: the network has seen an array
        self.selected_features_ = [f"x{q}" if names is None else str(names[q]) for q in chosen]
        return self

    def _read(self, X: Any) -> Floats:
        check_is_fitted(self)
        return np.asarray(validate_data(self, X, reset=False, dtype=np.float64))

    def _get_support_mask(self) -> NDArray[np.bool_]:
        check_is_fitted(self)
        return np.asarray(self.net_.support_)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "net_")


class RankNetRegressor(RegressorMixin, RankNet):  # type: ignore[misc]
    """Regression of which only the order of y is used in training, so that heavy tails and outliers do no harm.

    A sparse network orders the rows; the conditional median comes from isotonic distributional regression on held-out
    scores. For options see `MixedOutcomeNet`.

    Attributes:
        selected_features_: Names of the features that are used.
        net_: The fitted `MixedOutcomeNet`, with intervals, paths and checks of the selection.

    Shapes:
        X (n, p), y (n,).
    """

    def fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> Self:
        """Fit to numbers y (n,) without gaps."""
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        return self._fit(X, pd.DataFrame({"y": np.asarray(y, dtype=np.float64)}), "continuous", sample_weight)

    def predict(self, X: Any) -> Floats:
        """Conditional medians (n,)."""
        X = self._read(X)
        return np.asarray(self.net_.predict(X)["y"], dtype=np.float64)


class RankNetClassifier(ClassifierMixin, RankNet):  # type: ignore[misc]
    """Classification by pairs: the area under the ROC curve, smoothed, is what training maximises.

    More than two classes are each held against the others. Probabilities are isotonic in held-out scores. For options
    see `MixedOutcomeNet`.

    Attributes:
        classes_: In sorted order.
        selected_features_: Names of the features that are used.
        net_: The fitted `MixedOutcomeNet`.

    Shapes:
        X (n, p), y (n,) labels.
    """

    def fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> Self:
        """Fit to labels y (n,) without gaps."""
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(np.unique(codes[check_weights(sample_weight, len(codes)) > 0])) < 2:
            raise ValueError("y has one class in the rows of positive weight: there is nothing to tell apart")
        kind = "binary" if len(self.classes_) == 2 else "nominal"
        return self._fit(X, pd.DataFrame({"y": codes}), kind, sample_weight)

    def predict_proba(self, X: Any) -> Floats:
        """(n, C) in the order of `classes_`."""
        X = self._read(X)
        return np.asarray(self.net_.predict_proba(X)["y"])

    def decision_function(self, X: Any) -> Floats:
        """Two classes: (n,), positive where the second is predicted. More: (n, C) log-probabilities."""
        X = self._read(X)
        if len(self.classes_) > 2:
            return np.asarray(np.log(self.net_.predict_proba(X)["y"].to_numpy()))
        scores: Floats = self.net_.decision_function(X)[:, 0]
        return scores - self._border()

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class, (n,)."""
        values = self.decision_function(X)
        codes = values.argmax(axis=1) if values.ndim == 2 else (values > 0).astype(int)
        return np.asarray(self.classes_[codes])

    def _border(self) -> float:
        """The score at which both classes are as probable: every score at or below it has p ≤ ½."""
        assert self.net_.scales_ is not None
        scale = self.net_.scales_[0]
        knots = scale.position.knots
        p = scale.law.proba(scale.position.transform(knots))[:, 1]
        after = int(np.searchsorted(p > 0.5, True))
        if after == 0 or after == len(p):
            return float(np.nextafter(knots[0], -np.inf) - 1e6) if after == 0 else float(knots[-1] + 1e6)
        low, high = float(knots[after - 1]), float(knots[after])
        while (middle := (low + high) / 2) not in (low, high):
            above = scale.law.proba(scale.position.transform(np.array([middle])))[0, 1] > 0.5
            low, high = (low, middle) if above else (middle, high)
        return low


class RankNetSurvival(RankNet):
    """Right-censored times: a sparse network that orders them, with Harrell's or Uno's pairs.

    As in scikit-survival, `predict` is a risk: higher is an EARLIER event. For options see `MixedOutcomeNet`.

    Args:
        censoring: "harrell" or "uno".

    Attributes:
        selected_features_: Names of the features that are used.
        net_: The fitted `MixedOutcomeNet`, whose scores are times (higher is later).

    Shapes:
        X (n, p); y a structured array (n,) with an event (bool, or the integers 0 and 1) and a time, a table of these
        two columns, or times (n,) without censoring.
    """

    def __init__(
        self,
        *,
        censoring: Literal["harrell", "uno"] = "harrell",
        hidden_shared: int = 32,
        hidden_task: tuple[int, ...] = (16,),
        loss: str = "logistic",
        bandwidth: float = 1.0,
        penalty: Literal["group_lasso", "group_mcp", "lassonet"] = "group_lasso",
        lambda_: float | None = None,
        adaptive: bool = False,
        alpha: float = 0.05,
        refit: bool = True,
        n_lambdas: int = 60,
        bound: float = 1.5,
        cv: Any = 5,
        n_init: int = 1,
        max_iter: int = 60,
        tol: float = 0.02,
        device: str = "auto",
        n_jobs: int | None = None,
        random_state: Any = None,
    ) -> None:
        super().__init__(
            hidden_shared=hidden_shared,
            hidden_task=hidden_task,
            loss=loss,
            bandwidth=bandwidth,
            penalty=penalty,
            lambda_=lambda_,
            adaptive=adaptive,
            alpha=alpha,
            refit=refit,
            n_lambdas=n_lambdas,
            bound=bound,
            cv=cv,
            n_init=n_init,
            max_iter=max_iter,
            tol=tol,
            device=device,
            n_jobs=n_jobs,
            random_state=random_state,
        )
        self.censoring = censoring

    def fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> Self:
        """Fit to censored times."""
        if y is None:
            raise ValueError("requires y to be passed, but the target y is None")
        table = _times(y)
        X, time = validate_data(self, X, table["time"].to_numpy(), dtype=np.float64, y_numeric=True)
        return self._fit(X, table.assign(time=time), Survival("time", "event"), sample_weight)

    def predict(self, X: Any) -> Floats:
        """Risk (n,): higher is an earlier event."""
        X = self._read(X)
        return -np.asarray(self.net_.decision_function(X)[:, 0])

    def predict_median(self, X: Any) -> Floats:
        """Median times (n,), infinite where half is not expected to have had the event by the end of follow-up."""
        X = self._read(X)
        return np.asarray(self.net_.predict(X)["y"], dtype=np.float64)

    def predict_survival_function(self, X: Any, times: ArrayLike | None = None) -> pd.DataFrame:
        """P(T > t), (n, times): `MixedOutcomeNet.predict_survival_function`."""
        X = self._read(X)
        return self.net_.predict_survival_function(X, times)["y"]

    def score(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> float:
        """Concordance of longer survival with lower risk; 0.5 is chance."""
        X = self._read(X)
        return self.net_.score(X, _times(y), sample_weight)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags


def _times(y: Any) -> pd.DataFrame:
    """Columns time and event of any form of y."""
    frame = None if isinstance(y, np.ndarray) else as_frame(y)
    if frame is not None and frame.shape[1] > 1:
        columns = {str(name): frame[name].to_numpy() for name in frame}
    else:
        values = np.asarray(y if frame is None else frame.iloc[:, 0])
        if values.dtype.kind == "c":
            raise ValueError("Complex data not supported: times are real numbers")
        if values.dtype.names is None:
            if values.ndim > 1 and values.shape[1:] != (1,):
                raise ValueError(
                    f"y has the shape {values.shape}, of which it can't be told what is the time and what the event: "
                    "give a structured array or a table with one bool (whether the event was seen) and one of numbers"
                )
            return pd.DataFrame({"time": np.asarray(values, dtype=np.float64).reshape(len(values)), "event": 1})
        columns = {name: values[name] for name in values.dtype.names}
    events = [name for name, values in columns.items() if values.dtype.kind == "b"]
    if not events:
        events = [name for name, v in columns.items() if v.dtype.kind in "iu" and np.isin(v, (0, 1)).all()]
    if len(columns) != 2 or len(events) != 1:
        raise ValueError(
            f"y has the fields {', '.join(columns)}: a censored time has two, one bool or of the integers 0 and 1 "
            "(whether the event was seen) and one of numbers (the time)"
        )
    time = next(name for name in columns if name != events[0])
    return pd.DataFrame({"time": columns[time].astype(np.float64), "event": columns[events[0]].astype(int)})
