"""The conformance check finds what it says it finds."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from motet.problems import Problem, Task
from motet.problems.assemble import assemble, cut, standardise
from motet.problems.splits import random
from motet.testing import check_problem

TASKS = (
    Task("price", "regression", "mae"),
    Task("click", "binary", "auroc"),
    Task("kind", "multiclass", "accuracy", classes=3),
)


COUNTER = iter(range(1000))
"""For a loader that heeds no seed."""


def good(seed):
    generator = np.random.default_rng(7)
    inputs = generator.normal(size=(100, 5))
    values = {"price": inputs[:, 0] * 3, "click": generator.integers(0, 2, 100), "kind": np.arange(100) % 3}
    parts = random(100, seed)
    targets = {name: cut(column, parts) for name, column in values.items()}
    return assemble(TASKS, standardise(cut(inputs, parts)), targets)


def problem(load=good, **options):
    return Problem("demo", "demo", "made here", load, **options)


def spoil(part="train", **changes):
    """A loader whose part has other inputs or targets."""

    def load(seed):
        data = good(seed)
        split = getattr(data, part)
        targets = {name: changes.get(name, lambda t: t)(values.clone()) for name, values in split.targets.items()}
        inputs = changes.get("inputs", lambda x: x)(split.inputs.clone())
        return replace(data, **{part: replace(split, inputs=inputs, targets=targets)})

    return load


def with_tasks(**changes):
    return lambda seed: replace(good(seed), tasks=tuple(replace(task, **changes) for task in good(seed).tasks))


def moves_generator(seed):
    np.random.rand()  # noqa: NPY002
    torch.rand(1)
    return good(seed)


def leaks(seed):
    data = good(seed)
    return replace(data, test=data.train)


def frozen(inputs, training):
    return torch.nn.Linear(inputs.shape[1], training.width, bias=False).requires_grad_(False)


def test_a_problem_that_keeps_its_promises_passes():
    check_problem(problem())


@pytest.mark.parametrize(
    ("load", "fault"),
    [
        (lambda _: good(0), "give the same split"),
        (lambda _: good(next(COUNTER)), "gives other data the second time"),
        (moves_generator, "load moves the global generator of numpy"),
        (moves_generator, "load moves the global generator of torch"),
        (leaks, "100% of the rows of test are in train"),
        (with_tasks(name="same"), "task names are not unique"),
        (with_tasks(metric="mae"), "'click' is binary and its metric 'mae' is not for that"),
        (with_tasks(metric="f1"), "has the metric 'f1', and there are"),
        (with_tasks(labels=("a",)), "has 1 labels for 3 classes"),
        (spoil(inputs=lambda x: x.double()), "train inputs are torch.float64"),
        (spoil("test", inputs=lambda x: x[:, :4]), r"test inputs have the shape \(20, 4\)"),
        (spoil(inputs=lambda x: x / 0), "train inputs are not all finite"),
        (spoil("test", inputs=lambda x: x[:0]), "test has no rows"),
        (spoil(price=lambda t: t * 2), "'price' has mean .* and deviation 2 in train"),
        (spoil(price=lambda t: t * torch.inf), "train targets of 'price' are infinite"),
        (spoil("validation", click=lambda t: t * torch.nan), "validation targets of 'click' have no label"),
        (spoil("test", click=lambda t: t * 0), r"test targets of 'click' are \[0.0\], and must be both"),
        (spoil("test", click=lambda t: t[:, None]), r"test targets of 'click' are torch.float32 \(20, 1\)"),
        (spoil("test", kind=lambda t: t + 1), "test targets of 'kind' are not within -1 … 2"),
        (spoil("test", kind=lambda t: t.float()), "test targets of 'kind' are torch.float32"),
    ],
)
def test_each_broken_promise_is_named(load, fault):
    with pytest.raises(AssertionError, match=fault):
        check_problem(problem(load))


def test_a_trunk_that_no_loss_reaches_is_named():
    with pytest.raises(AssertionError, match="does not reach the trunk"):
        check_problem(problem(trunk=frozen))


def test_a_fixed_split_must_be_declared_and_kept():
    check_problem(problem(lambda _: good(0)), fixed_split=True)
    with pytest.raises(AssertionError, match="give different splits"):
        check_problem(problem(), fixed_split=True)
