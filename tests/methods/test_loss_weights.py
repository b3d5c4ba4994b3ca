"""SI, GLS, UW, IMTL-L, DWA and STCH: where they settle, and what tasks that come and go do to them."""

import pytest
import torch
from torch.testing import assert_close

from motet.methods import DWA, GLS, IMTLL, SI, STCH, UW

LOSSES = torch.tensor([0.5, 2.0], dtype=torch.float64)


def test_gls_is_si_times_the_mean_loss():
    assert_close(GLS().weights(LOSSES), SI().weights(LOSSES) * (0.5 * 2.0) ** 0.5 / 2)


def test_gls_does_not_overflow():
    weights = GLS().weights(torch.full((200,), 1e12, dtype=torch.float64))
    assert_close(weights, torch.full((200,), 1 / 200, dtype=torch.float64))


@pytest.mark.parametrize(("make", "share"), [(UW, 0.5), (IMTLL, 1.0)])
def test_learned_weights_settle_at_inverse_losses(make, share):
    method = make()
    for _ in range(2000):
        weights = method.weights(LOSSES)
    assert_close(weights, share / LOSSES, rtol=1e-3, atol=0)


def test_imtl_l_is_twice_uw():
    one, two = UW(), IMTLL()
    for step in range(20):
        losses = LOSSES + 0.1 * step
        assert_close(two.weights(losses), 2 * one.weights(losses), rtol=1e-6, atol=0)


def test_an_absent_task_learns_as_if_the_steps_without_it_had_not_been():
    sparse, dense = UW(), UW()
    for step in range(10):
        rows = torch.tensor([0, 1] if step % 2 else [0])
        with sparse.on_tasks(rows, 2):
            sparse.weights(LOSSES[rows] + step)
        if step % 2:
            dense.weights(LOSSES[1:] + step)
    assert_close(sparse.state_dict()["log_variance"][1:], dense.state_dict()["log_variance"])


def test_dwa_favours_the_task_that_stands_still():
    method = DWA(window=3)
    for step in range(6):
        weights = method.weights(torch.tensor([1.0, 0.8**step]))
        assert_close(weights, torch.ones(2, dtype=torch.float64))
    weights = method.weights(torch.tensor([1.0, 0.2]))
    newer, older = sum(0.8**k for k in (3, 4, 5)), sum(0.8**k for k in (0, 1, 2))
    rates = torch.tensor([1.0, newer / older], dtype=torch.float64)
    assert_close(weights, 2 * torch.softmax(rates / 2, 0), rtol=1e-6, atol=0)


def test_stch_turns_to_the_task_that_is_worst_off_against_its_start():
    method = STCH(mu=0.1, warmup=4)
    for _ in range(4):
        assert_close(method.weights(LOSSES), 1 / LOSSES)
    lagging = torch.tensor([0.5, 0.5], dtype=torch.float64)
    say = method.weights(lagging) * lagging
    assert_close(say.sum(), torch.tensor(2.0, dtype=torch.float64))
    assert say[0] > 1.99


def test_a_task_that_joins_late_warms_up_alone():
    method = STCH(warmup=2)
    for _ in range(3):
        with method.on_tasks(torch.tensor([0]), 2):
            method.weights(LOSSES[:1])
    with method.on_tasks(torch.tensor([0, 1]), 2):
        weights = method.weights(LOSSES)
    assert_close(weights, 1 / LOSSES)
