"""MixedOutcomeNet and MixedOutcomeNetCV as their users see them."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from motet.estimators import MixedOutcomeNet, MixedOutcomeNetCV, Survival
from motet.estimators.held_out import HeldOut

OUTCOMES = {
    "dose": "continuous",
    "ill": "binary",
    "grade": "ordinal",
    "visits": "count",
    "site": "nominal",
    "os": Survival("time", "event"),
}
pytestmark = pytest.mark.filterwarnings("ignore:the network at lambda")  # few steps keep these tests quick
QUICK = {"n_lambdas": 5, "cv": 2, "max_iter": 15, "random_state": 0}
FEW = {name: OUTCOMES[name] for name in ("dose", "ill", "os")}


def table(n=90, seed=0):
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(rng.normal(size=(n, 6)), columns=list("abcdef"), index=[f"p{i}" for i in range(n)])
    score = (X["a"] + X["b"]).to_numpy() + 0.3 * rng.normal(size=n)
    time, end = np.exp(score + 0.2 * rng.normal(size=n)), rng.exponential(8, n)
    Y = pd.DataFrame(
        {
            "dose": np.exp(score),
            "ill": np.where(score + 0.3 * rng.normal(size=n) > 0, "yes", "no"),
            "grade": np.digitize(score, [-1, 1]) + 1,
            "visits": rng.poisson(np.exp(score / 2)),
            "site": np.array(["left", "mid", "right"])[np.digitize(X["a"], [-0.5, 0.5])],
            "time": np.minimum(time, end),
            "event": (time <= end).astype(int),
        },
        index=X.index,
    ).astype({"dose": float})
    Y.loc[Y.index[::7], "dose"] = np.nan
    Y.loc[Y.index[::11], ["time", "event"]] = np.nan
    return X, Y


@pytest.fixture(scope="module")
def data():
    return table()


@pytest.fixture(scope="module")
def net(data):
    return MixedOutcomeNet(OUTCOMES, lambda_=0.05, **QUICK).fit(*data)


def test_predictions_are_on_the_outcomes_own_scales_and_keep_the_rows_labels(net, data):
    X, Y = data
    found = net.predict(X)
    assert list(found) == list(OUTCOMES)
    assert found.index.equals(X.index)
    assert set(found["ill"]) <= {"yes", "no"}
    assert set(found["grade"]) <= {1, 2, 3}
    assert set(found["site"]) <= {"left", "mid", "right"}
    assert found["dose"].between(Y["dose"].min(), Y["dose"].max()).all()
    assert (found["visits"] >= 0).all()
    assert (found["os"] > 0).all()
    assert (found["ill"] == Y["ill"]).mean() > 0.7


def test_probabilities_have_a_column_a_class_and_sum_to_one(net, data):
    found = net.predict_proba(data[0])
    assert {name: list(p) for name, p in found.items()} == {
        "ill": ["no", "yes"],
        "grade": [1, 2, 3],
        "site": ["left", "mid", "right"],
    }
    for p in found.values():
        assert ((p > 0) & (p < 1)).to_numpy().all()
        np.testing.assert_allclose(p.sum(axis=1), 1)


def test_quantiles_and_survival_are_monotone(net, data):
    quantiles = net.predict_quantiles(data[0], [0.1, 0.5, 0.9])
    for name in ("dose", "visits", "os"):
        known = quantiles[name].to_numpy()
        assert (np.diff(known[np.isfinite(known).all(axis=1)], axis=1) >= 0).all()
    curves = net.predict_survival_function(data[0])["os"]
    assert (np.diff(curves.to_numpy(), axis=1) <= 1e-12).all()
    assert curves.to_numpy().max() <= 1
    at = net.predict_survival_function(data[0], [1.0, 2.0])["os"]
    assert list(at.columns) == [1.0, 2.0]


def test_intervals_hold_the_point_predictions_scale_and_widen_with_the_level(net, data):
    narrow, wide = (net.predict_interval(data[0], level) for level in (0.5, 0.8))
    assert (wide["dose", "upper"] - wide["dose", "lower"]).mean() > (
        narrow["dose", "upper"] - narrow["dose", "lower"]
    ).mean()
    assert set(wide["ill", "lower"]) <= {"yes", "no"}
    assert (wide["grade", "lower"] <= wide["grade", "upper"]).all()
    assert np.isinf(wide["os", "upper"]).all()
    assert "site" not in wide.columns.get_level_values(0)


def test_the_score_is_the_weighted_mean_of_the_outcomes_concordances(data):
    X, Y = data
    weighted = MixedOutcomeNet(
        OUTCOMES, lambda_=0.05, task_weights={"dose": 3.0, "site": 0.0}, calibrate=False, **QUICK
    ).fit(X, Y)
    each = weighted.score_per_task(X, Y)
    assert list(each.index) == list(OUTCOMES)
    expected = np.average(each, weights=[3, 1, 1, 1, 0, 1])
    assert weighted.score(X, Y) == pytest.approx(expected)
    assert each["dose"] > 0.7


def test_a_score_of_rows_without_a_comparable_pair_is_missing_and_of_none_an_error(net, data):
    X, Y = data
    few = Y.iloc[:4].assign(dose=np.nan, ill="yes")
    assert net.score_per_task(X.iloc[:4], few)[["dose", "ill"]].isna().all()
    with pytest.raises(ValueError, match="nothing to score"):
        net.score(X.iloc[:1], Y.iloc[:1])


def test_an_increasing_transform_of_an_outcome_gives_the_same_fit_bit_for_bit(net, data):
    X, Y = data
    other = clone(net).fit(X, Y.assign(dose=np.log(Y["dose"]) ** 3, time=Y["time"] ** 2))
    np.testing.assert_array_equal(other.decision_function(X), net.decision_function(X))


def test_the_order_of_the_rows_changes_nothing(net, data):
    X, Y = data
    order = np.random.default_rng(1).permutation(len(X))
    other = clone(net).fit(X.iloc[order], Y.iloc[order])
    np.testing.assert_array_equal(other.decision_function(X), net.decision_function(X))
    pd.testing.assert_frame_equal(other.predict(X), net.predict(X))
    np.testing.assert_array_equal(other.out_of_fold_, net.out_of_fold_[order])


def test_a_weight_of_two_is_the_row_twice_and_of_zero_no_row(net, data):
    X, Y = data
    weight = np.random.default_rng(2).integers(0, 3, len(X))
    rows = np.repeat(np.arange(len(X)), weight)
    weighted = clone(net).fit(X, Y, sample_weight=weight)
    repeated = clone(net).fit(X.iloc[rows], Y.iloc[rows])
    np.testing.assert_array_equal(weighted.decision_function(X), repeated.decision_function(X))
    pd.testing.assert_frame_equal(weighted.predict(X), repeated.predict(X))


def test_cross_validation_finds_the_features_and_reports_how(data):
    X, Y = data
    net = MixedOutcomeNetCV(FEW, **QUICK | {"cv": 3}).fit(X, Y)
    assert {"a", "b"} <= set(net.selected_features_)
    assert net.scores_path_.shape == (len(net.lambda_path_), len(FEW), 3)
    assert net.chance_ <= 0.05
    assert net.lambda_best_ in net.lambda_path_
    assert list(net.get_feature_names_out()) == [name for name, used in zip(X, net.get_support(), strict=True) if used]
    table = net.path()
    assert list(table) == ["lambda", "selected", "residual", *FEW]
    assert table["selected"].iloc[-1] == 0
    best = clone(net).set_params(selection="best").fit(X, Y)
    assert best.lambda_best_ <= net.lambda_best_


def test_outcomes_that_have_nothing_to_do_with_the_features_select_nothing(data):
    X, Y = data
    permuted = Y.iloc[np.random.default_rng(3).permutation(len(Y))].set_axis(Y.index)
    net = MixedOutcomeNet({"dose": "continuous", "ill": "binary"}, **QUICK).fit(X, permuted)
    assert net.selected_features_ == []
    assert net.chance_ > 0.05
    assert net.predict(X)["dose"].nunique() == 1
    assert net.score(X, Y) == 0.5


def test_a_lambda_beyond_the_path_gives_the_empty_model(data):
    net = MixedOutcomeNet(OUTCOMES, lambda_=50.0, calibrate=False, **QUICK).fit(*data)
    assert not net.support_.any()
    assert not net.decision_function(data[0]).any()


def test_without_calibration_there_are_scores_and_a_sentence_for_the_rest(data):
    net = MixedOutcomeNet(OUTCOMES, lambda_=0.1, calibrate=False, **QUICK).fit(*data)
    assert net.decision_function(data[0]).shape == (len(data[0]), len(net.task_names_))
    with pytest.raises(ValueError, match="calibrate=True"):
        net.predict(data[0])


def test_each_lambda_stands_for_the_refit_or_the_paths_network_whichever_orders_held_out_rows_better(data):
    options = QUICK | {"calibrate": False, "n_lambdas": 8}
    plain = MixedOutcomeNetCV(FEW, refit=False, **options).fit(*data)
    both = MixedOutcomeNetCV(FEW, **options).fit(*data)
    shrunk, better = (net.scores_path_.mean(axis=(1, 2)) for net in (plain, both))
    np.testing.assert_array_equal(plain.lambda_path_, both.lambda_path_)
    assert (better >= shrunk - 1e-12).all()
    refitted = (plain.scores_path_ != both.scores_path_).any(axis=(1, 2))
    assert refitted.any()
    assert (better > shrunk)[refitted].any()


def test_the_adaptive_stage_keeps_features_of_the_first(data):
    X, Y = data
    first = MixedOutcomeNet({"dose": "continuous"}, **QUICK).fit(X, Y)
    second = clone(first).set_params(adaptive=True).fit(X, Y)
    assert set(second.selected_features_) <= set(first.selected_features_)
    assert second.selected_features_


def test_groups_are_never_on_both_sides_of_a_fold(data):
    X, Y = data
    groups = np.arange(len(X)) // 3
    twice = pd.concat([X, X]), pd.concat([Y, Y])
    net = MixedOutcomeNet({"dose": "continuous"}, lambda_=0.05, **QUICK)
    net.fit(*twice, groups=np.tile(groups, 2))
    np.testing.assert_array_equal(net.out_of_fold_[: len(X)], net.out_of_fold_[len(X) :])
    with pytest.raises(ValueError, match="groups has the shape"):
        net.fit(X, Y, groups=groups[:-1])


def test_splits_of_the_callers_own_are_used(data):
    X, Y = data
    splits = list(KFold(3).split(X))
    net = MixedOutcomeNetCV({"dose": "continuous"}, **QUICK | {"cv": splits}).fit(X, Y)
    assert net.scores_path_.shape[2] == 3
    with pytest.raises(ValueError, match="leaves out row 60 .* 0 times"):
        clone(net).set_params(cv=splits[:2]).fit(X, Y)


def test_scikit_learns_tools_work(data):
    X, Y = data
    net = MixedOutcomeNet({"dose": "continuous", "ill": "binary"}, lambda_=0.1, **QUICK)
    piped = make_pipeline(StandardScaler(), net).set_output(transform="pandas").fit(X, Y)
    assert piped.predict(X).shape == (len(X), 2)
    search = GridSearchCV(net.set_params(calibrate=False), {"lambda_": [0.05, 50.0]}, cv=2).fit(X, Y)
    assert search.best_params_ == {"lambda_": 0.05}
    assert net.set_output(transform="pandas").fit(X, Y).transform(X).columns[0] in X


def test_arrays_have_numbered_names_and_give_arrays(data):
    X, Y = data
    net = MixedOutcomeNet("continuous", lambda_=0.1, **QUICK)
    found = net.fit(X.to_numpy(), Y[["dose", "visits"]].to_numpy()).predict(X.to_numpy())
    assert isinstance(found, np.ndarray)
    assert found.shape == (len(X), 2)
    assert net.task_names_ == ["y0", "y1"]
    assert set(net.selected_features_) <= {f"x{q}" for q in range(6)}


def test_a_structured_array_is_a_survival_outcome(data):
    X, Y = data
    there = Y["event"].notna()
    y = np.array(list(zip(Y["event"][there] == 1, Y["time"][there], strict=True)), dtype=[("e", bool), ("t", float)])
    net = MixedOutcomeNet(lambda_=0.1, calibrate=False, **QUICK).fit(X[there], y)
    assert net.outcomes_[0].kind == "survival"
    assert net.score(X[there], y) > 0.6


def test_a_vector_gives_a_vector_and_a_column_a_column(data, tmp_path):
    X, Y = (table.to_numpy() for table in (data[0], data[1][["visits"]]))
    net = MixedOutcomeNet("count", lambda_=50.0, **QUICK)
    for y in (Y, Y[:, 0], Y[:, 0].tolist()):
        assert net.fit(X, y).predict(X).shape == np.shape(y)
    net.save(tmp_path / "net.safetensors")
    assert MixedOutcomeNet.load(tmp_path / "net.safetensors").predict(X).shape == (len(X),)


def test_folds_are_kept_and_rows_of_weight_zero_are_in_none(data):
    X, Y = data
    weight = np.ones(len(X))
    weight[:5] = 0
    groups = np.arange(len(X)) // 3
    net = MixedOutcomeNet({"dose": "continuous"}, lambda_=50.0, **QUICK | {"cv": np.int64(3)})
    fold = net.fit(X, Y, sample_weight=weight, groups=groups).fold_
    np.testing.assert_array_equal(np.flatnonzero(fold < 0), np.arange(5))
    assert set(fold[5:]) == {0, 1, 2}
    assert (pd.Series(fold[6:]).groupby(groups[6:]).nunique() == 1).all()
    # Each row is judged without its own fold, so that no patient is on both sides.
    assert [set(fold[part.rows]) for part in HeldOut(net, None, Y)._parts] == [{0}, {1}, {2}]
    assert clone(net).set_params(calibrate=False).fit(X, Y).fold_ is None


def test_a_fold_in_which_an_outcome_can_not_be_scored_is_told(data):
    X, Y = data
    Y = Y.assign(ill=np.where(np.arange(len(Y)) < 4, "yes", "no"))
    net = MixedOutcomeNetCV({"dose": "continuous", "ill": "binary"}, **QUICK | {"cv": KFold(2), "n_lambdas": 2})
    with pytest.raises(ValueError, match="outcome 'ill' has too few .* without fold 0"):
        net.fit(X, Y)
    with pytest.warns(UserWarning, match=r"'ill' can't be scored in fold \d.*fewer folds"):
        net.set_params(cv=5, calibrate=False).fit(X, Y)


def test_a_path_to_a_given_lambda_is_the_whole_path_up_to_there(data):
    X, Y = data
    whole = MixedOutcomeNetCV(FEW, calibrate=False, **QUICK).fit(X, Y)
    part = MixedOutcomeNet(FEW, calibrate=False, lambda_=float(whole.lambda_path_[2]), **QUICK).fit(X, Y)
    np.testing.assert_allclose(part.lambda_path_, whole.lambda_path_[:3])
    np.testing.assert_array_equal(part.support_path_, whole.support_path_[:3])


def test_saving_and_loading_keeps_every_prediction(net, data, tmp_path):
    X, _ = data
    net.save(tmp_path / "net.safetensors")
    again = MixedOutcomeNet.load(tmp_path / "net.safetensors")
    pd.testing.assert_frame_equal(again.predict(X), net.predict(X))
    pd.testing.assert_frame_equal(again.predict_interval(X), net.predict_interval(X))
    assert again.get_params() == net.get_params()
    assert again.selected_features_ == net.selected_features_
    assert again.score(*data) == net.score(*data)
    with pytest.raises(ValueError, match="X does not have|feature names"):
        again.predict(X.rename(columns={"a": "z"}))
    with pytest.raises(ValueError, match="holds a MixedOutcomeNet"):
        MixedOutcomeNetCV.load(tmp_path / "net.safetensors")


def test_an_estimator_is_not_fitted_until_it_is(data, tmp_path):
    from sklearn.exceptions import NotFittedError

    net = MixedOutcomeNet(lambda_=0.1)
    for call in (net.predict, net.decision_function, net.transform, lambda _: net.save(tmp_path / "x")):
        with pytest.raises(NotFittedError):
            call(data[0])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"loss": "hinge"}, "loss must be one of drelu"),
        ({"censoring": "none"}, 'censoring must be "harrell" or "uno"'),
        ({"lambda_": -1.0}, "lambda_ must be positive"),
        ({"cv": 1}, "cv is a number of folds"),
        ({"cv": 2.5}, "cv is a number of folds"),
        ({"alpha": 0.0}, "alpha is a level"),
        ({"penalty": "ridge"}, "penalty"),
        ({"bandwidth": -1.0}, "bandwidth must be a positive number"),
        ({"lambda_": "cv"}, "lambda_ must be positive, or None"),
        ({"hidden_task": 16}, r"hidden_task has .* such as \(16,\)"),
        ({"hidden_task": (0,)}, "hidden_task has"),
        ({"n_lambdas": 10.5}, "n_lambdas must be a whole number from 2 on, not 10.5"),
        ({"device": "gpu"}, 'device is "auto" or one that torch has here'),
        ({"task_weights": [1.0]}, "task_weights is {outcome: weight}"),
        ({"cv": True}, "cv is a number of folds"),
        ({"n_lambdas": 1}, "n_lambdas"),
        ({"hidden_shared": 0}, "hidden_shared"),
        ({"task_weights": {"age": 1.0}}, "task_weights names 'age', which is no outcome: there are dose"),
        ({"task_weights": {"dose": -1.0}}, "must be finite and not negative"),
        ({"task_weights": {"dose": 0.0}}, "all task_weights are 0"),
    ],
)
def test_options_out_of_range_are_refused_by_name(data, options, says):
    with pytest.raises(ValueError, match=says):
        MixedOutcomeNet({"dose": "continuous"}, **QUICK | options).fit(*data)


def test_columns_that_are_constant_or_repeat_each_other_do_no_harm(data):
    X, Y = data
    X = X.assign(flat=3.0, copy=X["a"])
    net = MixedOutcomeNet({"dose": "continuous"}, lambda_=0.05, calibrate=False, **QUICK).fit(X, Y)
    assert "flat" not in net.selected_features_
    assert {"a", "copy"} & set(net.selected_features_)


def test_trust_refits_with_the_estimators_options_and_leaves_it_alone(net, data):
    X, Y = data
    before = net.decision_function(X)
    stable = net.stability_selection(X, Y, pairs=2, max_features=2)
    assert stable.per_lambda.shape[1] == 6
    assert stable.probabilities[:2].min() > stable.probabilities[2:].max()
    importance = net.permutation_importance(X, Y, repeats=2, random_state=0).to_frame()
    assert set(importance.index) == set(net.selected_features_)
    knockoffs = net.knockoff_selection(X, Y, q=0.5)
    assert len(knockoffs.selected) == 6
    control = clone(net).set_params(lambda_=None, outcomes={"dose": "continuous"}).permuted_control(X, Y, repeats=2)
    assert control.support[:2].all()
    assert not control.null_support.all(axis=1).any()
    np.testing.assert_array_equal(net.decision_function(X), before)


def test_a_stability_selection_goes_on_where_it_was_stopped(net, data, tmp_path):
    X, Y = data

    def stop(done, _):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        net.stability_selection(X, Y, pairs=2, progress=stop, checkpoint=tmp_path / "half.npz")
    seen = []
    net.stability_selection(X, Y, pairs=2, progress=lambda done, _: seen.append(done), checkpoint=tmp_path / "half.npz")
    assert seen == [3, 4]
    with pytest.raises(ValueError, match="of another run"):
        net.stability_selection(X.assign(a=0.0), Y, pairs=2, checkpoint=tmp_path / "half.npz")
