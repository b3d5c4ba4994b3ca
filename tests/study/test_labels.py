"""Labels of training rows, and tasks that have few of them in common, by hand."""

import math

import pytest
import torch

from motet.problems.base import Data, Split, Task
from motet.study.labels import few_in_common, labels

NAN = math.nan


def data(**targets):
    tasks = tuple(
        Task(name, "multiclass", "accuracy", 3) if values.dtype == torch.int64 else Task(name, "regression", "mae")
        for name, values in targets.items()
    )
    split = Split(torch.zeros(10, 1), targets)
    return Data(tasks, split, split, split)


A = torch.tensor([1.0, 2, 3, 4, 5, NAN, NAN, NAN, NAN, NAN])
B = torch.tensor([-1, -1, -1, -1, 0, 1, 2, 0, -1, -1])


def test_shares_and_the_pair_with_least_in_common():
    found = labels(data(a=A, b=B, c=torch.zeros(10)))
    assert found.share == pytest.approx({"a": 0.5, "b": 0.4, "c": 1.0})
    assert found.least == ["a", "b"]
    assert found.shared == pytest.approx(1 / 8)


def test_few_rows_in_common_are_a_caution_and_one_task_or_full_labels_are_none():
    assert few_in_common(labels(data(a=A, b=B))).startswith("'a' and 'b' have 12 % of their labelled training rows")
    assert few_in_common(labels(data(a=A))) == few_in_common(None) == ""
    assert few_in_common(labels(data(a=torch.zeros(10), b=torch.zeros(10)))) == ""
