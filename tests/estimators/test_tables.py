"""All pairs in one table give what the exact losses give."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from motet.estimators.solver import Objective
from motet.estimators.tables import Tables
from motet.losses.rank import Pairs


def outcomes(seed, n):
    rng = np.random.default_rng(seed)
    weight = rng.integers(0, 3, n) + 0.5
    time = np.round(rng.exponential(1, n), 1)
    continuous = np.where(rng.random(n) < 0.3, np.nan, rng.normal(size=n))
    continuous[:2] = 0, 1
    binary = rng.integers(0, 2, n).astype(float)
    binary[:2] = 0, 1
    event = rng.integers(0, 2, n)
    time[:2], event[:2] = (0.05, 3.0), 1
    return [
        Pairs(continuous, weight=weight),
        Pairs(binary),
        Pairs(time, event, weight),
        Pairs(time, event, censoring="uno"),
        Pairs(binary, norm="all"),
    ]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.3, 1.0, 4.0]))
def test_value_and_gradient_are_those_of_the_pairs(seed, bandwidth):
    n = 23
    pairs = outcomes(seed, n)
    scores = torch.from_numpy(np.random.default_rng(seed).normal(size=(n, len(pairs)))) + 100
    losses, slopes = Tables(pairs, bandwidth).losses(scores)
    for k, one in enumerate(pairs):
        f = scores[:, k].double().requires_grad_()
        loss = one.loss(f, "logistic", bandwidth)
        loss.backward()
        assert losses[k].item() == pytest.approx(loss.item(), rel=1e-9)
        torch.testing.assert_close(slopes[:, k].double(), f.grad, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("n", [23, 130])
def test_single_precision_and_bands_give_the_same_up_to_rounding(n):
    pairs = outcomes(3, n)
    scores = torch.from_numpy(np.random.default_rng(1).normal(size=(n, len(pairs)), scale=3))
    exact, slope = Tables(pairs, 1.0).losses(scores)
    assert exact.tolist() == pytest.approx([p.loss(scores[:, k], "logistic").item() for k, p in enumerate(pairs)])
    losses, single = Tables(pairs, 1.0, torch.float32).losses(scores)
    torch.testing.assert_close(losses, exact, rtol=1e-6, atol=0)
    torch.testing.assert_close(single, slope, rtol=1e-4, atol=1e-7)
    _, alone = Tables(pairs, 1.0).losses(scores, value=False)
    assert torch.equal(alone, slope)


def test_scores_too_far_apart_go_to_the_exact_loss():
    pairs = outcomes(0, 23)[:2]
    scores = torch.linspace(-900, 900, 23).unsqueeze(1).expand(-1, 2)
    assert Tables(pairs, 1.0).losses(scores) is None
    assert Tables(pairs, 1.0, torch.float32).losses(scores / 10) is None
    objective = Objective(pairs, torch.ones(2, dtype=torch.float64))
    losses, slope = objective.losses(scores)
    assert losses[1].item() == pytest.approx(pairs[1].loss(scores[:, 1].double(), "logistic").item())
    assert slope.isfinite().all()


def test_many_rows_other_losses_and_other_criteria_are_not_served():
    few, many = Pairs(np.arange(9.0)), Pairs(np.arange(3000.0))
    assert Tables.serve([few, few], "logistic")
    assert not Tables.serve([few], "drelu")
    assert not Tables.serve([many], "logistic")
    assert not Tables.serve([few, object()], "logistic")
    assert not Tables.serve([Pairs(np.ones(9))], "logistic")
