"""The proximal operators against brute force."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize, minimize_scalar
from torch.testing import assert_close

from motet.estimators.proximal import Penalty, group_lasso, group_mcp, hierarchy

GAMMA, REACH = 3.0, 2.0
numbers = st.floats(-4, 4, allow_nan=False).map(lambda x: round(x, 3))
rows = st.lists(numbers, min_size=5, max_size=5)
positive = st.floats(0.05, 5)


def mcp(r, strength):
    return strength * r - r**2 / (2 * GAMMA) if r < GAMMA * strength else GAMMA * strength**2 / 2


def objective(penalty, w, v, strength, step):
    distance = ((w - v) ** 2).sum() / 2
    if penalty == "group_lasso":
        return distance + step * strength * np.linalg.norm(w)
    if penalty == "group_mcp":
        return distance + step * mcp(np.linalg.norm(w), strength)
    return distance + step * strength * np.linalg.norm(w[-2:])


def brute_force(penalty, v, strength, step):
    """The lowest objective: over lengths of the row, or of the skip, on a grid and refined."""

    def along(r):
        if penalty == "lassonet":
            size = np.linalg.norm(v[-2:])
            skip = r * (v[-2:] / size if size else np.array([1.0, 0.0]))
            w = np.concatenate([np.clip(v[:-2], -REACH * r, REACH * r), skip])
        else:
            size = np.linalg.norm(v)
            w = r * (v / size if size else np.eye(len(v))[0])
        return objective(penalty, w, v, strength, step)

    grid = np.linspace(0, 20, 401)
    best = min(grid, key=along)
    refined = minimize_scalar(
        along, bounds=(max(best - 0.05, 0), best + 0.05), method="bounded", options={"xatol": 1e-10}
    )
    return min(along(best), refined.fun, along(0.0))


def prox(penalty, v, strength, step):
    rule = Penalty(penalty, gamma=GAMMA, reach=REACH, skip=2)
    return rule.prox(torch.tensor(v)[None], torch.tensor([strength], dtype=torch.float64), step)[0].numpy()


@pytest.mark.parametrize("penalty", ["group_lasso", "group_mcp", "lassonet"])
@given(v=rows, strength=positive, step=positive)
def test_no_row_has_a_lower_objective(penalty, v, strength, step):
    v = np.array(v)
    w = prox(penalty, v, strength, step)
    if penalty == "lassonet":
        assert np.abs(w[:-2]).max() <= REACH * np.linalg.norm(w[-2:]) + 1e-12
    assert objective(penalty, w, v, strength, step) <= brute_force(penalty, v, strength, step) + 1e-9


@pytest.mark.parametrize("penalty", ["group_lasso", "group_mcp"])
@given(v=rows, strength=positive, step=positive)
def test_no_direction_other_than_the_rows_own_is_better(penalty, v, strength, step):
    """A search over all five numbers, which knows nothing of lengths and directions."""
    v = np.array(v)
    found = minimize(lambda w: objective(penalty, w, v, strength, step), v + 0.01, method="Nelder-Mead")
    assert objective(penalty, prox(penalty, v, strength, step), v, strength, step) <= found.fun + 1e-9


@pytest.mark.parametrize("penalty", ["group_lasso", "group_mcp", "lassonet"])
def test_small_rows_are_exactly_zero(penalty):
    assert (prox(penalty, np.array([0.1, -0.1, 0.05, 0.1, 0.1]), 1.0, 2.0) == 0).all()
    assert (prox(penalty, np.zeros(5), 1.0, 2.0) == 0).all()


def test_the_threshold_carries_the_step_size():
    v, strength = torch.tensor([[3.0, 4.0]]), torch.tensor([1.0])
    assert_close(group_lasso(v, strength, 2.0), 0.6 * v)
    assert (group_lasso(v, strength, 5.0) == 0).all()


def test_an_infinite_strength_keeps_a_feature_out():
    v, strength = torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([torch.inf, torch.inf])
    for operator in (group_lasso, group_mcp, hierarchy):
        assert (operator(v, strength, 1.0) == 0).all()


def test_the_concave_penalty_does_not_shrink_strong_features():
    v = torch.tensor([[30.0, 40.0]])
    for step in (0.5, 1.0, 10.0):
        assert_close(group_mcp(v, torch.tensor([1.0]), step, GAMMA), v)


def test_the_hierarchy_without_hidden_weights_is_soft_thresholding():
    v, strength = torch.tensor([[0.0, 0.0, 3.0, 4.0]]), torch.tensor([1.0])
    assert_close(hierarchy(v, strength, 2.0, skip=2, reach=5.0), 0.6 * v)


def test_residuals_measure_distance_from_stationarity():
    """A live row wants ∇ = -λ w/‖w‖; a zero row wants ‖∇‖ ≤ λ."""
    w = torch.tensor([[3.0, 4.0], [3.0, 4.0], [0.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    gradient = torch.tensor([[-0.6, -0.8], [-0.6, -0.7], [0.6, 0.7], [3.0, 4.0]], dtype=torch.float64)
    residuals = Penalty("group_lasso").residual(w, gradient, torch.ones(4, dtype=torch.float64))
    assert residuals[0] < 1e-12
    assert 0.05 < residuals[1] < 0.2
    assert residuals[2] == 0
    assert_close(residuals[3], torch.tensor(4.0, dtype=torch.float64))


def test_values_are_what_the_operators_minimise():
    rule, w, strength = Penalty("group_mcp", gamma=GAMMA), np.array([[0.3, 0.4], [30.0, 40.0]]), [1.0, 2.0]
    expected = sum(mcp(np.linalg.norm(row), s) for row, s in zip(w, strength, strict=True))
    assert abs(rule.value(torch.tensor(w), torch.tensor(strength)) - expected) < 1e-12
    assert Penalty("group_lasso").value(torch.tensor(w), torch.tensor(strength)) == pytest.approx(100.5)
    assert Penalty("lassonet", skip=1).value(torch.tensor(w), torch.tensor(strength)) == pytest.approx(80.4)


@pytest.mark.parametrize("wrong", [{"name": "ridge"}, {"gamma": 1.0}, {"reach": 0.0}])
def test_options_are_checked(wrong):
    with pytest.raises(ValueError, match=str(next(iter(wrong.values()))).split(".")[0]):
        Penalty(**wrong)
