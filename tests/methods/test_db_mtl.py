"""DB-MTL with and without smoothing."""

import torch
from hypothesis import given
from torch.testing import assert_close

from motet.linalg import gram as gram_of
from motet.methods import DBMTL
from tests.matrices import jacobian, jacobians


@given(jacobians(full_rank=True))
def test_every_gradient_is_brought_to_the_length_of_the_longest(matrix):
    weights = DBMTL().weights(gram_of(matrix))
    norms = matrix.norm(dim=1)
    assert_close(weights * norms, norms.max().expand(len(norms)))


def test_a_task_without_gradient_has_no_weight():
    rows = jacobian("zero-rows", 4, 0)
    weights = DBMTL().weights(gram_of(rows))
    assert ((weights == 0) == (rows.norm(dim=1) == 0)).all()


def test_log_losses_are_taken_through_the_losses_factors():
    assert_close(DBMTL().loss_weights(torch.tensor([0.5, 4.0])), torch.tensor([2.0, 0.25], dtype=torch.float64))


def test_smoothing_needs_the_gradients_themselves():
    assert DBMTL().needs == "gram"
    assert DBMTL(beta=0.5).needs == "jacobian"


def test_smoothing_starts_at_the_first_gradient_and_averages_from_there():
    method = DBMTL(beta=0.8)
    rows = [jacobian("weak", 3, seed) for seed in range(3)]
    assert_close(method.direction(rows[0]), DBMTL().direction(rows[0]))
    method.direction(rows[1])
    weights = torch.tensor([0.64, 0.8, 1.0]) * 0.2 / (1 - 0.8**3)
    average = sum(weight * row for weight, row in zip(weights.double(), rows, strict=True))
    assert_close(method.direction(rows[2]), DBMTL().direction(average), rtol=1e-6, atol=1e-6)
