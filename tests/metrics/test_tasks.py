"""The tasks' metrics against their definitions, on the edges of what is defined."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from motet.metrics import METRICS
from motet.problems import Task

NUMBER = Task("price", "regression", "mae", scale=20.0, unit="EUR")
BINARY = Task("click", "binary", "auroc")
CLASSES = Task("kind", "multiclass", "accuracy", classes=3)


def column(*values):
    return torch.tensor(values)[:, None]


def test_errors_are_in_the_unit_of_the_target():
    outputs, targets = column(0.0, 1.0, 5.0), torch.tensor([1.0, 4.0, torch.nan])
    assert METRICS["mae"](outputs, targets, NUMBER) == pytest.approx(20 * 2)
    assert METRICS["rmse"](outputs, targets, NUMBER) == pytest.approx(20 * math.sqrt(5))


def test_accuracy_is_the_share_of_labelled_rows_that_are_right():
    outputs = torch.eye(3)[[0, 1, 2, 0, 0]]
    assert METRICS["accuracy"](outputs, torch.tensor([0, 1, 0, -1, -1]), CLASSES) == pytest.approx(2 / 3)
    targets = torch.tensor([1.0, 0.0, 0.0, torch.nan])
    assert METRICS["accuracy"](column(0.2, -0.1, 3.0, 1.0), targets, BINARY) == pytest.approx(2 / 3)


@settings(deadline=None, max_examples=40)
@given(
    scores=st.lists(st.integers(-4, 4), min_size=4, max_size=30),
    scale=st.sampled_from([1e-6, 1.0, 40.0, 1e6]),
    data=st.data(),
)
def test_auroc_is_of_ranks_whatever_the_scale_of_the_logits(scores, scale, data):
    """With logits of 40 and more a sigmoid in float32 is exactly 1, and would make ties."""
    labels = data.draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores)))
    found = METRICS["auroc"](column(*[score * scale for score in scores]), torch.tensor(labels).float(), BINARY)
    if len(set(labels)) < 2:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(roc_auc_score(labels, np.array(scores)), abs=1e-6)


@pytest.mark.parametrize("name", ["auroc", "accuracy"])
def test_a_model_that_diverged_has_no_score(name):
    assert math.isnan(METRICS[name](column(torch.nan, 1.0), torch.tensor([1.0, 0.0]), BINARY))


def test_a_nan_in_an_unlabelled_row_does_not_matter():
    assert METRICS["mae"](column(torch.nan, 1.0), torch.tensor([torch.nan, 0.0]), NUMBER) == pytest.approx(20)


@pytest.mark.parametrize(("name", "task"), [("mae", NUMBER), ("rmse", NUMBER), ("auroc", BINARY), ("accuracy", BINARY)])
def test_without_labels_a_metric_is_undefined(name, task):
    assert math.isnan(METRICS[name](column(1.0, 2.0), torch.full((2,), torch.nan), task))


@pytest.mark.parametrize(("name", "task"), [("mae", BINARY), ("auroc", CLASSES), ("accuracy", NUMBER)])
def test_a_metric_of_another_kind_is_refused(name, task):
    with pytest.raises(ValueError, match=f"task {task.name!r} is {task.kind} and can't be judged by {name!r}"):
        METRICS[name](torch.zeros(2, task.outputs), torch.zeros(2), task)


def test_directions():
    assert {name for name, metric in METRICS.items() if metric.higher_is_better} == {"accuracy", "auroc"}
    assert all(name == metric.name for name, metric in METRICS.items())
