"""Simulated mixed outcomes: what the docstring says of their law is so in the rows."""

import numpy as np
import pandas as pd
import pytest

from motet.testing.mixed_outcomes import KINDS, SCENARIOS, Simulated, simulate

LARGE = 20_000


def concordance(values: np.ndarray, scores: np.ndarray, events: np.ndarray | None = None) -> float:
    """The definition: all pairs of known rows; i outlives j iff j has the event and a smaller time, or an equal one
    at which i was censored."""
    known = ~np.isnan(values)
    y, f = values[known], scores[known]
    d = np.ones(len(y), bool) if events is None else events[known].astype(bool)
    better = d[None, :] & ((y[:, None] > y) | ((y[:, None] == y) & ~d[:, None]))
    right = (f[:, None] > f) + 0.5 * (f[:, None] == f)
    return float((better * right).sum() / better.sum())


def oracle(drawn: Simulated) -> dict[str, float]:
    found = {}
    for k, name in enumerate(drawn.names):
        declared = drawn.outcomes[name]
        if isinstance(declared, str):
            found[name] = concordance(drawn.Y[name].to_numpy(), drawn.f[:, k])
        else:
            found[name] = concordance(drawn.Y["time"].to_numpy(), drawn.f[:, k], drawn.Y["event"].to_numpy())
    return found


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_same_seed_gives_the_same_rows_and_another_seed_others(name: str) -> None:
    one, again, other = simulate(name, seed=3), simulate(name, seed=3), simulate(name, seed=4)
    assert np.array_equal(one.X, again.X)
    assert np.array_equal(one.f, again.f)
    pd.testing.assert_frame_equal(one.Y, again.Y)
    assert not np.array_equal(one.X, other.X)
    assert not one.Y.equals(other.Y)
    assert np.array_equal(one.support, other.support)


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_global_random_number_is_drawn(name: str) -> None:
    before = np.random.get_state(legacy=False)["state"]["pos"]  # noqa: NPY002  the global one is meant
    simulate(name, n=20)
    assert np.random.get_state(legacy=False)["state"]["pos"] == before  # noqa: NPY002


@pytest.mark.parametrize("name", SCENARIOS)
def test_shapes_and_declarations_agree(name: str) -> None:
    drawn = simulate(name, n=50, p=120)
    assert drawn.X.shape == (50, 120)
    assert drawn.f.shape == (50, len(drawn.names))
    assert drawn.supports.shape == (len(drawn.names), 120)
    assert list(drawn.outcomes) == drawn.names
    declared = [c for o in drawn.outcomes.values() if not isinstance(o, str) for c in ("time", "event")]
    assert set(drawn.Y) == {n for n, o in drawn.outcomes.items() if isinstance(o, str)} | set(declared)


@pytest.mark.parametrize("s", [1, 5, 8, 20])
@pytest.mark.parametrize("name", ["S1", "S3"])
def test_scores_have_mean_zero_and_deviation_one(name: str, s: int) -> None:
    drawn = simulate(name, n=LARGE, p=60, s=s)
    assert drawn.support.sum() == s
    assert np.abs(drawn.f.mean(0)).max() < 0.05
    assert np.abs(drawn.f.std(0) - 1).max() < 0.05


@pytest.mark.parametrize("name", ["S1", "S2", "S3", "S5"])
def test_scores_depend_on_the_support_and_on_nothing_else(name: str) -> None:
    drawn = simulate(name, n=2000, p=40)
    outside = np.corrcoef(drawn.X[:, ~drawn.support].T, drawn.f.T)
    columns = (~drawn.support).sum()
    assert drawn.supports.all(0).sum() == 8
    # The nearest column outside is two places from the support: correlation at most 0.25 with an active column.
    assert np.abs(outside[:columns, columns:]).max() < 0.35
    residual = drawn.f[:, 0] - _least_squares(drawn.X[:, drawn.support], drawn.f[:, 0])
    assert residual.std() > 0.2  # f₁ is not linear


def _least_squares(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    return A @ np.linalg.lstsq(A, b)[0]


def test_the_first_score_is_its_formula() -> None:
    drawn = simulate("S1", n=400, p=80)
    a = np.concatenate([np.full((1, 400), np.nan), drawn.X[:, drawn.support].T])
    f1 = 1.5 * a[1] + 2 * np.sin(1.5 * a[2]) + a[3] ** 2 + a[4] * a[5] + a[6] - np.abs(a[7]) + np.tanh(2 * a[8])
    f2 = -1.2 * a[1] + a[2] ** 2 + 1.5 * a[3] + 1.5 * np.tanh(a[4]) - a[5] + a[6] * a[7] + 1.2 * a[8]
    f3 = a[1] + 1.2 * np.abs(a[2]) - 1.5 * np.sin(a[3]) + 1.2 * a[4] + a[5] + 0.8 * a[6] ** 2 + 1.2 * a[7] + a[8]
    for k, formula in enumerate((f1, f2, f3)):
        slope, intercept = np.polyfit(formula, drawn.f[:, k], 1)
        assert slope > 0
        np.testing.assert_allclose(drawn.f[:, k], slope * formula + intercept, atol=1e-9)


@pytest.mark.parametrize(("covariance", "near", "far"), [("ar", 0.5, 0.25), ("block", 0.3, 0.3)])
def test_columns_have_the_named_correlation(covariance: str, near: float, far: float) -> None:
    X = simulate("S3", n=LARGE, p=30, covariance=covariance).X
    R = np.corrcoef(X.T)
    assert np.abs(X.std(0) - 1).max() < 0.05
    assert abs(R[0, 1] - near) < 0.03
    assert abs(R[0, 2] - far) < 0.03
    assert abs(R[0, 15]) < 0.03


def test_prevalences_of_binary_outcomes_are_as_named() -> None:
    share = simulate("S2", n=LARGE, p=20).Y.mean()
    assert np.abs(share.to_numpy() - [0.5, 0.2, 0.1]).max() < 0.015


@pytest.mark.parametrize("censoring", [0.0, 0.3, 0.6])
def test_the_share_of_censored_rows_is_as_asked(censoring: float) -> None:
    Y = simulate("S3", n=LARGE, p=20, censoring=censoring).Y
    assert abs((Y["event"] == 0).mean() - censoring) < 0.015
    assert (Y["time"] > 0).all()


def test_ordinal_classes_are_equal_and_counts_have_their_zeros() -> None:
    Y = simulate("S3", n=LARGE, p=20).Y
    assert np.abs(np.bincount(Y["ordinal"].astype(int)) / LARGE - 0.2).max() < 0.015
    assert abs((Y["count"] == 0).mean() - 0.4) < 0.015
    assert (Y["count"] == Y["count"].round()).all()
    assert Y["count"].nunique() > 20


def test_continuous_outcomes_are_heavy_tailed_and_finite() -> None:
    y = simulate("S3", n=LARGE, p=20).Y["continuous"]
    assert np.isfinite(y).all()
    assert y.max() > 1e6 * y.median()


# Bounds around the exact values of large samples; what the true score gives is what a method can reach.
@pytest.mark.parametrize(
    ("name", "low", "high"), [("S1", 0.72, 0.85), ("S2", 0.85, 0.96), ("S3", 0.72, 0.93), ("S4", 0.75, 0.85)]
)
def test_true_scores_order_the_outcomes_well_but_not_perfectly(name: str, low: float, high: float) -> None:
    found = oracle(simulate(name, n=1000))
    assert all(low < value < high for value in found.values()), found


def test_an_outcome_does_not_depend_on_which_others_are_asked_for() -> None:
    every, some = simulate("S3"), simulate("S3", kinds=("binary", "survival"))
    assert some.names == ["binary", "survival"]
    pd.testing.assert_frame_equal(some.Y, every.Y[["binary", "time", "event"]])


@pytest.mark.parametrize(("overlap", "union"), [(1.0, 8), (0.5, 16), (0.0, 24)])
def test_partial_sharing_has_the_named_overlap(overlap: float, union: int) -> None:
    drawn = simulate("S4", overlap=overlap)
    assert drawn.support.sum() == union
    assert (drawn.supports.sum(1) == 8).all()
    assert drawn.supports.all(0).sum() == round(8 * overlap)


@pytest.mark.parametrize("missing", [0.0, 0.3, 0.6])
def test_missing_outcomes_have_the_named_share_and_their_columns_go_together(missing: float) -> None:
    Y = simulate("S5", n=5000, p=20, missing=missing).Y
    assert np.abs(Y.isna().mean().to_numpy() - missing).max() < 0.03
    assert (Y["time"].isna() == Y["event"].isna()).all()
    if missing:
        together = (Y["binary"].isna() & Y["ordinal"].isna()).mean()
        assert abs(together - missing**2) < 0.03


def test_missing_outcomes_leave_the_others_as_they_are_without_them() -> None:
    full, holed = simulate("S3", seed=5).Y, simulate("S5", seed=5).Y
    assert full.where(holed.notna()).equals(holed)


def test_null_outcomes_have_no_support_and_no_signal() -> None:
    drawn = simulate("S6", n=2000)
    assert not drawn.support.any()
    assert not drawn.f.any()
    ordinal = drawn.Y["ordinal"].to_numpy()
    correlations = [abs(np.corrcoef(column, ordinal)[0, 1]) for column in drawn.X.T]
    assert max(correlations) < 0.1


def test_misspecified_errors_widen_with_a_column_outside_the_support() -> None:
    drawn = simulate("S6", n=LARGE, p=40, variant="misspecified")
    assert drawn.width_column is not None
    assert not drawn.support[drawn.width_column]
    assert drawn.support.sum() == 8
    error = np.log(drawn.Y["continuous"]) / 2 - drawn.f[:, 0]
    wide = drawn.X[:, drawn.width_column]
    assert error[wide > 1].abs().median() > 2 * error[wide < -1].abs().median()
    assert abs(np.corrcoef(wide, np.sign(error))[0, 1]) < 0.03


def test_kinds_come_in_the_order_of_their_scores() -> None:
    assert simulate("S3", n=10).names == list(KINDS)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("S7", {}, "name must be one of S1, S2"),
        ("S1", {"overlap": 0.5}, "S1 has the options covariance, noise, tasks, not overlap"),
        ("S3", {"censoring": 1.2}, "censoring must be within"),
        ("S3", {"kinds": ("nominal",)}, "kinds must be some of"),
        ("S3", {"covariance": "toeplitz"}, "covariance must be"),
        ("S6", {"variant": "odd"}, "variant must be"),
        ("S3", {"s": 201}, "s within 1"),
        ("S4", {"p": 20, "overlap": 0.0}, "depend on 24 columns together"),
    ],
)
def test_wrong_options_are_named(name: str, options: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        simulate(name, **options)  # type: ignore[arg-type]
