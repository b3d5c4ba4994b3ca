"""The displays: their numbers by hand, the caller's axes and rcParams respected, and predictions that are held out."""

import warnings
from types import SimpleNamespace

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from motet.estimators import MixedOutcomeNet, Survival
from motet.estimators.display import (
    CalibrationDisplay,
    CVDisplay,
    PathDisplay,
    StabilityDisplay,
    SurvivalDisplay,
)
from motet.estimators.display.calibration import _coverage, _reliability
from motet.estimators.display.drawing import short
from motet.estimators.display.path import over_folds
from motet.estimators.display.survival import kaplan_meier
from motet.estimators.held_out import HeldOut
from motet.estimators.outcomes import Encoded
from motet.estimators.stability import StabilitySelection
from motet.theme import STYLE

matplotlib.use("Agg")


def fit(outcomes, X, Y, **options):
    """A few steps, which is enough to have something to draw, and not to solve anything."""
    small = {"n_lambdas": 5, "cv": 2, "max_iter": 5, "hidden_shared": 4, "hidden_task": (3,), "random_state": 0}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the network at lambda")
        return MixedOutcomeNet(outcomes, **(small | options)).fit(X, Y)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    n = 60
    X = pd.DataFrame(rng.normal(size=(n, 6)), columns=[f"gene {i}" for i in range(6)])
    f = X["gene 0"] + X["gene 1"]
    T, C = np.exp(f + rng.normal(size=n)) * 100, rng.exponential(400, size=n)
    Y = pd.DataFrame(
        {
            "age": 50 + 8 * f + 4 * rng.normal(size=n),
            "er": np.where(f + rng.logistic(size=n) > 0, "pos", "neg"),
            "grade": np.digitize(f + rng.normal(size=n), [-0.8, 0.8]) + 1,
            "time": np.minimum(T, C),
            "event": (T <= C).astype(int),
        }
    )
    Y.loc[::7, "age"] = np.nan
    X.index = Y.index = [f"patient {i}" for i in range(n)]
    return X, Y


@pytest.fixture(scope="module")
def net(data):
    kinds = {"age": "continuous", "er": "binary", "grade": "ordinal", "os": Survival("time", "event")}
    return fit(kinds, *data)


@pytest.fixture(autouse=True)
def closed():
    yield
    matplotlib.pyplot.close("all")


@pytest.fixture(scope="module")
def selection():
    halves = np.zeros((8, 6), dtype=bool)
    halves[:, 0] = True
    halves[:7, 1] = True
    halves[:2, 2] = True
    return StabilitySelection(halves.mean(axis=0)[None], halves, 0.75)


def test_every_method_returns_a_display_that_is_drawn(net, data, selection):
    X, Y = data
    drawn = [
        net.plot_path(),
        net.plot_cv(),
        net.plot_stability(selection),
        net.plot_calibration(Y=Y),
        net.plot_calibration(X, Y),
        net.plot_survival(Y=Y),
    ]
    for display in drawn:
        assert isinstance(display.figure_, Figure)
        display.figure_.canvas.draw()
        assert all(ax.figure is display.figure_ for ax in np.ravel([display.ax_]))


def test_given_axes_are_drawn_into_and_rc_params_left_alone(net, data):
    figure = Figure()
    axes = figure.subplots(3)
    before = dict(matplotlib.rcParams)
    display = PathDisplay.from_estimator(net, axes)
    assert list(display.ax_) == list(axes)
    assert display.figure_ is figure
    assert dict(matplotlib.rcParams) == before
    assert STYLE["text.color"] != before["text.color"]
    with pytest.raises(ValueError, match="draws 3 panels and ax holds 1"):
        PathDisplay.from_estimator(net, axes[0])


def test_a_display_can_be_drawn_again(net):
    display = CVDisplay.from_estimator(net)
    ax = Figure().subplots()
    assert display.plot(ax).ax_ is ax
    assert len(ax.lines) >= len(net.outcomes_) + 1


def test_the_path_shows_features_by_their_exit_and_marks_the_lambda_that_is_used(net):
    display = PathDisplay.from_estimator(net, most=4)
    exits, number, concordance = display.ax_
    order = np.argsort(-net.exit_lambda_, kind="stable")[:4]
    assert [text.get_text() for text in exits.get_yticklabels()] == [f"gene {q}" for q in order]
    for ax in display.ax_:
        assert any(np.allclose(line.get_xdata(), net.lambda_best_) for line in ax.lines if line.get_linestyle() == "--")
    assert f"λ used: {net.support_.sum()} features" in [text.get_text() for text in number.texts]
    mean = np.nanmean(np.nanmean(net.scores_path_, axis=1), axis=1)
    assert any(np.allclose(line.get_ydata(), mean) for line in concordance.lines if len(line.get_ydata()) == len(mean))


def test_standard_errors_are_over_folds_and_nan_without_two():
    values = np.array([[0.5, 0.7, np.nan], [0.6, np.nan, np.nan], [np.nan, np.nan, np.nan]])
    mean, error = over_folds(values)
    np.testing.assert_allclose(mean, [0.6, 0.6, np.nan])
    np.testing.assert_allclose(error, [0.1, np.nan, np.nan])


def test_without_folds_the_path_has_two_panels_and_there_is_no_cross_validation(data):
    X, Y = data
    net = fit({"er": "binary"}, X, Y, lambda_=0.3, calibrate=False)
    assert len(net.plot_path().ax_) == 2
    with pytest.raises(ValueError, match="no cross-validation"):
        net.plot_cv()
    with pytest.raises(ValueError, match="calibrate=True"):
        net.plot_calibration(Y=Y)


def test_stability_shows_everything_above_the_threshold(selection):
    names = list("abcdef")
    display = StabilityDisplay.from_selection(selection, names, most=1)
    assert display.names == ["a", "b"]
    assert display.selected == 2
    assert StabilityDisplay.of(selection, names).names == ["a", "b", "c"]  # what is never selected is not shown
    none = StabilitySelection(np.zeros((1, 6)), np.zeros((8, 6), dtype=bool), 0.75)
    assert "No half selects anything." in [text.get_text() for text in StabilityDisplay.from_selection(none).ax_.texts]


def test_a_row_is_not_in_the_scale_that_predicts_it(net, data):
    """The outcome of one row, made absurd, must not move that row's own prediction."""
    _, Y = data
    row = int(np.flatnonzero(Y["age"].notna())[3])
    quantile = HeldOut(net, None, Y).law(0, lambda law, u, _: law.quantiles(u, [0.99]))[row]
    changed = Y.copy()
    # Still the largest within its quarter, so that folds stay as they are.
    top = int(np.nanargmax(Y["age"]))
    changed.iloc[top, 0] = 1e6
    held = HeldOut(net, None, changed).law(0, lambda law, u, _: law.quantiles(u, [0.999]))
    assert held[top] < 1e3
    assert np.isfinite(quantile)


def test_held_out_predictions_have_a_row_for_each_row_and_its_label(net, data):
    _, Y = data
    held = HeldOut(net, None, Y)
    predicted, proba, intervals = held.predict(), held.predict_proba(), held.predict_interval(0.8)
    assert list(predicted.index) == list(Y.index)
    assert list(predicted.columns) == ["age", "er", "grade", "os"]
    assert set(predicted["er"]) <= {"neg", "pos"}
    np.testing.assert_allclose(proba["grade"].sum(axis=1), 1)
    assert (intervals["age", "lower"] <= intervals["age", "upper"]).all()
    assert held.concordance()["age"] > 0.6


def test_new_rows_are_predicted_as_the_estimator_does(net, data):
    X, Y = data
    held = HeldOut(net, X, Y)
    pd.testing.assert_frame_equal(held.predict(), net.predict(X))
    pd.testing.assert_series_equal(held.concordance(), net.score_per_task(X, Y), check_names=False)


def test_wrong_rows_are_refused(net, data, tmp_path):
    X, Y = data
    with pytest.raises(ValueError, match="the fit had 60"):
        net.plot_calibration(Y=Y.iloc[:10])
    with pytest.raises(ValueError, match=r"plot_survival\(Y=Y\)"):
        net.plot_survival()
    net.save(tmp_path / "net.safetensors")
    loaded = MixedOutcomeNet.load(tmp_path / "net.safetensors")
    with pytest.raises(ValueError, match="from a file has no out-of-fold"):
        loaded.plot_calibration(Y=Y)
    assert loaded.plot_survival(X, Y).panels["os"]


def test_survival_is_only_for_survival_outcomes(data):
    X, Y = data
    net = fit({"er": "binary"}, X, Y)
    with pytest.raises(ValueError, match="no outcome is a survival time"):
        net.plot_survival(Y=Y)


def test_reliability_groups_hold_their_mean_and_frequency():
    p = np.repeat([0.1, 0.8], 20)
    hit = np.concatenate([np.arange(20) < 3, np.arange(20) < 15])
    found = _reliability("yes", p, hit)
    np.testing.assert_allclose(found.predicted, [0.1, 0.8])
    np.testing.assert_allclose(found.observed, [0.15, 0.75])
    np.testing.assert_allclose(found.rows, [20, 20])
    # Wilson's interval of 3 of 20, as tables have it.
    np.testing.assert_allclose([found.low[0], found.high[0]], [0.0524, 0.3604], atol=5e-4)


class Told:
    """Held-out rows whose place in their predicted law is given."""

    def __init__(self, place, event=None):
        self.place = np.asarray(place)
        self.task = Encoded("os", "survival" if event is not None else "continuous", self.place, event, None)

    def law(self, k, ask):
        return ask(SimpleNamespace(law=self), np.zeros(len(self.place)), np.arange(len(self.place)))

    def limits(self, u, y):
        return y, y


def test_right_quantiles_are_on_the_diagonal_and_narrow_ones_are_not():
    even = (np.arange(200) + 0.5) / 200
    right = _coverage(Told(even), 0, Told(even).task)
    np.testing.assert_allclose(right.below, right.levels, atol=0.006)
    np.testing.assert_allclose(right.error, np.sqrt(right.levels * (1 - right.levels) / 200))
    narrow = np.clip(2 * even - 0.5, 0, 1)  # a quarter of the outcomes on either side of all quantiles
    wrong = _coverage(Told(narrow), 0, Told(narrow).task)
    np.testing.assert_allclose(wrong.below, 0.25 + wrong.levels / 2, atol=0.006)


def test_censored_outcomes_are_covered_by_kaplan_and_meier_as_far_as_rows_reach():
    rng = np.random.default_rng(0)
    truth, censored = rng.random(4000), 0.8 * rng.random(4000)
    told = Told(np.minimum(truth, censored), (truth <= censored).astype(float))
    found = _coverage(told, 0, told.task)
    known = np.isfinite(found.below)
    np.testing.assert_array_equal(known, found.levels < 0.79)
    assert (abs(found.below - found.levels)[known] < 3 * found.error[known]).all()


def test_panels_show_what_their_kind_has(net, data):
    display = CalibrationDisplay.from_predictions(HeldOut(net, None, data[1]))
    assert display.panels["age"].rows == data[1]["age"].notna().sum()
    assert [one.label for one in display.panels["er"]] == ["pos"]
    assert [one.label for one in display.panels["grade"]] == ["2 or more", "3 or more"]
    assert 0.7 < display.held["age"][0] <= 1
    assert "os" not in display.held


def test_kaplan_meier_by_hand():
    times, survival = kaplan_meier(np.array([1.0, 2.0, 2.0, 3.0]), np.array([1.0, 1.0, 0.0, 1.0]))
    np.testing.assert_allclose(times, [1, 2, 3])
    np.testing.assert_allclose(survival, [0.75, 0.5, 0.0])


def test_thirds_are_ordered_by_risk_and_hold_every_row_once(net, data):
    display = SurvivalDisplay.from_predictions(HeldOut(net, None, data[1]))
    high, middle, low = display.panels["os"]
    assert [third.rows for third in (high, middle, low)] == [20, 20, 20]
    assert high.events + middle.events + low.events == data[1]["event"].sum()
    at = 0.5 * min(high.end, low.end)
    mean = [np.interp(at, third.at, third.predicted) for third in (high, low)]
    assert mean[0] < mean[1]


def test_long_names_keep_both_ends():
    assert short("a" * 20 + "b" * 20, 11) == "aaaaa…bbbbb"
    assert short("gene", 11) == "gene"
