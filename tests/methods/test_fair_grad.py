"""FairGrad and Nash-MTL against their own equation, their limits and their promises."""

import pytest
import torch
from hypothesis import given
from torch.testing import assert_close

from motet.linalg import gram as gram_of
from motet.methods import MGDA, FairGrad, NashMTL
from tests.matrices import jacobian, jacobians


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 8.0])
@given(matrix=jacobians(full_rank=True))
def test_weights_solve_the_fairness_equation(alpha, matrix):
    method, gram = FairGrad(alpha), gram_of(matrix)
    weights = method.weights(gram)
    assert method.converged
    assert_close(gram @ weights, weights ** (-1 / alpha), rtol=1e-6, atol=0)


@given(jacobians(full_rank=True))
def test_every_task_improves(matrix):
    assert ((matrix @ FairGrad().direction(matrix)) > 0).all()


@pytest.mark.parametrize("kind", ["weak", "strong"])
def test_nash_mtl_solves_its_equation_at_forty_tasks(kind):
    gram = gram_of(jacobian(kind, 40, 0).float())
    weights = NashMTL().weights(gram)
    assert_close(gram @ weights, 1 / weights, rtol=1e-6, atol=0)


def test_alpha_one_is_nash_mtl(conflicting_jacobian):
    assert_close(FairGrad(1.0).direction(conflicting_jacobian), NashMTL().direction(conflicting_jacobian))


def test_large_alpha_approaches_mgda(conflicting_jacobian):
    fair, minimum_norm = FairGrad(64.0).direction(conflicting_jacobian), MGDA().direction(conflicting_jacobian)
    assert torch.cosine_similarity(fair, minimum_norm, dim=0) > 0.999


@given(jacobians(full_rank=True))
def test_the_nash_direction_has_one_length_whatever_the_gradients(matrix):
    length = NashMTL().direction(matrix).norm()
    assert_close(length, torch.tensor(float(len(matrix))).sqrt().double(), rtol=1e-6, atol=0)


@given(jacobians(full_rank=True, tasks=(2, 5)))
def test_max_norm_cuts_the_length_and_keeps_the_direction(matrix):
    cut, whole = NashMTL(max_norm=0.5).direction(matrix), NashMTL().direction(matrix)
    assert_close(cut, whole / whole.norm() / 2)
    assert_close(NashMTL(max_norm=1e3).direction(matrix), whole)


def test_a_duplicated_task_shares_its_weight():
    rows = jacobian("strong", 3, 0)
    gram = gram_of(torch.cat([rows, rows[:1]]))
    weights = NashMTL().weights(gram)
    assert_close(weights[0], weights[3])
    assert_close(gram @ weights, 1 / weights, rtol=1e-6, atol=0)


@pytest.mark.parametrize("method", [FairGrad(), NashMTL()])
def test_a_stationary_point_gives_finite_weights_and_says_so(method):
    assert method.weights(torch.tensor([[1.0, -1.0], [-1.0, 1.0]])).isfinite().all()
    assert not method.converged


@pytest.mark.parametrize("method", [FairGrad(), NashMTL()])
def test_a_task_without_gradient_has_no_weight_and_changes_nothing(method):
    rows = jacobian("strong", 3, 0)
    expected = method.direction(rows)
    with_zero = torch.cat([rows, torch.zeros_like(rows[:1])])
    assert_close(method.direction(with_zero), expected)
    assert method.weights(gram_of(with_zero))[3] == 0
    assert method.converged


def test_alpha_must_be_positive():
    with pytest.raises(ValueError, match="alpha .* positive"):
        FairGrad(0.0)
