"""The permuted-outcome control: p-values that are valid, outcomes that move together, indices that stay."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from motet.estimators.permuted import PermutedControl, permuted_control

X = np.random.default_rng(0).standard_normal((60, 8))


def by_correlation(Y, seed):
    """Selects features by their largest correlation with any outcome; scores each outcome by its best."""
    Y = np.asarray(Y, dtype=float).reshape(len(X), -1)
    r = np.abs(np.corrcoef(X.T, Y.T)[:8, 8:])
    return r.max(axis=1) > 0.4, r.max(axis=0)


def outcomes(strength, seed=1):
    noise = np.random.default_rng(seed).standard_normal((60, 2))
    return strength * X[:, :2] + noise


def test_a_signal_has_the_smallest_p_value_that_there_is():
    found = permuted_control(by_correlation, outcomes(3.0), repeats=19, random_state=0)
    assert_array_equal(found.support, np.arange(8) < 2)
    assert found.p_selected == found.p_mean == 0.05
    assert_array_equal(found.p_concordance, [0.05, 0.05])
    assert np.median(found.null_support.sum(axis=1)) == 0
    assert "p = 0.05" in found.explain()


def test_p_values_are_uniform_or_larger_without_a_signal():
    runs = 80
    found = [permuted_control(by_correlation, outcomes(0.0, run), repeats=9, random_state=run) for run in range(runs)]
    for values in ([each.p_mean for each in found], [each.p_selected for each in found]):
        assert np.mean(np.array(values) <= 0.2) <= 0.2 + 3 * (0.2 * 0.8 / runs) ** 0.5
    # By chance alone some are small: a test that never rejects would pass the line above.
    assert min(each.p_mean for each in found) <= 0.2


def test_outcomes_of_a_row_stay_together_and_the_index_stays():
    Y = pd.DataFrame({"time": np.arange(60.0), "event": np.arange(60) % 3}, index=np.arange(100, 160))
    seen = []

    def fit(Y, seed):
        seen.append((Y, seed))
        return np.ones(3, dtype=bool), {"os": 0.5}

    permuted_control(fit, Y, repeats=3, random_state=0)
    pd.testing.assert_frame_equal(seen[0][0], Y)
    for permuted, _ in seen[1:]:
        assert_array_equal(permuted.index, Y.index)
        assert_array_equal(permuted["event"], permuted["time"].astype(int) % 3)
        assert_array_equal(np.sort(permuted["time"]), Y["time"])
        assert (permuted["time"].to_numpy() != Y["time"].to_numpy()).any()
    assert len({seed for _, seed in seen}) == 4


def test_structured_arrays_and_rows_within_labels():
    Y = np.array([(i % 2 == 0, float(i)) for i in range(12)], dtype=[("event", bool), ("time", float)])
    centre = np.repeat(["a", "b"], 6)
    seen = []

    def fit(Y, seed):
        seen.append(Y["time"])
        return np.ones(1, dtype=bool), [0.5]

    permuted_control(fit, Y, repeats=5, within=centre, random_state=0)
    for times in seen[1:]:
        assert_array_equal(np.sort(times[:6]), np.arange(6))
    assert any((times != np.arange(12)).any() for times in seen[1:])


def test_groups_move_as_a_whole_to_groups_of_their_size():
    patient = np.repeat(np.arange(8), [3, 1, 3, 1, 2, 3, 2, 1])[np.random.default_rng(0).permutation(16)]
    Y = pd.DataFrame({"patient": patient, "row": np.arange(16)})
    seen = []

    def fit(Y, seed):
        seen.append(Y)
        return np.ones(1, dtype=bool), [0.5]

    permuted_control(fit, Y, repeats=5, groups=patient, random_state=0)
    for permuted in seen[1:]:
        came = permuted["patient"].groupby(patient)
        assert (came.nunique() == 1).all()
        assert_array_equal(np.bincount(came.first(), minlength=8), np.ones(8))
        assert_array_equal(np.sort(permuted["row"]), np.arange(16))
    assert any((permuted["patient"] != patient).any() for permuted in seen[1:])


def test_row_by_row_permutations_of_repeated_measurements_reject_too_often_and_of_groups_do_not():
    patient, runs = np.repeat(np.arange(12), 5), 60
    rejected = {"rows": 0, "groups": 0}
    for run in range(runs):
        rng = np.random.default_rng(run)
        x, y = rng.standard_normal(12)[patient], rng.standard_normal(12)[patient]

        def fit(Y, seed, x=x):
            return np.ones(1, dtype=bool), [abs(np.corrcoef(x, Y)[0, 1])]

        for name, groups in (("rows", None), ("groups", patient)):
            rejected[name] += permuted_control(fit, y, repeats=19, groups=groups, random_state=run).p_mean <= 0.05
    assert rejected["rows"] > 15
    assert rejected["groups"] <= runs * 0.05 + 3 * (runs * 0.05 * 0.95) ** 0.5


def test_one_permutation_is_spoken_of_in_the_singular():
    assert "With 1 permutation of" in permuted_control(by_correlation, outcomes(1.0), repeats=1).explain()


def test_ties_and_unknown_null_scores_count_against_the_finding():
    ones = np.ones(4, dtype=bool)
    found = PermutedControl(
        ones, np.array([0.6, np.nan]), np.stack([ones, ones, ~ones]), np.array([[0.6, 0.1], [np.nan, 0.1], [0.5, 0.1]]),
        ("er", "os"), 0,
    )  # fmt: skip
    assert found.p_selected == 3 / 4
    assert found.p_concordance[0] == 3 / 4
    assert np.isnan(found.p_concordance[1])
    assert "os can't be scored" in found.explain()
    assert "19 are needed" in found.explain()


def test_jobs_change_nothing_and_the_result_is_a_table_and_plain_arrays():
    heard = []
    one = permuted_control(
        by_correlation, outcomes(1.0), repeats=4, random_state=3, progress=lambda *n: heard.append(n)
    )
    many = permuted_control(by_correlation, outcomes(1.0), repeats=4, random_state=3, n_jobs=2, prefer="threads")
    assert_array_equal(one.null_concordance, many.null_concordance)
    assert heard[-1] == (5, 5)
    state = one.state()
    assert all(array.dtype.kind in "biuf" for array in state.values())
    assert repr(PermutedControl.from_state(state)) == repr(one)
    assert list(one.to_frame().index) == ["selected", "y0", "y1"]
    assert one.favoured().is_monotonic_decreasing


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: permuted_control(by_correlation, X, repeats=0), "repeats must"),
        (lambda: permuted_control(by_correlation, X[:1]), "Y must have a row"),
        (lambda: permuted_control(by_correlation, X, within=[1]), "within must"),
        (lambda: permuted_control(by_correlation, X, within=np.arange(60)), "nothing can be permuted"),
        (lambda: permuted_control(by_correlation, X, groups=[1]), "groups must"),
        (lambda: permuted_control(by_correlation, X, groups=np.arange(60) < 20), "no two groups"),
        (
            lambda: permuted_control(by_correlation, X, groups=np.arange(60) // 2, within=np.arange(60) % 2),
            "two labels",
        ),
        (lambda: permuted_control(lambda Y, seed: (np.ones(3), [1]), X), "return what is selected as bool"),
        (lambda: permuted_control(lambda Y, seed: (np.ones(seed % 50, dtype=bool), [1]), X), "the same features"),
    ],
)
def test_bad_input_is_one_clear_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()
