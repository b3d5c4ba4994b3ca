"""FAMO: its weights, what it learns, and from what."""

import logging

import pytest
import torch
from torch.testing import assert_close

from motet.methods import FAMO

LOSSES = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)


def test_the_first_weights_are_inverse_losses_that_sum_to_one():
    assert_close(FAMO().weights(LOSSES), torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64) / 7)


def test_a_task_that_gained_more_counts_less_afterwards():
    method = FAMO()
    before = method.weights(LOSSES)
    method.update(LOSSES * torch.tensor([0.5, 1.0, 1.0], dtype=torch.float64))
    after = method.weights(LOSSES)
    assert after[0] < before[0]
    assert after[1] > before[1]


def test_equal_relative_gains_teach_nothing():
    method = FAMO(gamma=0.0)
    before = method.weights(LOSSES)
    method.update(LOSSES * 0.5)
    assert_close(method.weights(LOSSES), before)


def test_without_feedback_the_next_losses_are_used_and_the_log_says_so_once(caplog):
    blind, told = FAMO(), FAMO()
    after = LOSSES * torch.tensor([0.5, 1.0, 1.1], dtype=torch.float64)
    with caplog.at_level(logging.WARNING, logger="motet"):
        told.weights(LOSSES)
        told.update(after)
        assert not caplog.records
        for losses in (LOSSES, after, after * 0.9):
            blind.weights(losses)
    assert [record.message for record in caplog.records if "update()" in record.message] == [caplog.messages[0]]
    assert_close(blind.state_dict()["logits"] != 0, torch.ones(3, dtype=torch.bool))


def test_feedback_is_taken_once():
    method = FAMO()
    method.weights(LOSSES)
    method.update(LOSSES * 0.5 ** torch.arange(3))
    learned = method.state_dict()["logits"]
    method.update(LOSSES * 0.1)
    assert torch.equal(method.state_dict()["logits"], learned)


def test_only_tasks_that_wait_for_feedback_learn():
    method = FAMO()
    method.weights(LOSSES)
    with method.on_tasks(torch.tensor([0, 1]), 3):
        method.update(LOSSES[:2] * torch.tensor([0.5, 0.9], dtype=torch.float64))
    logits = method.state_dict()["logits"]
    assert (logits[:2] != 0).all()
    assert logits[2] == 0


def test_the_lower_bound_is_where_losses_are_counted_from():
    shifted = FAMO(lower_bound=-3.0).weights(LOSSES - 3)
    assert_close(shifted, FAMO().weights(LOSSES))


def test_a_loss_below_the_bound_says_how_to_move_it():
    with pytest.raises(ValueError, match="FAMO needs losses above 0; loss 1 is not: set lower_bound below it"):
        FAMO().weights(torch.tensor([1.0, -0.3]))
