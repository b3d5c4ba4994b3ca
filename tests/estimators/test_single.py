"""The estimators of one outcome pass scikit-learn's own checks."""

import numpy as np
import pandas as pd
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from motet.estimators import RankNetClassifier, RankNetRegressor, RankNetSurvival
from motet.estimators.single import _times

QUICK = {"n_lambdas": 5, "cv": 2, "max_iter": 20, "random_state": 0}

pytestmark = [
    pytest.mark.filterwarnings("ignore:the network at lambda"),
    pytest.mark.filterwarnings("ignore:No features were selected"),
]


CHECKED = QUICK | {"n_lambdas": 3, "max_iter": 5, "refit": False}  # some 190 checks, each with several fits


@parametrize_with_checks([RankNetRegressor(**CHECKED), RankNetClassifier(**CHECKED), RankNetSurvival(**CHECKED)])
def test_scikit_learns_checks_pass(estimator, check):
    check(estimator)


def rows(n=80, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4))
    return X, X[:, 0] + X[:, 1] + 0.3 * rng.standard_t(2, size=n)


def test_an_outlier_does_not_move_the_regression():
    X, y = rows()
    wild = y.copy()
    wild[y.argmax()] = 1e6
    fits = [RankNetRegressor(**QUICK).fit(X, values) for values in (y, wild)]
    first, second = (fit.net_.decision_function(X) for fit in fits)
    np.testing.assert_array_equal(first, second)


def test_the_classifiers_decision_agrees_with_its_prediction_and_its_probabilities():
    X, y = rows()
    for labels in (np.where(y > 0, "up", "down"), np.digitize(y, [-1, 1])):
        fit = RankNetClassifier(**QUICK).fit(X, labels)
        p, decision = fit.predict_proba(X), fit.decision_function(X)
        np.testing.assert_allclose(p.sum(axis=1), 1)
        by_decision = decision.argmax(axis=1) if decision.ndim == 2 else (decision > 0).astype(int)
        np.testing.assert_array_equal(fit.predict(X), fit.classes_[by_decision])
        if decision.ndim == 1:
            np.testing.assert_array_equal(p[:, 1] > 0.5, decision > 0)
        assert fit.score(X, labels) > 0.7


def test_survival_predicts_risk_and_takes_every_form_of_times():
    X, y = rows()
    time, event = np.exp(y), np.arange(len(y)) % 4 > 0
    structured = np.array(list(zip(event, time, strict=True)), dtype=[("dead", bool), ("days", float)])
    fit = RankNetSurvival(**QUICK).fit(X, structured)
    assert np.corrcoef(fit.predict(X), y)[0, 1] < -0.5
    assert fit.score(X, structured) > 0.7
    table = pd.DataFrame({"days": time, "dead": event})
    np.testing.assert_array_equal(RankNetSurvival(**QUICK).fit(X, table).predict(X), fit.predict(X))
    curves = fit.predict_survival_function(X, [0.5, 1.0, 2.0])
    assert curves.shape == (len(X), 3)
    assert (fit.predict_median(X) > 0).all()
    with pytest.raises(ValueError, match="one bool"):
        RankNetSurvival(**QUICK).fit(X, table.astype(float))


def test_events_of_0_and_1_are_events_and_columns_without_names_are_not_guessed():
    time, event = np.array([3, 1, 2]), np.array([1, 0, 1])
    expected = pd.DataFrame({"time": [3.0, 1.0, 2.0], "event": event})
    table = pd.DataFrame({"days": time, "dead": event}, index=[7, 8, 9])
    for y in (table, table[["dead", "days"]], table.to_records(index=False), table.astype({"dead": bool})):
        pd.testing.assert_frame_equal(_times(y), expected)
    assert (_times(table["days"])["event"] == 1).all()
    with pytest.raises(ValueError, match="can't be told what is the time"):
        RankNetSurvival().fit(np.eye(3), np.column_stack([time, event]))
