"""The masked losses: labelled rows alone count, and a task without any is absent."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from torch.testing import assert_close

from motet.losses import labelled, task_loss
from motet.problems import Task

TASKS = {
    "regression": Task("depth", "regression", "mae"),
    "binary": Task("click", "binary", "auroc"),
    "multiclass": Task("kind", "multiclass", "accuracy", classes=4),
}


def batch(kind, rows, missing, seed=0):
    """Outputs, and targets of which those in ``missing`` have no label."""
    generator = torch.Generator().manual_seed(seed)
    task = TASKS[kind]
    outputs = torch.randn(rows, task.outputs, generator=generator)
    if kind == "multiclass":
        targets = torch.randint(0, 4, (rows,), generator=generator)
        targets[missing] = -1
    else:
        targets = torch.randn(rows, generator=generator)
        targets = (targets > 0).float() if kind == "binary" else targets
        targets[missing] = torch.nan
    return task, outputs, targets


def plain_loss(kind, outputs, targets):
    if kind == "multiclass":
        return functional.cross_entropy(outputs, targets)
    if kind == "binary":
        return functional.binary_cross_entropy_with_logits(outputs[:, 0], targets)
    return ((outputs[:, 0] - targets) ** 2).mean()


@pytest.mark.parametrize("kind", TASKS)
@settings(deadline=None, max_examples=25)
@given(rows=st.integers(1, 12), data=st.data())
def test_the_loss_is_the_plain_mean_over_labelled_rows(kind, rows, data):
    missing = torch.tensor(data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows)))
    task, outputs, targets = batch(kind, rows, missing)
    loss = task_loss(task, outputs, targets)
    if missing.all():
        assert loss is None
    else:
        assert_close(loss, plain_loss(kind, outputs[~missing], targets[~missing]))


@pytest.mark.parametrize("kind", TASKS)
def test_unlabelled_rows_get_no_gradient_even_where_their_output_is_infinite(kind):
    missing = torch.tensor([False, True, False])
    task, outputs, targets = batch(kind, 3, missing)
    outputs[1] = torch.inf
    outputs.requires_grad_()
    task_loss(task, outputs, targets).backward()
    assert outputs.grad.isfinite().all()
    assert not outputs.grad[1].any()
    assert outputs.grad[0].any()


@pytest.mark.parametrize("kind", TASKS)
def test_which_rows_are_labelled(kind):
    missing = torch.tensor([True, False, True, False])
    task, _, targets = batch(kind, 4, missing)
    assert labelled(task, targets).tolist() == [False, True, False, True]


def test_a_column_is_not_compared_with_a_row():
    with pytest.raises(ValueError, match=r"'depth' needs outputs \(N, 1\).*\(3, 1\) and \(3, 1\)"):
        task_loss(TASKS["regression"], torch.zeros(3, 1), torch.zeros(3, 1))
    with pytest.raises(ValueError, match=r"'kind' needs outputs \(N, 4\)"):
        task_loss(TASKS["multiclass"], torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64))


def test_half_precision_outputs_give_a_loss_in_single():
    task, outputs, targets = batch("regression", 8, torch.zeros(8, dtype=torch.bool))
    loss = task_loss(task, outputs.bfloat16(), targets)
    assert loss.dtype == torch.float32
    assert_close(loss, ((outputs.bfloat16().float()[:, 0] - targets) ** 2).mean())


def test_double_outputs_stay_double():
    task, outputs, targets = batch("binary", 8, torch.zeros(8, dtype=torch.bool))
    assert task_loss(task, outputs.double(), targets).dtype == torch.float64
