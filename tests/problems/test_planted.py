"""Generated problems hold what is planted in them; that a study finds it takes longer, and is no unit test."""

import numpy as np
import pytest
import torch

from motet import problems
from motet.problems import planted
from motet.testing import check_problem

X = np.random.default_rng(5).normal(size=(20_000, planted.INPUTS))


@pytest.mark.parametrize("name", planted.PROBLEMS)
def test_conforms_and_says_its_truth(name):
    problem = problems.get(name)
    check_problem(problem)
    assert problem.caution.startswith("The truth is known: ")


@pytest.mark.parametrize("make", [planted.positive, planted.negative, planted.scale, planted.conflict, planted.noise])
@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_a_strength_outside_its_range_is_refused(make, strength):
    with pytest.raises(ValueError, match="strength must lie in 0 … 1, not"):
        make(strength)


@pytest.mark.parametrize("own", [0.0, 0.5, 1.0])
def test_signals_have_variance_one(own):
    signals = planted.signals(X, planted.Recipe(own=own))
    np.testing.assert_allclose(signals.var(axis=0), 1, atol=0.05)
    np.testing.assert_allclose(signals.mean(axis=0), 0, atol=0.05)


def test_tasks_of_one_representation_lie_in_three_dimensions_and_others_do_not():
    assert np.linalg.matrix_rank(planted.signals(X, planted.Recipe(tasks=6, own=0.0)), tol=1e-6) == 3
    assert np.linalg.matrix_rank(planted.signals(X, planted.Recipe(tasks=6, own=1.0)), tol=1e-6) == 6


def test_each_row_of_positive_has_one_label_and_each_task_forty():
    targets = torch.stack(list(planted.positive().load(0).train.targets.values()), dim=1)
    known = ~targets.isnan()
    assert known.sum(dim=1).unique().tolist() == [1]
    assert known.sum(dim=0).unique().tolist() == [40]


@pytest.mark.parametrize(("strength", "expected"), [(0.0, 0.0), (1.0, -1.0)])
def test_noise_of_a_pair_is_opposed_as_strongly_as_asked(strength, expected):
    data = planted.conflict(strength).load(0)
    truth = planted.signals(data.test.inputs.numpy(), planted.Recipe(twins=True))[:, 0]
    rest = []
    for name in ("task1", "task2"):
        y = data.test.targets[name].numpy()
        slope, offset = np.polyfit(truth, y, 1)
        rest.append(y - slope * truth - offset)
    assert np.corrcoef(rest)[0, 1] == pytest.approx(expected, abs=0.1)


def test_wrong_labels_are_in_training_and_validation_of_the_last_two_tasks_alone():
    data = planted.noise().load(0)
    wrong = {}
    for name, part in (("train", data.train), ("validation", data.validation), ("test", data.test)):
        truth = planted.signals(part.inputs.numpy(), planted.Recipe()) > 0
        labels = torch.stack(list(part.targets.values()), dim=1).numpy() == 1
        wrong[name] = (truth != labels).mean(axis=0)
        np.testing.assert_allclose(wrong[name][:2], 0, atol=0.01)  # float32 inputs may turn a signal of zero
    np.testing.assert_allclose(wrong["test"], 0, atol=0.01)
    assert all(0.3 < share < 0.5 for share in (*wrong["train"][2:], *wrong["validation"][2:]))


def test_teachers_are_the_same_for_all_seeds_and_rows_are_not():
    one, other = (planted.null(0.0).load(seed).test for seed in (0, 1))
    assert not torch.equal(one.inputs, other.inputs)
    for part in (one, other):
        truth = planted.signals(part.inputs.numpy(), planted.Recipe(own=1.0))[:, 0]
        assert np.corrcoef(truth, part.targets["task1"].numpy())[0, 1] > 1 - 1e-6
