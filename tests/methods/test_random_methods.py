"""RLW, PCGrad and GradDrop, given their random order."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from motet.linalg import gram as gram_of
from motet.methods import RLW, GradDrop, PCGrad, UPGrad
from motet.methods.grad_drop import keep_one_sign
from motet.methods.pcgrad import surgery
from tests.matrices import jacobian, jacobians


@given(jacobians(full_rank=True), st.integers(0, 100))
def test_pcgrad_is_permuted_with_its_order(matrix, seed):
    generator = torch.Generator().manual_seed(seed)
    tasks = len(matrix)
    order = torch.rand(tasks, tasks, generator=generator).argsort(1)
    permutation = torch.randperm(tasks, generator=generator)
    place = permutation.argsort()  # where an old task is now
    gram = gram_of(matrix)
    expected = surgery(gram, order)[permutation][:, permutation]
    actual = surgery(gram[permutation][:, permutation], place[order][permutation])
    assert_close(actual, expected, rtol=1e-9, atol=1e-12 * float(expected.abs().max()))


@given(jacobians(full_rank=True), st.integers(0, 100))
def test_grad_drop_is_indifferent_to_the_tasks_order_given_its_draws(matrix, seed):
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand(matrix.shape[1], generator=generator, dtype=matrix.dtype)
    permuted = matrix[torch.randperm(len(matrix), generator=generator)]
    assert_close(keep_one_sign(permuted, draw), keep_one_sign(matrix, draw))


def test_pcgrad_of_two_tasks_is_twice_upgrad(conflicting_jacobian):
    assert_close(
        PCGrad().direction(conflicting_jacobian), 2 * UPGrad().direction(conflicting_jacobian), rtol=1e-6, atol=0
    )


def test_pcgrad_without_conflict_is_the_sum():
    rows = jacobian("weak", 4, 0).abs()
    assert_close(PCGrad().direction(rows), rows.sum(0))


def test_pcgrad_takes_out_exactly_what_conflicts_with_the_last_task_in_turn():
    rows = jacobian("strong", 5, 0)
    order = torch.arange(5).expand(5, 5)
    projected = surgery(gram_of(rows), order) @ rows
    assert (projected[:4] @ rows[4] >= -1e-9).all()


def test_pcgrad_orders_differ_between_steps():
    method, gram = PCGrad(torch.Generator().manual_seed(0)), gram_of(jacobian("strong", 6, 0))
    assert not torch.equal(method.weights(gram), method.weights(gram))


def test_grad_drop_keeps_columns_of_one_sign_whole():
    rows = jacobian("weak", 3, 0).abs()
    assert_close(GradDrop().direction(rows), rows.sum(0))
    assert_close(GradDrop().direction(-rows), -rows.sum(0))


def test_grad_drop_picks_a_sign_as_often_as_it_has_mass():
    rows = torch.tensor([[3.0], [-1.0]]).expand(2, 40_000)
    direction = GradDrop(torch.Generator().manual_seed(0)).direction(rows)
    assert set(direction.unique().tolist()) == {3.0, -1.0}
    share = (direction > 0).double().mean()
    assert abs(share - 0.75) < 0.01  # Standard deviation 0.002.


def test_rlw_weights_are_even_on_average():
    method = RLW(torch.Generator().manual_seed(0))
    draws = torch.stack([method.weights(torch.ones(4)) for _ in range(4000)])
    assert_close(draws.sum(1), torch.ones(4000, dtype=torch.float64))
    assert_close(draws.mean(0), torch.full((4,), 0.25, dtype=torch.float64), rtol=0, atol=0.015)
