"""Methods that serve one main task with the others."""

import pytest
import torch
from hypothesis import given
from torch import Tensor
from torch.testing import assert_close

from motet.linalg import gram as gram_of
from motet.methods import OLAUX, GradSim, MetaBalance, Sum
from motet.testing import check_method
from tests.matrices import jacobian, jacobians

NAMES = ["meta-balance", "grad-sim", "ol-aux"]
OTHERS = [
    lambda: MetaBalance(relax=1.0, beta=0.0),
    lambda: GradSim(weighted=True),
    lambda: OLAUX(steps=1, lr=0.1),
]


@pytest.mark.parametrize("name", NAMES)
def test_defaults_keep_what_motet_relies_on(name):
    check_method(name)


@pytest.mark.parametrize("make", OTHERS)
def test_other_options_keep_it_too(make):
    check_method(make)


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def lengths(*values: float) -> Tensor:
    """The Gram matrix of orthogonal gradients of these lengths."""
    return torch.diag(double(*values) ** 2)


# MetaBalance


@given(jacobians(full_rank=True))
def test_full_balance_brings_every_gradient_to_the_main_one_s_length(matrix):
    weights = MetaBalance(main=len(matrix) - 1, relax=1.0, beta=0.0).weights(gram_of(matrix))
    norms = matrix.norm(dim=1)
    assert_close(weights * norms, norms[-1].expand(len(norms)))


def test_no_balance_is_the_plain_sum():
    assert_close(MetaBalance(relax=0.0).weights(lengths(1, 2, 3)), Sum().weights(torch.ones(3)).double())


def test_two_steps_of_meta_balance_by_hand():
    method = MetaBalance(main=1, relax=0.5, beta=0.5)
    # Norms 4 and 2: 0.5·2/4 + 0.5.
    assert_close(method.weights(lengths(4, 2)), double(0.75, 1.0))
    # Averages 0.5·(0.5·4) + 0.5·1 = 1.5 and 0.5·(0.5·2) + 0.5·6 = 3.5, over 1 - 0.25 both: 0.5·3.5/1.5 + 0.5.
    assert_close(method.weights(lengths(1, 6)), double(0.5 * 7 / 3 + 0.5, 1.0))


def test_meta_balance_takes_its_last_average_where_the_main_task_is_absent():
    method = MetaBalance(main=0, relax=1.0, beta=0.5)
    method.weights(lengths(2, 1, 1))
    with method.on_tasks(torch.tensor([1, 2]), 3):
        weights = method.weights(lengths(4, 1))
    # The main average is still 2, corrected for its one step; the others are (1, 4) and (1, 1) averaged.
    assert_close(weights, double(2 / ((0.25 * 1 + 0.5 * 4) / 0.75), 2.0))


def test_meta_balance_before_the_main_task_was_ever_seen_is_the_plain_sum():
    method = MetaBalance(main=0)
    with method.on_tasks(torch.tensor([1, 2]), 3):
        assert_close(method.weights(lengths(4, 1)), double(1, 1))


# GradSim


@given(jacobians())
def test_the_update_never_goes_against_the_main_task(matrix):
    for weighted in (False, True):
        direction = GradSim(weighted=weighted).direction(matrix)
        floor = matrix[0] @ matrix[0]
        size = matrix.norm(dim=1).sum() * matrix[0].norm()
        assert matrix[0] @ direction >= floor - 1e-9 * size


def test_grad_sim_by_hand():
    rows = torch.tensor([[1.0, 0.0], [3.0, 4.0], [-1.0, 5.0], [0.0, 2.0]], dtype=torch.float64)
    assert_close(GradSim().weights(gram_of(rows)), double(1, 1, 0, 1))
    assert_close(GradSim(weighted=True).weights(gram_of(rows)), double(1, 0.6, 0, 0))
    assert_close(GradSim(main=2).weights(gram_of(rows)), double(0, 1, 1, 1))


def test_grad_sim_without_the_main_task_judges_nobody():
    gram = gram_of(jacobian("strong", 2, 0))
    for weighted, expected in ((False, double(1, 1)), (True, double(0, 0))):
        method = GradSim(main=1, weighted=weighted)
        with method.on_tasks(torch.tensor([0, 2]), 3):
            assert_close(method.weights(gram), expected)


# OL-AUX


def test_ol_aux_by_hand():
    method = OLAUX(main=0, steps=2, lr=0.1)
    rows = torch.tensor([[1.0, 0.0], [3.0, 4.0], [-2.0, 5.0]], dtype=torch.float64)
    assert_close(method.weights(gram_of(rows)), double(1, 1, 1))
    assert_close(method.weights(gram_of(2 * rows)), double(1, 1, 1))
    # The products with the main gradient were (3, -2) and four times that.
    assert_close(method.weights(gram_of(rows)), double(1, 1 + 0.1 * 15, 1 - 0.1 * 10))
    # The sums start again.
    method.weights(gram_of(rows))
    assert_close(method.weights(gram_of(rows)), double(1, 2.5 + 0.1 * 6, 0 - 0.1 * 4))


def test_the_weights_of_ol_aux_climb_what_the_main_loss_falls():
    """d/dw of L_main(θ - α(g_main + Σ wₖgₖ)) for a linear main loss is -α g_main·gₖ."""
    rows = jacobian("weak", 3, 0)
    w = torch.ones(2, dtype=torch.float64, requires_grad=True)
    fall = rows[0] @ (rows[0] + w @ rows[1:])
    (slope,) = torch.autograd.grad(fall, w)
    method = OLAUX(steps=1, lr=0.5)
    method.weights(gram_of(rows))
    assert_close(method.weights(gram_of(rows))[1:], 1 + 0.5 * slope)


def test_an_auxiliary_task_learns_only_in_steps_with_the_main_task():
    method = OLAUX(main=0, steps=1, lr=0.1)
    rows = jacobian("weak", 3, 0)
    with method.on_tasks(torch.tensor([1, 2]), 3):
        method.weights(gram_of(rows[1:]))
    assert_close(method.weights(gram_of(rows)), double(1, 1, 1))
    assert (method.weights(gram_of(rows))[1:] != 1).all()


@pytest.mark.parametrize("cls", [MetaBalance, GradSim, OLAUX])
def test_a_main_task_that_there_is_not_is_named(cls):
    with pytest.raises(ValueError, match="the task 3 .* there are 3"):
        cls(main=3).weights(torch.eye(3))


@pytest.mark.parametrize(
    ("cls", "options", "named"),
    [
        (MetaBalance, {"main": -1}, "main"),
        (MetaBalance, {"main": "depth"}, "main"),
        (MetaBalance, {"relax": 1.1}, "relax"),
        (MetaBalance, {"beta": 1.0}, "beta"),
        (GradSim, {"main": 0.5}, "main"),
        (OLAUX, {"steps": 0}, "steps"),
        (OLAUX, {"lr": 0.0}, "lr"),
    ],
)
def test_an_option_out_of_range_is_named(cls, options, named):
    with pytest.raises(ValueError, match=named):
        cls(**options)
