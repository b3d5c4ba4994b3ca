"""The solvers against the optimality conditions of their problems, on matrices that solvers fail on."""

import pytest
import torch
from benchmarks import robustness
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from motet.linalg import gram as gram_of
from motet.solvers import conflict_averse, fair_fixed_point, min_norm_point, project_on_dual_cone, unit_diagonal
from motet.solvers.complementarity import minimise_on_orthant, violation
from motet.solvers.unit_diagonal import LIFT, lifted
from tests.matrices import DEGENERATE, FULL_RANK, jacobian, jacobians

SOLVERS = {
    "projection": lambda g: project_on_dual_cone(g, torch.eye(g.shape[-1]) / g.shape[-1]),
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


@given(jacobians(tasks=(1, 7)), st.integers(0, 100))
def test_the_path_agrees_with_exchanges_of_the_support(matrix, seed):
    """What says that a matrix was lifted decides which of the two is used."""
    linear = torch.randn(3, len(matrix), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    given, lift = lifted(unit_diagonal(gram_of(matrix)).measured)
    exchanged = minimise_on_orthant(given, 0 * lift, linear)
    followed = minimise_on_orthant(given, 0 * lift + 1e-300, linear)
    assert (violation(given, 0 * lift, linear, followed) <= 1e-8).all()
    assert_close(followed, exchanged, rtol=1e-6, atol=1e-6 * float(exchanged.max()))


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


def test_a_well_conditioned_matrix_is_not_lifted():
    measured = unit_diagonal(gram_of(jacobian("weak", 5, 0))).measured
    matrix, lift = lifted(measured)
    assert lift == 0
    assert torch.equal(matrix, measured)


@pytest.mark.parametrize("below", [0.0, 1e-7, 1e-6])
def test_a_matrix_is_lifted_by_a_third_more_than_it_needs(below):
    three = unit_diagonal(gram_of(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]], dtype=torch.float64))).measured
    matrix, lift = lifted(three - below * torch.eye(3))
    assert_close(lift, torch.tensor(max(LIFT, below * 4 / 3), dtype=torch.float64), rtol=1e-6, atol=0)
    assert torch.linalg.eigvalsh(matrix)[0] >= lift / 4 - 1e-12


def stack(tasks: int) -> Tensor:
    """Two by five Gram matrices, all kinds and one with a NaN."""
    kinds = (*FULL_RANK, *DEGENERATE)
    grams = torch.stack([gram_of(jacobian(kind, tasks, number)) for number, kind in enumerate(kinds)])
    grams[3, 0, -1] = torch.nan
    return grams.view(2, 5, tasks, tasks)


@pytest.mark.parametrize("tasks", [1, 2, 7, 20])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_stack_of_matrices_has_the_solutions_of_each_alone(solver, tasks):
    """To 1e-9. How duplicated tasks share a weight, and where the search for a solution that isn't there ends,
    depends on rounding, which the size of a stack changes."""
    grams = stack(tasks)
    weights, converged = SOLVERS[solver](grams)
    assert converged.shape == (2, 5)
    for row in range(2):
        for column in range(5):
            alone, whether = SOLVERS[solver](grams[row, column])
            assert converged[row, column] == whether
            unit = unit_diagonal(grams[row, column])
            clear = bool(whether) and lifted(unit.measured)[1] == 0
            together, alone = weights[row, column] * unit.norms, alone * unit.norms
            size = float(alone.abs().max().nan_to_num())
            assert_close(together, alone, rtol=0, atol=(1e-9 if clear else 1e-6) * size, equal_nan=True)
            if whether:
                assert_close(together @ unit.measured, alone @ unit.measured, rtol=0, atol=1e-9 * size)
    assert weights[0, 3].isnan().all()
    assert weights.isnan().flatten(2).any(2).sum() == 1


def test_a_stack_may_have_targets_of_its_own():
    grams = torch.stack([gram_of(jacobian("strong", 4, seed)) for seed in range(3)])
    targets = torch.rand(3, 2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights, _ = project_on_dual_cone(grams, targets)
    for gram, target, weight in zip(grams, targets, weights, strict=True):
        assert_close(weight, project_on_dual_cone(gram, target)[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("tasks", "rank"), [(6, 6), (12, 6), (40, 20)])
def test_projections_are_those_of_non_negative_least_squares(tasks, rank, seed):
    """min |Jᵀ(u + x)| over x ≥ 0, by an active set method on J itself."""
    optimize = pytest.importorskip("scipy.optimize")
    rows = torch.randn(tasks, rank, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    mean = rows.mean(0)
    weights, _ = project_on_dual_cone(gram_of(rows), torch.full((1, tasks), 1 / tasks))
    x, _ = optimize.nnls(rows.T.numpy(), -mean.numpy(), maxiter=1000)
    assert_close(weights[0] @ rows, mean + torch.from_numpy(x) @ rows, rtol=0, atol=1e-6)


@pytest.mark.parametrize("c", [0.4, 1.5])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("tasks", "rank"), [(5, 8), (8, 6)])
def test_the_conflict_averse_direction_is_that_of_a_cone_programme(tasks, rank, seed, c):
    cp = pytest.importorskip("cvxpy")
    rows = torch.randn(tasks, rank, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    mean = rows.mean(0)
    weights, converged = conflict_averse(gram_of(rows), c)
    direction, least = cp.Variable(rank), cp.Variable()
    within = cp.norm(direction - mean.numpy()) <= c * float(mean.norm())
    cp.Problem(cp.Maximize(least), [within, rows.numpy() @ direction >= least]).solve(solver=cp.CLARABEL)
    assert converged
    assert_close((rows @ (weights @ rows)).min(), torch.tensor(float(least.value)).double(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("solver", robustness.SOLVERS)
def test_a_thousand_hard_matrices_are_solved_wherever_they_can_be(solver):
    """Norms from 1e-12 to 1e12, dependent, duplicated, opposite and zero gradients, products of float32."""
    for grams in robustness.grams(3, tasks=(1, 2, 3, 5, 8, 12, 40)):
        answer = robustness.SOLVERS[solver](grams)
        assert answer.weights.isfinite().all()
        assert answer.converged[answer.solvable].all()
        # A product of float32 gradients may be a matrix of which no residual is less than its negative eigenvalue.
        limit = (-4 / 3 * torch.linalg.eigvalsh(unit_diagonal(grams).measured)[:, 0]).clamp(min=1e-6)
        assert (answer.residual <= limit)[answer.solvable].all()


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_solver_leaves_the_number_of_threads_as_it_was(solver):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        SOLVERS[solver](gram_of(jacobian("weak", 3, 0)))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
