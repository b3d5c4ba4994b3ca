"""AutoScale: a look at the gradients, then fixed weights that need none."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from motet import Balancer
from motet.linalg import gram
from motet.methods import AutoScale
from motet.testing import check_method
from tests.matrices import jacobian

ONES = torch.ones(3, dtype=torch.float64)


def grams(steps: int) -> list[torch.Tensor]:
    return [gram(jacobian("scaled", 3, seed)) for seed in range(steps)]


@pytest.mark.parametrize("probe", [1, 2, 100])
def test_it_keeps_what_motet_relies_on(probe):
    check_method(lambda: AutoScale(probe=probe))


def test_the_weights_make_the_gradients_equally_long_in_geometric_mean():
    method = AutoScale(probe=4)
    for step, matrix in enumerate(grams(4), start=1):
        weights = method.weights(matrix)
        norms = torch.stack([each.diagonal().sqrt() for each in grams(step)])
        level = norms.prod(0) ** (1 / step)
        assert_close(weights, 3 / level / (1 / level).sum())


def test_the_first_weights_are_those_of_the_greatest_magnitude_similarity():
    """Against a search over the simplex, for two tasks."""
    matrix = gram(jacobian("scaled", 2, 1))
    first, second = matrix.diagonal().sqrt().tolist()
    share = torch.linspace(0.001, 0.999, 9999, dtype=torch.float64)
    one, other = share * first, (1 - share) * second
    best = share[(2 * one * other / (one**2 + other**2)).argmax()]
    assert_close(AutoScale().weights(matrix)[0] / 2, best, rtol=0, atol=2e-4)


def test_after_the_probe_weights_are_known_and_fixed():
    method = AutoScale(probe=3)
    for matrix in grams(3):
        assert method.known_weights(ONES) is None
        last = method.weights(matrix)
    for losses in (ONES, ONES * 7):
        assert_close(method.known_weights(losses), last)
    assert_close(method.weights(torch.eye(3)), last)


def test_a_task_that_joins_late_is_looked_at_before_gradients_are_saved():
    method = AutoScale(probe=1)
    with method.on_tasks(torch.tensor([0, 1]), 3):
        method.weights(torch.eye(2))
        assert method.known_weights(ONES[:2]) is not None
    assert method.known_weights(ONES) is None
    weights = method.weights(torch.eye(3) * 4)
    assert_close(weights, torch.tensor([1.2, 1.2, 0.6], dtype=torch.float64))
    assert_close(method.known_weights(ONES), weights)


def test_steps_without_a_gradient_are_passed_over_and_do_not_hold_the_probe_up():
    method = AutoScale(probe=2)
    method.weights(torch.diag(torch.tensor([1.0, 4.0, 0.0])))
    method.weights(torch.diag(torch.tensor([1.0, 0.0, 0.0])))
    assert_close(method.known_weights(ONES), torch.tensor([4 / 3, 2 / 3, 1.0], dtype=torch.float64))


@given(exponents=st.lists(st.floats(-6, 6), min_size=3, max_size=3))
def test_the_scale_of_one_loss_leaves_the_direction(exponents):
    scale = 10 ** torch.tensor(exponents, dtype=torch.float64)
    one, other = AutoScale(), AutoScale()
    for matrix in grams(3):
        expected = one.weights(matrix)
        actual = other.weights(matrix * scale[:, None] * scale) * scale
    assert_close(actual / actual.sum(), expected / expected.sum())


def test_in_a_balancer_later_steps_cost_a_plain_backward():
    torch.manual_seed(0)
    trunk, heads = torch.nn.Linear(4, 5), [torch.nn.Linear(5, 1) for _ in range(3)]
    balancer = Balancer(AutoScale(probe=2), route="exact")
    costs = []
    for _ in range(4):
        features = trunk(torch.randn(8, 4)).tanh()
        losses = {f"task {n}": (n + 1) * (head(features) ** 2).mean() for n, head in enumerate(heads)}
        costs.append(balancer.backward(losses, shared=trunk.parameters()).cost.trunk_backwards)
    assert costs == [3, 3, 1, 1]


def test_probe_must_be_at_least_one():
    with pytest.raises(ValueError, match="probe"):
        AutoScale(probe=0)
