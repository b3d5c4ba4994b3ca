"""Methods on two batches: hypergradients, recurrences by hand, limits, and the peers where they have the method."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from motet.linalg import gram as gram_of
from motet.methods import FORUM, MGDA, MOML, AutoLambda, MoDo, SDMGrad, TwoSampleMethod, get
from motet.methods.simplex import project_on_simplex
from motet.testing import check_method
from tests.matrices import jacobian

NAMES = ["auto-lambda", "moml", "forum", "modo", "sdm-grad"]
OTHERS = [
    lambda: AutoLambda(lr=0.05, init=1.0, main=(0,)),
    lambda: MOML(lr=0.1),
    lambda: FORUM(rho=1.0, eta=0.01, lr=0.1),
    lambda: MoDo(gamma=0.1, rho=0.0),
    lambda: SDMGrad(lambda_=0.0, lr=1.0, momentum=0.0, iterations=5),
]


def two_batches(tasks: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Gradients on two batches that are samples of the same: (K, P) each."""
    rows = jacobian("strong", tasks, seed)
    return rows, rows + 0.5 * jacobian("weak", tasks, seed + 1)


def pair_weights(method: TwoSampleMethod, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    weights = method.pair_weights(gram_of(torch.cat([first, second])))
    return weights[: len(first)], weights[len(first) :]


@pytest.mark.parametrize("name", NAMES)
def test_defaults_keep_what_motet_relies_on(name):
    check_method(name)


@pytest.mark.parametrize("make", OTHERS)
def test_other_options_keep_it_too(make):
    check_method(make)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "forum"])
def test_nothing_is_trained_on_the_second_batch(name):
    method = get(name)
    assert isinstance(method, TwoSampleMethod)
    _, second = pair_weights(method, *two_batches())
    assert (second == 0).all()


# Auto-λ


def unrolled(weights: Tensor, first: Tensor, second: Tensor, eta: float = 1e-3) -> Tensor:
    """The validation losses after a step on linear losses: θ' = -η Σ wₖgₖ from 0, so Fᵢ = vᵢ·θ'."""
    return second @ (-eta * weights @ first)


@pytest.mark.parametrize("main", [None, (1,), (0, 2)])
def test_auto_lambda_descends_the_unrolled_validation_loss(main):
    first, second = two_batches()
    start = torch.full((3,), 0.3, dtype=torch.float64, requires_grad=True)
    primary = [*range(3)] if main is None else list(main)
    (hyper,) = torch.autograd.grad(unrolled(start, first, second)[primary].sum(), start)
    weights, _ = pair_weights(AutoLambda(lr=0.01, init=0.3, main=main), first, second)
    # Adam's first step is lr times the sign.
    assert_close(weights, start.detach() - 0.01 * hyper.sign(), rtol=1e-6, atol=0)


def test_auto_lambda_takes_the_steps_of_adam_on_the_normalised_hypergradient():
    method = AutoLambda(lr=0.02)
    value = torch.full((3,), 0.1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([value], lr=0.02)
    for seed in range(4):
        first, second = two_batches(seed=seed)
        size = first.norm(dim=1).mean() * second.norm(dim=1).mean()
        value.grad = -(first @ second.sum(0)) / size
        optimizer.step()
        assert_close(pair_weights(method, first, second)[0], value.detach(), rtol=1e-9, atol=0)


def test_auto_lambda_learns_where_gradients_are_small():
    first, second = two_batches()
    usual, _ = pair_weights(AutoLambda(lr=0.01), first, second)
    small, _ = pair_weights(AutoLambda(lr=0.01), 1e-9 * first, 1e-9 * second)
    assert_close(small, usual, rtol=1e-9, atol=0)


def test_auto_lambda_without_a_primary_task_in_the_second_batch_stays():
    first, second = two_batches()
    second[1] = 0
    weights, _ = pair_weights(AutoLambda(lr=0.01, main=(1,)), first, second)
    assert_close(weights, torch.full((3,), 0.1, dtype=torch.float64), rtol=1e-12, atol=0)


def test_a_primary_task_that_there_is_not_is_named():
    with pytest.raises(ValueError, match="the task 5 .* there are 3"):
        AutoLambda(main=(5,)).weights(torch.eye(3))


# MOML


def hypergradients(alpha: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """dF/dα of the unrolled step by automatic differentiation: (K, K), row i for the loss i."""
    return torch.autograd.functional.jacobian(lambda a: unrolled(a.softmax(0), first, second), alpha)


def test_moml_moves_along_mgda_of_the_hypergradients():
    method, lr = MOML(lr=0.05), 0.05
    alpha = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([alpha], lr=lr)
    for seed in range(4):
        first, second = two_batches(seed=seed)
        size = first.norm(dim=1).mean() * second.norm(dim=1).mean() * 1e-3
        rows = hypergradients(alpha.detach(), first, second) / size
        alpha.grad = MGDA().direction(rows)
        optimizer.step()
        assert_close(pair_weights(method, first, second)[0], alpha.detach().softmax(0), rtol=1e-5, atol=1e-9)


def test_moml_raises_the_weight_of_the_task_that_helps_the_validation_losses():
    first = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    second = first[[0, 0]]
    weights, _ = pair_weights(MOML(), first, second)
    assert weights[0] > 0.5 > weights[1]


def test_a_task_absent_from_the_second_batch_has_no_say_in_moml():
    first, second = two_batches(4)
    second[1] = 0
    alpha = torch.zeros(4, dtype=torch.float64)
    direction = MGDA().direction(hypergradients(alpha, first, second)[[0, 2, 3]])
    weights, _ = pair_weights(MOML(lr=0.01), first, second)
    assert_close(weights, (-0.01 * direction.sign()).softmax(0), rtol=1e-5, atol=0)


# FORUM


def constraint(weights: Tensor, first: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """∇q with respect to α and θ at α = log w, for losses that are linear: L(θ) - L(θ̃) = η g·g_w."""
    direction = weights @ first
    return eta * (torch.diag(weights) - torch.outer(weights, weights)) @ (first @ direction), direction


@pytest.mark.parametrize("rho", [0.01, 0.3, 3.0])
def test_forum_solves_its_quadratic_programme(rho):
    cp = pytest.importorskip("cvxpy")
    for seed in range(3):
        first, second = two_batches(4, seed)
        unit = second / second.norm(dim=1, keepdim=True)
        slope, direction = constraint(torch.full((4,), 0.25, dtype=torch.float64), first, 0.1)
        d_alpha, d = cp.Variable(4), cp.Variable(first.shape[1])
        gradient = torch.cat([slope, direction]).numpy()
        least = cp.min(unit.numpy() @ d)
        length = cp.sum_squares(d_alpha) + cp.sum_squares(d)
        fast = slope.numpy() @ d_alpha + direction.numpy() @ d >= rho * float(gradient @ gradient)
        cp.Problem(cp.Maximize(least - 0.5 * length), [fast]).solve(solver="CLARABEL")
        on_first, on_second = pair_weights(FORUM(rho, 0.1), first, second)
        update = on_first @ first + on_second @ second
        expected = torch.from_numpy(np.array(d.value))
        assert_close(update, expected, rtol=1e-4, atol=1e-4 * float(expected.norm()))


@given(st.integers(0, 1000), st.floats(0.01, 5.0))
def test_forum_keeps_its_constraint_on_the_training_loss_in_the_first_step(seed, rho):
    first, second = two_batches(4, seed)
    slope, direction = constraint(torch.full((4,), 0.25, dtype=torch.float64), first, 0.1)
    on_first, on_second = pair_weights(FORUM(rho, 0.1), first, second)
    nu = on_first.sum()
    progress = nu * (slope @ slope) + direction @ (on_first @ first + on_second @ second)
    square = slope @ slope + direction @ direction
    assert progress >= rho * square * (1 - 1e-9)


def test_forum_is_mgda_of_the_unit_validation_gradients_where_training_falls_fast_enough():
    first = jacobian("weak", 3, 0).abs()
    second = first + 0.1
    on_first, on_second = pair_weights(FORUM(rho=1e-6), first, second)
    unit = second / second.norm(dim=1, keepdim=True)
    assert (on_first == 0).all()
    assert_close(on_second @ second, MGDA().direction(unit), rtol=1e-5, atol=1e-6)


def test_a_task_absent_from_the_second_batch_does_not_stop_the_others_in_forum():
    first, second = two_batches(4)
    second[1] = 0
    method = FORUM()
    on_first, on_second = pair_weights(method, first, second)
    assert on_second[1] == 0
    assert_close((on_second * second.norm(dim=1)).sum(), torch.tensor(1.0, dtype=torch.float64))
    on_first, on_second = pair_weights(FORUM(rho=0.5), first, 0 * second)
    assert_close(on_first, torch.full((4,), 0.125, dtype=torch.float64))


def test_forum_lowers_the_weight_of_what_training_learns_fast():
    first = torch.tensor([[10.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    method = FORUM(rho=1.0, lr=0.1)
    pair_weights(method, first, -first)
    on_first, _ = pair_weights(method, first, -first)
    assert on_first[0] < on_first[1]


# MoDo


def brute_projection(point: Tensor) -> Tensor:
    """The simplex's nearest point by bisection on the level."""
    low, high = point.min() - 2, point.max()
    for _ in range(200):
        level = (low + high) / 2
        low, high = (level, high) if (point - level).clamp(min=0).sum() > 1 else (low, level)
    return (point - high).clamp(min=0)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=8))
def test_the_projection_on_the_simplex_is_the_nearest_point(values):
    point = torch.tensor(values, dtype=torch.float64)
    assert_close(project_on_simplex(point), brute_projection(point), rtol=0, atol=1e-12)


@given(st.lists(st.floats(-1e25, 1e25), min_size=1, max_size=8))
def test_the_projection_sums_to_one_whatever_the_numbers(values):
    projected = project_on_simplex(torch.tensor(values, dtype=torch.float64))
    assert (projected >= 0).all()
    assert_close(projected.sum(), torch.tensor(1.0, dtype=torch.float64))


def test_two_steps_of_modo_by_hand():
    method = MoDo(gamma=0.1, rho=0.5)
    cross = torch.tensor([[1.0, -1.0], [0.0, 2.0]], dtype=torch.float64)
    first, second = torch.eye(2, dtype=torch.float64), cross.T
    # From (½, ½): G₁G₂ᵀλ + ρλ = (0, 1) + (¼, ¼), so λ - γ(…) = (0.475, 0.375), whose sum lacks 0.15.
    weights, _ = pair_weights(method, first, second)
    assert_close(weights, torch.tensor([0.55, 0.45], dtype=torch.float64))
    # Then (0.1, 0.9) + (0.275, 0.225) = (0.375, 1.125): (0.5125, 0.3375), which lacks 0.15 again.
    weights, _ = pair_weights(method, first, second)
    assert_close(weights, torch.tensor([0.5875, 0.4125], dtype=torch.float64))


def test_modo_is_torchjd_s_on_the_same_matrix():
    aggregation = pytest.importorskip("torchjd.aggregation")
    method, peer = MoDo(gamma=0.05, rho=0.2), aggregation.MoDoWeighting(gamma=0.05, rho=0.2)
    for seed in range(5):
        first, second = two_batches(4, seed)
        assert_close(pair_weights(method, first, second)[0], peer(first @ second.T), rtol=1e-9, atol=1e-12)


def test_many_steps_of_modo_on_one_batch_are_mgda():
    rows = jacobian("weak", 3, 1)
    method = MoDo(gamma=0.02, rho=0.0)
    for _ in range(2000):
        weights = method.weights(gram_of(rows))
    assert_close(weights, MGDA().weights(gram_of(rows)), rtol=1e-4, atol=1e-6)


def test_modo_s_absent_tasks_come_back_with_their_weight():
    method, gram = MoDo(gamma=0.1), gram_of(jacobian("weak", 3, 0))
    before = method.weights(gram)
    with method.on_tasks(torch.tensor([0, 2]), 3):
        present = method.weights(gram[[0, 2]][:, [0, 2]])
    assert_close(present.sum(), torch.tensor(1.0, dtype=torch.float64))
    assert torch.equal(method.state_dict()["lambda"][1], before[1])


# SDMGrad


@pytest.mark.parametrize("iterations", [1, 20])
def test_sdm_grad_is_torchjd_s_on_one_batch(iterations):
    aggregation = pytest.importorskip("torchjd.aggregation")
    method, peer = SDMGrad(iterations=iterations), aggregation.SDMGradWeighting(n_iter=iterations)
    for seed in range(4):
        gram = gram_of(10 * jacobian("strong", 4, seed))
        # Theirs has (mean of roots)² + 1e-8 as the divisor.
        assert_close(method.weights(gram), peer(gram), rtol=1e-3, atol=1e-6)


def test_sdm_grad_is_torchjd_s_on_two_batches_but_for_the_divisor():
    aggregation = pytest.importorskip("torchjd.aggregation")
    first, second = two_batches(4)
    cross = first @ second.T
    theirs = cross.diagonal().clamp(min=0).sqrt().mean() ** 2
    ours = first.norm(dim=1).mean() * second.norm(dim=1).mean()
    peer = aggregation.SDMGradWeighting(lr=float(2.0 * theirs / ours), n_iter=7)
    assert_close(pair_weights(SDMGrad(lr=2.0, iterations=7), first, second)[0], peer(cross), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("lambda_", [0.0, 0.3, 2.0])
def test_sdm_grad_with_short_steps_finds_the_minimum(lambda_):
    cp = pytest.importorskip("cvxpy")
    rows = jacobian("weak", 4, 2)
    w = cp.Variable(4, nonneg=True)
    objective = cp.sum_squares(rows.numpy().T @ (w + lambda_ / 4))
    cp.Problem(cp.Minimize(objective), [cp.sum(w) == 1]).solve(solver="CLARABEL")
    expected = (torch.from_numpy(np.array(w.value)) + lambda_ / 4) / (1 + lambda_)
    weights = SDMGrad(lambda_, lr=0.2, iterations=500).weights(gram_of(rows))
    assert_close(weights, expected, rtol=1e-4, atol=1e-5)


def test_sdm_grad_tends_to_the_mean_gradient():
    weights = SDMGrad(lambda_=1e6).weights(gram_of(jacobian("strong", 4, 0)))
    assert_close(weights, torch.full((4,), 0.25, dtype=torch.float64), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("cls", "options", "named"),
    [
        (AutoLambda, {"lr": -1.0}, "lr"),
        (AutoLambda, {"init": 0.0}, "init"),
        (AutoLambda, {"main": ()}, "main"),
        (AutoLambda, {"main": (-1,)}, "main"),
        (MOML, {"lr": -1.0}, "lr"),
        (FORUM, {"rho": 0.0}, "rho"),
        (FORUM, {"eta": 0.0}, "eta"),
        (MoDo, {"gamma": 0.0}, "gamma"),
        (MoDo, {"rho": -1.0}, "rho"),
        (SDMGrad, {"lambda_": -1.0}, "lambda_"),
        (SDMGrad, {"momentum": 1.0}, "momentum"),
        (SDMGrad, {"iterations": 0}, "iterations"),
    ],
)
def test_an_option_out_of_range_is_named(cls, options, named):
    with pytest.raises(ValueError, match=named):
        cls(**options)
