"""The bounds of stability selection against the linear and non-linear programs that define them."""

import math

import numpy as np
import pytest
from scipy.optimize import linprog, minimize

from motet.estimators.error_bounds import ASSUMPTIONS, concave_tail, error_bound


def unimodal_tail(mean, t, B):
    """The largest P(X ≥ t) of a law on {0, …, B} with one mode and E X ≤ mean · B: one linear program a mode."""
    best = 0.0
    for mode in range(B + 1):
        rises = np.array([[-1.0 if j == i + 1 else 1.0 if j == i else 0.0 for j in range(B + 1)] for i in range(B)])
        rises[mode:] *= -1
        found = linprog(
            -(np.arange(B + 1) >= t).astype(float),
            A_ub=np.vstack([rises, np.arange(B + 1.0)]),
            b_ub=np.append(np.zeros(B), mean * B),
            A_eq=np.ones((1, B + 1)),
            b_eq=[1.0],
        )
        best = max(best, -found.fun) if found.success else best
    return best


def concave_tail_by_search(mean, t, B, r, starts=5):
    """The largest P(X ≥ t) found among laws f = g^{1/r} with g convex and positive on {0, …, k}: from below."""
    rng, best = np.random.default_rng(0), 0.0
    for k in range(t, B + 1):
        i = np.arange(k + 1)

        def g(z):
            slopes = z[0] + np.append(0.0, np.cumsum(np.exp(z[1:])))
            return 1 + np.append(0.0, np.cumsum(slopes))

        def law(z):
            f = np.maximum(g(z), 1e-9) ** (1 / r)
            return f / f.sum()

        for _ in range(starts):
            z = np.append(rng.uniform(0, 2), rng.normal(-4, 3, k - 1))
            found = minimize(
                lambda z: -law(z)[t:].sum(),
                z,
                bounds=[(None, None), *[(-14, 4)] * (k - 1)],
                constraints=[
                    {"type": "ineq", "fun": lambda z, i=i: mean * B - law(z) @ i},
                    {"type": "ineq", "fun": lambda z: g(z).min() - 1e-6},
                ],
            ).x
            if law(found) @ i <= mean * B + 1e-9 and g(found).min() > 0:
                best = max(best, law(found)[t:].sum())
    return best


def test_the_certain_bound_is_that_of_meinshausen_and_buehlmann():
    assert error_bound(q=20, p=1000, threshold=0.75) == pytest.approx(20**2 / (0.5 * 1000))
    assert error_bound(q=0, p=10, threshold=0.9, assumption="r-concave") == 0


@pytest.mark.parametrize("threshold", [0.2, 0.5])
def test_no_threshold_up_to_a_half_has_a_bound(threshold):
    assert [error_bound(5, 100, threshold, assumption=each) for each in ASSUMPTIONS] == [math.inf] * 3


@pytest.mark.parametrize("theta", [0.05, 0.2, 0.4])
@pytest.mark.parametrize("threshold", [0.7, 0.75, 0.8, 1.0])
def test_the_unimodal_bound_is_the_extreme_unimodal_law(theta, threshold):
    B, p = 10, 100
    extreme = p * unimodal_tail(theta**2, round(B * (2 * threshold - 1)), B)
    assert error_bound(theta * p, p, threshold, B, "unimodal") == pytest.approx(extreme, rel=1e-6)


@pytest.mark.filterwarnings("ignore:.*bounds.*:RuntimeWarning", "ignore:Values in x were outside bounds")
@pytest.mark.parametrize(("mean", "t"), [(0.05, 2), (0.05, 4), (0.1, 2), (0.1, 4)])
@pytest.mark.parametrize("r", [-0.5, -0.25])
def test_the_concave_tail_is_the_extreme_r_concave_law(mean, t, r):
    found, exact = concave_tail_by_search(mean, t, 5, r), concave_tail(mean, t, 5, r)
    assert found <= exact + 1e-7  # No law that was found has a larger tail,
    assert found == pytest.approx(exact, rel=0.06)  # and one comes near it.


def test_the_concave_tail_grows_with_the_mean_and_falls_with_the_threshold():
    assert np.all(np.diff([concave_tail(mean, 25, 50, -0.5) for mean in (0.001, 0.01, 0.05, 0.2)]) > 0)
    assert np.all(np.diff([concave_tail(0.02, t, 50, -0.5) for t in range(3, 51)]) < 0)
    assert concave_tail(0.3, 30, 50, -0.5) == 1


@pytest.mark.parametrize("q", [2, 30, 100, 400, 1000])
@pytest.mark.parametrize("threshold", [0.51, 0.6, 0.9, 1.0])
def test_assumptions_never_raise_the_bound(q, threshold):
    certain, unimodal, concave = (error_bound(q, 1000, threshold, 50, each) for each in ASSUMPTIONS)
    assert 0 <= concave <= certain
    assert 0 <= unimodal <= certain


def test_the_bound_holds_for_features_that_are_drawn_at_random():
    # Each half selects q of p noise features, whatever it sees: the law for which the bound is made.
    p, q, B, threshold, runs = 40, 12, 5, 0.6, 400
    rng = np.random.default_rng(0)
    chosen = np.argsort(rng.random((runs, 2 * B, p)), axis=-1) < q
    false = (chosen.mean(axis=1) >= threshold - 1e-9).sum(axis=1)
    error = false.std() / runs**0.5
    for assumption in ASSUMPTIONS:
        assert false.mean() <= error_bound(q, p, threshold, B, assumption) + 3 * error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"q": 11}, "q must"),
        ({"q": -1}, "q must"),
        ({"threshold": 0}, "threshold must"),
        ({"threshold": 1.1}, "threshold must"),
        ({"pairs": 0}, "pairs must"),
        ({"p": 0}, "p must"),
        ({"assumption": "convex"}, "assumption must be one of none, unimodal, r-concave"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        error_bound(**{"q": 3, "p": 10, "threshold": 0.7, **options})
