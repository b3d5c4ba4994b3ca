"""GCond, GradCraft and the IMTL of losses and gradients."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from motet.methods import IMTL, IMTLG, IMTLL, GCond, GradCraft
from motet.testing import check_method
from tests.matrices import jacobian, jacobians

OTHERS = [
    lambda: GCond(beta=0.0),
    lambda: GCond(beta=0.5, thresholds=(-1.0, -1.0)),
    lambda: GCond(thresholds=(0.0, 0.0)),
    lambda: GradCraft(tau=1.0, epsilon=0.1),
    lambda: GradCraft(tau=0.0),
    lambda: IMTL(lr=0.1),
]


@pytest.mark.parametrize("name", ["gcond", "grad-craft", "imtl"])
def test_defaults_keep_what_motet_relies_on(name):
    check_method(name)


@pytest.mark.parametrize("make", OTHERS)
def test_other_options_keep_it_too(make):
    check_method(make)


def plane(*degrees: float, lengths: tuple[float, ...] | None = None) -> Tensor:
    """Gradients in a plane by their angles."""
    angles = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    rows = torch.stack([angles.cos(), angles.sin()], dim=1)
    return rows if lengths is None else rows * torch.tensor(lengths, dtype=torch.float64)[:, None]


# GCond


def test_agreeing_gradients_are_summed():
    rows = plane(0, 30, 80, lengths=(1, 2, 3))
    assert_close(GCond().direction(rows), rows.sum(0))


def test_a_weak_conflict_is_shared_evenly():
    rows = plane(0, 100, lengths=(1, 3))
    a, b = rows
    inner = a @ b
    expected = a - inner / (b @ b) * b + b - inner / (a @ a) * a
    assert_close(GCond().direction(rows), expected)


def test_in_a_main_conflict_the_loser_gives_way():
    rows = plane(0, 130, lengths=(1, 3))
    a, b = rows  # In a first step nothing is known of the gradients but their lengths.
    assert_close(GCond().direction(rows), b + a - (a @ b) / (b @ b) * b)


def test_in_a_critical_conflict_the_loser_is_dropped():
    rows = plane(0, 170, lengths=(1, 3))
    assert_close(GCond().direction(rows), rows[1])


def test_the_steady_gradient_wins_over_the_long_one():
    method = GCond(beta=0.5)
    before = plane(0, 90, lengths=(1, 3))
    method.direction(before)
    now = plane(0, 150, lengths=(1, 6))  # the first as it was, the second turned by 60° and twice as long
    a, b = (0.25 * before + 0.5 * now) / 0.75
    assert -0.8 < torch.cosine_similarity(a, b, dim=0) < -0.5
    assert_close(method.direction(now), a + b - (a @ b) / (a @ a) * a)


def test_of_equally_steady_gradients_the_one_long_by_its_own_standards_wins():
    method = GCond(beta=0.0)  # nothing is kept, so nothing is steady
    method.direction(plane(0, 90, lengths=(1, 3)))
    a, b = rows = plane(0, 130, lengths=(2, 3))
    assert_close(method.direction(rows), a + b - (a @ b) / (a @ a) * a)


def test_gcond_averages_over_steps_from_the_first_gradient_on():
    method = GCond(beta=0.8)
    rows = [jacobian("weak", 3, seed).abs() for seed in range(3)]  # no conflicts
    assert_close(method.direction(rows[0]), rows[0].sum(0))
    method.direction(rows[1])
    weights = torch.tensor([0.64, 0.8, 1.0], dtype=torch.float64) * 0.2 / (1 - 0.8**3)
    expected = sum(weight * row.sum(0) for weight, row in zip(weights, rows, strict=True))
    assert_close(method.direction(rows[2]), expected)


@given(st.integers(0, 1000))
def test_gcond_leaves_no_conflict_between_two_tasks_that_share_it(seed):
    rows = plane(0, 91 + seed % 28, lengths=(1, 1 + seed % 5))
    assert (rows @ GCond().direction(rows) > 0).all()


@given(jacobians())
def test_gcond_stays_finite_on_any_gradients(matrix):
    assert GCond().direction(matrix).isfinite().all()


# GradCraft


def brute_grad_craft(rows: Tensor, tau: float, epsilon: float) -> Tensor:
    """The definition, task by task, with inverses. For full-rank gradients."""
    norms = rows.norm(dim=1)
    adjusted = (tau * norms.max() / norms + 1 - tau)[:, None] * rows
    turned = []
    for row in adjusted:
        against = adjusted[adjusted @ row < 0]
        wanted = epsilon * row.norm() * against.norm(dim=1) - against @ row
        turned.append(row + torch.linalg.solve(against @ against.T, wanted) @ against)
    return torch.stack(turned).mean(0)


@given(jacobians(full_rank=True, kinds=("weak", "strong", "scaled-strong")))
@pytest.mark.parametrize(("tau", "epsilon"), [(0.5, 0.0), (1.0, 0.1), (0.0, 0.3)])
def test_grad_craft_is_its_definition(tau, epsilon, matrix):
    expected = brute_grad_craft(matrix, tau, epsilon)
    actual = GradCraft(tau, epsilon).direction(matrix)
    assert_close(actual, expected, rtol=1e-6, atol=1e-6 * float(expected.norm()))


def test_grad_craft_without_conflict_is_the_mean_of_the_adjusted_gradients():
    rows = jacobian("weak", 4, 0).abs()
    unit = rows / rows.norm(dim=1, keepdim=True)
    assert_close(GradCraft(tau=1.0).direction(rows), unit.mean(0) * rows.norm(dim=1).max())
    assert_close(GradCraft(tau=0.0).direction(rows), rows.mean(0))


@given(jacobians(full_rank=True, tasks=(2, 2)))
def test_two_tasks_of_grad_craft_never_conflict(matrix):
    assert (matrix @ GradCraft().direction(matrix) >= -1e-9 * matrix.square().sum()).all()


@given(jacobians())
def test_grad_craft_stays_finite_where_its_equations_are_singular(matrix):
    assert GradCraft(epsilon=0.1).direction(matrix).isfinite().all()


# IMTL


def test_imtl_is_imtl_l_on_the_losses_and_imtl_g_on_what_they_weigh():
    method, on_losses, on_gradients = IMTL(lr=0.1), IMTLL(lr=0.1), IMTLG()
    for seed in range(4):
        losses = torch.rand(3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.1
        factors = method.loss_weights(losses)
        assert torch.equal(factors, on_losses.weights(losses))
        rows = factors[:, None] * jacobian("strong", 3, seed)
        assert torch.equal(method.direction(rows), on_gradients.direction(rows))
    assert method.state_dict().keys() == on_losses.state_dict().keys()


def test_imtl_s_update_has_equal_projections():
    rows = jacobian("strong", 4, 0)
    projections = rows @ IMTL().direction(rows) / rows.norm(dim=1)
    assert_close(projections, projections[0].expand(4))


def test_imtl_keeps_the_state_of_absent_tasks():
    method = IMTL(lr=0.1)
    method.loss_weights(torch.tensor([1.0, 3.0, 5.0]))
    with method.on_tasks(torch.tensor([0, 2]), 3):
        method.loss_weights(torch.tensor([1.0, 3.0]))
    assert method.state_dict()["log_scale_steps"].tolist() == [2.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("cls", "options", "named"),
    [
        (GCond, {"beta": 1.0}, "beta"),
        (GCond, {"thresholds": (-0.5, -0.8)}, "thresholds"),
        (GradCraft, {"tau": 1.5}, "tau"),
        (GradCraft, {"epsilon": 1.0}, "epsilon"),
        (IMTL, {"lr": -1.0}, "lr"),
    ],
)
def test_an_option_out_of_range_is_named(cls, options, named):
    with pytest.raises(ValueError, match=named):
        cls(**options)
