"""The solvers against the optimality conditions of their problems, on matrices that solvers fail on."""

import pytest
import torch
from hypothesis import given
from torch import Tensor
from torch.testing import assert_close

from motet.linalg import gram as gram_of
from motet.solvers import conflict_averse, fair_fixed_point, min_norm_point, project_on_dual_cone, unit_diagonal
from motet.solvers.complementarity import _interior_point, minimise_on_orthant, violation
from tests.matrices import DEGENERATE, FULL_RANK, jacobian, jacobians

SOLVERS = {
    "projection": lambda g: project_on_dual_cone(g, torch.eye(len(g)) / len(g)),
    "min-norm": min_norm_point,
    "conflict-averse": lambda g: conflict_averse(g, 0.4),
    "wide conflict-averse": lambda g: conflict_averse(g, 1.5),
    "proportional": lambda g: fair_fixed_point(g, 1.0),
    "fair": lambda g: fair_fixed_point(g, 2.0),
    "nearly max-min": lambda g: fair_fixed_point(g, 8.0),
}
AT_40 = [(kind, dtype) for kind in FULL_RANK for dtype in (torch.float64, torch.float32)]


def in_units(jacobian: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weights v and progress Cv with every gradient brought to unit length; rows of zero norm give zeros."""
    norms = jacobian.norm(dim=-1)
    unit = jacobian / torch.where(norms > 0, norms, 1.0)[:, None]
    v = weights * norms
    return v, (v @ unit) @ unit.T


@pytest.mark.parametrize("solver", SOLVERS)
@given(matrix=jacobians(tasks=(1, 9)))
def test_solutions_are_finite_on_any_matrix(solver, matrix):
    weights, converged = SOLVERS[solver](gram_of(matrix))
    assert weights.isfinite().all()
    assert converged.dtype == torch.bool


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", [*FULL_RANK, *DEGENERATE])
def test_forty_float32_tasks_are_finite(solver, kind):
    """A Gram matrix from float32 rows is positive semidefinite to rounding only."""
    weights, _ = SOLVERS[solver](gram_of(jacobian(kind, 40, 0).float()))
    assert weights.isfinite().all()


@pytest.mark.parametrize("solver", SOLVERS)
def test_two_hundred_tasks_converge(solver):
    weights, converged = SOLVERS[solver](gram_of(jacobian("strong", 200, 0)))
    assert weights.isfinite().all()
    assert converged


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_matrix_that_is_not_finite_gives_nan_and_does_not_raise(solver, value):
    matrix = torch.eye(3, dtype=torch.float64)
    matrix[0, 1] = matrix[1, 0] = value
    weights, converged = SOLVERS[solver](matrix)
    assert weights.isnan().all()
    assert not converged


@given(jacobians(tasks=(1, 9)))
def test_projections_satisfy_the_optimality_conditions(matrix):
    count = len(matrix)
    targets = torch.eye(count, dtype=torch.float64)
    weights, converged = project_on_dual_cone(gram_of(matrix), targets)
    assert converged
    assert (weights >= targets).all()
    for target, weight in zip(targets, weights, strict=True):
        v, progress = in_units(matrix, weight)
        size = v.abs().max().clamp(min=1e-300)
        assert (progress >= -1e-7 * size).all()
        added = (weight - target) * matrix.norm(dim=1)
        assert (torch.minimum(added, progress).abs() <= 1e-6 * size).all()


@given(jacobians(tasks=(2, 9), kinds=("duplicates", "weak", "strong", "scaled")))
def test_the_projection_agrees_with_one_found_by_projected_gradients(matrix):
    gram = gram_of(matrix / matrix.norm(dim=1, keepdim=True))
    linear = gram.mean(0)
    x = torch.zeros_like(linear)
    step = 1 / torch.linalg.eigvalsh(gram)[-1]
    for _ in range(3000):
        x = (x - step * (gram @ x + linear)).clamp(min=0)
    weights, _ = project_on_dual_cone(gram, torch.full((1, len(gram)), 1 / len(gram), dtype=torch.float64))
    slow, exact = (1 / len(gram) + x), weights[0]
    assert exact @ gram @ exact <= slow @ gram @ slow + 1e-9


@given(jacobians(tasks=(1, 9)))
def test_the_shortest_vector_satisfies_the_optimality_conditions(matrix):
    gram = gram_of(matrix)
    weights, converged = min_norm_point(gram)
    assert converged
    assert (weights >= 0).all()
    assert_close(weights.sum(), torch.ones((), dtype=torch.float64))
    v, progress = in_units(matrix, weights)
    direction = weights @ matrix
    norms = matrix.norm(dim=1)
    least = torch.where(norms > 0, direction @ direction / torch.where(norms > 0, norms, 1.0), 0.0)
    tolerance = 1e-6 * v.abs().max()
    assert (progress >= least - tolerance).all()
    assert (torch.minimum(v, (progress - least).abs()) <= tolerance).all()


@pytest.mark.parametrize(("kind", "dtype"), AT_40)
def test_the_shortest_vector_of_forty_tasks_is_optimal(kind, dtype):
    matrix = jacobian(kind, 40, 1).to(dtype)
    gram = gram_of(matrix)
    weights, _ = min_norm_point(gram)
    square = weights @ gram @ weights
    assert (gram @ weights >= square * (1 - 1e-6)).all()


@pytest.mark.parametrize("c", [0.2, 0.4, 1.0, 2.0])
@given(matrix=jacobians(full_rank=True, tasks=(1, 7)))
def test_the_conflict_averse_direction_has_the_least_objective(matrix, c):
    """ω on the simplex minimises F(ω) = g_ω·g₀ + c|g₀||g_ω|: no vertex is a descent direction of F."""
    gram = gram_of(matrix)
    weights, converged = conflict_averse(gram, c)
    assert converged
    change = weights - 1 / len(gram)
    assert (change >= 0).all()
    mean = torch.full_like(change, 1 / len(gram))
    radius = c * (mean @ gram @ mean).sqrt()
    assert_close((change @ gram @ change).sqrt(), radius, rtol=1e-6, atol=0)
    omega = change / change.sum()
    slope = gram @ mean + radius * (gram @ omega) / (omega @ gram @ omega).sqrt()
    size = (gram.diagonal().sqrt() * (gram.diagonal().sqrt() @ weights.abs())).max()
    assert slope.min() >= omega @ slope - 1e-6 * size


def test_a_stationary_point_within_reach_gives_the_projection_of_the_mean():
    gram = gram_of(jacobian("stationary", 4, 0))
    weights, converged = conflict_averse(gram, 1.5)
    projection, _ = project_on_dual_cone(gram, torch.full((1, 4), 0.25, dtype=torch.float64))
    assert converged
    assert_close(weights, projection[0])


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 8.0])
@pytest.mark.parametrize(("kind", "dtype"), [case for case in AT_40 if case[0] != "scaled-strong"])
def test_the_fair_equation_of_forty_tasks_holds(alpha, kind, dtype):
    gram = gram_of(jacobian(kind, 40, 2).to(dtype))
    weights, converged = fair_fixed_point(gram, alpha)
    assert converged
    assert_close(gram @ weights, weights ** (-1 / alpha), rtol=1e-6, atol=0)


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_norms_that_span_six_decades_do_not_stop_the_fair_equation(alpha):
    rows = jacobian("strong", 10, 3) * torch.logspace(-3, 3, 10, dtype=torch.float64)[:, None]
    gram = gram_of(rows)
    weights, converged = fair_fixed_point(gram, alpha)
    assert converged
    assert_close(gram @ weights, weights ** (-1 / alpha), rtol=1e-6, atol=0)


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_a_stationary_point_has_no_fair_solution_and_says_so(alpha):
    weights, converged = fair_fixed_point(gram_of(jacobian("stationary", 5, 0)), alpha)
    assert weights.isfinite().all()
    assert not converged


@pytest.mark.parametrize("factor", [1e-12, 1e-6, 1e12])
@pytest.mark.parametrize("solver", ["projection", "min-norm", "conflict-averse"])
@given(matrix=jacobians(full_rank=True))
def test_the_scale_of_the_gradients_leaves_the_weights_alone(solver, factor, matrix):
    gram = gram_of(matrix)
    assert_close(SOLVERS[solver](gram * factor**2)[0], SOLVERS[solver](gram)[0], rtol=1e-7, atol=1e-12)


@given(jacobians(tasks=(1, 7)))
def test_the_interior_point_method_agrees_with_pivoting(matrix):
    unit = unit_diagonal(gram_of(matrix))
    pivoted = minimise_on_orthant(unit.cosines, unit.cosines)
    inner = _interior_point(unit.cosines, unit.cosines)
    assert (violation(unit.cosines, unit.cosines, inner) <= 1e-8).all()
    assert_close(inner @ unit.cosines, pivoted @ unit.cosines, rtol=1e-6, atol=1e-6)


def test_programmes_on_which_pivoting_cycles_are_solved():
    """Forty tasks in twenty dimensions: exchanges of the support go round in circles there."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(40, 20, generator=generator, dtype=torch.float64)
    weights, converged = project_on_dual_cone(gram_of(rows), torch.eye(40))
    assert converged
    unit = rows / rows.norm(dim=1, keepdim=True)
    assert (weights @ rows @ unit.T).min() >= -1e-7


def test_the_unit_diagonal_form_leaves_a_well_conditioned_matrix_alone():
    unit = unit_diagonal(gram_of(jacobian("weak", 5, 0)))
    assert_close(unit.cosines, unit.measured, rtol=0, atol=1e-15)


def test_the_unit_diagonal_form_lifts_what_rounding_pushed_below_zero():
    gram = torch.tensor([[1.0, 1.0 + 1e-6], [1.0 + 1e-6, 1.0]], dtype=torch.float64)
    assert torch.linalg.eigvalsh(unit_diagonal(gram).cosines)[0] > 0


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_solver_leaves_the_number_of_threads_as_it_was(solver):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        SOLVERS[solver](gram_of(jacobian("weak", 3, 0)))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
