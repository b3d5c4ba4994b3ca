"""MGDA, CAGrad, IMTL-G, Aligned-MTL, UPGrad and DualProj: what their directions look like."""

import pytest
import torch
from hypothesis import given
from torch.testing import assert_close

from motet.linalg import gram as gram_of
from motet.methods import IMTLG, MGDA, AlignedMTL, CAGrad, DualProj, UPGrad
from motet.testing import check_method
from tests.matrices import jacobian, jacobians


@given(jacobians(full_rank=True))
def test_mgda_gains_the_same_for_every_task_with_weight(matrix):
    weights = MGDA().weights(gram_of(matrix))
    gains = matrix @ (weights @ matrix)
    square = (weights @ matrix).square().sum()
    assert (gains >= square * (1 - 1e-6)).all()
    assert_close(gains[weights > 1e-9], square.expand(int((weights > 1e-9).sum())), rtol=1e-5, atol=0)


def test_mgda_gives_all_weight_to_tasks_without_gradient():
    rows = jacobian("weak", 4, 0)
    rows[[1, 3]] = 0
    assert_close(MGDA().weights(gram_of(rows)), torch.tensor([0, 0.5, 0, 0.5], dtype=torch.float64))


def test_mgda_weights_of_an_all_zero_gram_are_even():
    assert_close(MGDA().weights(torch.zeros(4, 4)), torch.full((4,), 0.25, dtype=torch.float64))


def shortest_of_two(one, other):
    """The weight of the first gradient in the shortest vector between two."""
    return float((((other - one) @ other) / (other - one).square().sum()).clamp(0, 1))


@pytest.mark.parametrize("normalise", ["none", "l2", "loss", "loss+"])
@given(matrix=jacobians(full_rank=True, tasks=(2, 2)))
def test_mgda_seeks_the_shortest_vector_between_normalised_gradients_and_applies_it_to_them_as_they_are(
    normalise, matrix
):
    losses, norms = torch.tensor([0.3, 2.0], dtype=torch.float64), matrix.norm(dim=1)
    sizes = {"none": torch.ones(2), "l2": norms, "loss": losses, "loss+": losses * norms}[normalise]
    share = shortest_of_two(*(matrix / sizes[:, None]))
    method = MGDA(normalise)
    method.observe(losses)
    expected = share * matrix[0] + (1 - share) * matrix[1]
    assert_close(method.direction(matrix), expected, rtol=1e-6, atol=1e-9 * float(norms.max()))


def test_mgda_of_normalised_gradients_may_go_against_a_task():
    rows = torch.tensor([[1.0, 0.0], [-8.0, 6.0]])
    assert (rows @ MGDA("l2").direction(rows)).min() < 0
    assert not MGDA("l2").no_conflict
    assert MGDA().no_conflict


def test_mgda_that_divides_by_losses_needs_them_positive():
    method = MGDA("loss")
    assert method.lower_bound == 0.0
    method.observe(torch.tensor([1.0, 0.0]))
    with pytest.raises(ValueError, match="loss 1"):
        method.weights(torch.eye(2))


def test_mgda_knows_its_normalisations():
    with pytest.raises(ValueError, match="normalise .* none, l2, loss, loss\\+"):
        MGDA("l1")


@pytest.mark.parametrize("normalise", ["l2", "loss", "loss+"])
def test_mgda_with_a_normalisation_keeps_what_motet_relies_on(normalise):
    check_method(lambda: MGDA(normalise))


@given(jacobians(full_rank=True))
def test_cagrad_with_no_radius_is_the_mean(matrix):
    assert_close(CAGrad(0.0).direction(matrix), matrix.mean(0))


@pytest.mark.parametrize("c", [0.1, 0.4, 1.0])
@given(matrix=jacobians())
def test_cagrad_stays_in_its_ball_and_helps_the_worst_task(c, matrix):
    direction, mean = CAGrad(c).direction(matrix), matrix.mean(0)
    largest = matrix.norm(dim=1).max()
    assert (direction - mean).norm() <= c * mean.norm() * (1 + 1e-6) + 1e-9 * largest
    live = matrix.norm(dim=1) > 0
    if live.any():
        assert (matrix @ direction)[live].min() >= (matrix @ mean)[live].min() - 1e-9 * largest**2


@given(jacobians(full_rank=True))
def test_imtl_g_projects_equally_on_all_tasks(matrix):
    method = IMTLG()
    weights = method.weights(gram_of(matrix))
    projections = matrix @ (weights @ matrix) / matrix.norm(dim=1)
    assert method.converged
    assert_close(weights.sum(), torch.tensor(1.0, dtype=torch.float64))
    assert_close(projections, projections.mean().expand(len(matrix)), rtol=1e-6, atol=0)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
@given(matrix=jacobians(full_rank=True, kinds=("weak", "strong")))
def test_one_losss_scale_leaves_the_line_of_imtl_g(factor, matrix):
    scaled = matrix.clone()
    scaled[0] *= factor
    cosine = torch.cosine_similarity(IMTLG().direction(scaled), IMTLG().direction(matrix), dim=0)
    assert_close(cosine.abs(), torch.tensor(1.0, dtype=torch.float64), rtol=1e-6, atol=0)


def test_imtl_g_of_opposite_gradients_is_no_update_and_says_so():
    method = IMTLG()
    rows = jacobian("opposites", 2, 0)
    assert_close(method.direction(rows), torch.zeros_like(rows[0]))
    assert not method.converged


def test_imtl_g_without_a_solution_of_nonzero_sum_says_so():
    cosines = torch.tensor([[1.0, 0.9, 0.9], [0.9, 1.0, 0.65], [0.9, 0.65, 1.0]], dtype=torch.float64)
    equal = torch.linalg.solve(cosines, torch.ones(3, dtype=torch.float64))
    assert equal[0] < 0
    norms = torch.tensor([float(-equal[0] / (equal[1] + equal[2])), 1.0, 1.0], dtype=torch.float64)
    method = IMTLG()
    weights = method.weights(cosines * norms * norms[:, None])  # The first weight is minus the others' sum.
    assert weights.isfinite().all()
    assert_close(weights.abs().sum(), torch.tensor(1.0, dtype=torch.float64))
    assert not method.converged


def test_imtl_g_leaves_out_a_task_without_gradient():
    rows = jacobian("strong", 3, 0)
    with_zero = torch.cat([rows, torch.zeros_like(rows[:1])])
    assert_close(IMTLG().direction(with_zero), IMTLG().direction(rows))


@given(jacobians(full_rank=True))
def test_aligned_mtl_is_the_mean_of_gradients_made_orthogonal_and_equally_long(matrix):
    _, values, right = torch.linalg.svd(matrix, full_matrices=False)
    left = torch.linalg.svd(matrix, full_matrices=False)[0]
    aligned = values[-1] * left @ right
    assert_close(AlignedMTL().direction(matrix), aligned.mean(0), rtol=1e-6, atol=1e-8 * float(values[-1]))


def test_aligned_mtl_does_not_take_a_small_task_for_rounding():
    rows = torch.tensor([[1.0, 0.0], [0.0, 1e-5]])
    assert_close(
        AlignedMTL().weights(gram_of(rows)), torch.tensor([0.5e-5, 0.5], dtype=torch.float64), rtol=1e-5, atol=0
    )


def test_aligned_mtl_counts_a_duplicated_task_once():
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
    # The first two make one component of length √2, the weakest.
    direction = AlignedMTL().direction(rows)
    assert_close(direction, torch.tensor([2.0, 2.0**0.5]) / 3)


@pytest.mark.parametrize("method", [UPGrad(), DualProj()])
def test_without_conflict_the_projections_are_the_mean(method):
    rows = jacobian("weak", 4, 0).abs()
    assert torch.equal(method.weights(gram_of(rows)), torch.full((4,), 0.25, dtype=torch.float64))


def test_two_conflicting_tasks_project_on_each_others_complement(conflicting_jacobian):
    a, b = conflicting_jacobian
    inner = a @ b
    upgrad = ((a - inner / (b @ b) * b) + (b - inner / (a @ a) * a)) / 2
    assert_close(UPGrad().direction(conflicting_jacobian), upgrad)


@given(jacobians(full_rank=True))
def test_dual_proj_is_no_farther_from_the_mean_than_upgrad(matrix):
    mean = matrix.mean(0)
    nearest, other = DualProj().direction(matrix), UPGrad().direction(matrix)
    assert (nearest - mean).norm() <= (other - mean).norm() * (1 + 1e-7) + 1e-12
