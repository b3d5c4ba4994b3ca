"""Minibatch and incomplete U-statistics: unbiased by full enumeration."""

from itertools import combinations, product

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from motet.losses.rank import KINDS, Pairs
from motet.losses.rank.sampling import draw
from tests.losses.rank_cases import Case, case_of, scores_of, weighted_pairs


@pytest.mark.parametrize("norm", ["comparable", "all"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("outcome", ["continuous", "binary", "uno"])
def test_loss_and_gradient_of_a_minibatch_are_unbiased_over_all_minibatches(outcome, kind, norm):
    case, f = case_of(outcome, 7, 3, weighted=True, missing=0.2, norm=norm), scores_of(7, 3)
    pairs = case.pairs()
    scores = torch.tensor(f, requires_grad=True)
    full = pairs.loss(scores, kind)
    (expected,) = torch.autograd.grad(full, scores)
    batches = list(combinations(range(7), 3))
    mean, gradient = 0.0, torch.zeros(7, dtype=torch.float64)
    for batch in batches:
        loss = pairs.subset(batch).loss(scores[list(batch)], kind)
        mean += loss.item() / len(batches)
        gradient += torch.autograd.grad(loss, scores)[0] / len(batches)
    assert_close(mean, full.item(), rtol=1e-12, atol=1e-13)
    assert_close(gradient, expected, rtol=1e-12, atol=1e-13)


def test_a_minibatch_of_all_rows_is_the_loss_and_rows_may_come_in_any_order():
    case, f = case_of("uno", 40, 1, weighted=True, missing=0.2), torch.tensor(scores_of(40, 1))
    pairs, order = case.pairs(), np.random.default_rng(0).permutation(40)
    part = pairs.subset(order)
    assert_close(part.loss(f[torch.from_numpy(order)], "logistic"), pairs.loss(f, "logistic"))
    assert_close(part.concordance(f[torch.from_numpy(order)]), pairs.concordance(f))
    assert_close(part.total, pairs.total)


def test_a_minibatch_without_a_pair_has_a_gradient_of_zero():
    part = Pairs([1.0, 1.0, 2.0]).subset([0, 1])
    scores = torch.zeros(2, requires_grad=True)
    for kind, value in (("drelu", 1.0), ("logistic", 0.0)):
        loss = part.loss(scores, kind)
        loss.backward()
        assert loss.item() == value
        assert scores.grad.tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="no comparable pair"):
        part.concordance(scores)


@pytest.mark.parametrize("rows", [[0], [0, 0], [0, 5], [-1, 0], [0.0, 1.0], [[0, 1]]])
def test_a_minibatch_is_of_different_rows(rows):
    with pytest.raises(ValueError, match="row numbers"):
        Pairs([1.0, 2.0, 3.0]).subset(rows)


def test_pairs_are_drawn_in_proportion_to_their_weights_exactly():
    # Weights are such that a grid of uniform numbers meets each pair as often as its weight says.
    case = Case(np.array([2.0, 1.0, 3.0, 1.0, np.nan]), weight=np.array([1.0, 1.0, 2.0, 2.0, 5.0]))
    pairs = case.pairs()
    found = {(i, j): p for i, j, p in weighted_pairs(case)}  # (0: 1, 3), (2: 0, 1, 3)
    total = int(sum(found.values()))
    fine = 12  # the weights of rows that are worse than one: 3 and 4
    first, second = (
        torch.tensor(t, dtype=torch.float64)
        for t in zip(*product((np.arange(total) + 0.5) / total, (np.arange(fine) + 0.5) / fine), strict=True)
    )
    better, worse = draw(pairs.rows, first, second)
    drawn = list(zip(better.tolist(), worse.tolist(), strict=True))
    assert {pair: drawn.count(pair) for pair in set(drawn)} == {pair: fine * p for pair, p in found.items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("norm", ["comparable", "all"])
def test_loss_and_gradient_of_sampled_pairs_are_unbiased_over_all_samples(kind, norm):
    case, f = Case(np.array([2.0, 1.0, 3.0, 1.0]), norm=norm), scores_of(4, 2)
    pairs = case.pairs()
    scores = torch.tensor(f, requires_grad=True)
    full = pairs.loss(scores, kind)
    (expected,) = torch.autograd.grad(full, scores)
    every = pairs.sample(1)._replace(
        better=torch.tensor([i for i, _, _ in weighted_pairs(case)]),
        worse=torch.tensor([j for _, j, _ in weighted_pairs(case)]),
    )
    sampled = every.loss(scores, kind)  # all weights are 1: each pair is as likely
    assert_close(sampled, full)
    assert_close(torch.autograd.grad(sampled, scores)[0], expected)


def test_a_sample_has_comparable_pairs_alone_and_is_repeatable():
    case = case_of("uno", 60, 2, weighted=True, missing=0.2)
    pairs = case.pairs()
    comparable = {(i, j) for i, j, _ in weighted_pairs(case)}
    one, two = (pairs.sample(3000, torch.Generator().manual_seed(5)) for _ in range(2))
    assert set(zip(one.better.tolist(), one.worse.tolist(), strict=True)) <= comparable
    assert torch.equal(one.better, two.better)
    assert torch.equal(one.worse, two.worse)
    f = torch.tensor(scores_of(60, 2))
    loss = one.loss(f, "sigmoid")
    assert abs(loss - pairs.loss(f, "sigmoid")) < 5 * 0.5 / 3000**0.5  # the sigmoid's loss is in [0, 1]


def test_the_ends_of_the_uniform_numbers_draw_comparable_pairs():
    case = case_of("survival", 30, 3, weighted=True)
    pairs = case.pairs()
    ends = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    better, worse = draw(pairs.rows, ends.repeat_interleave(2), ends.repeat(2))
    comparable = {(i, j) for i, j, _ in weighted_pairs(case)}
    assert set(zip(better.tolist(), worse.tolist(), strict=True)) <= comparable


def test_sampling_is_refused_where_there_is_nothing_to_sample():
    with pytest.raises(ValueError, match="no comparable pair"):
        Pairs([1.0, 1.0]).sample(3)
    with pytest.raises(ValueError, match="count"):
        Pairs([1.0, 2.0]).sample(0)
    sampled = Pairs([1.0, 2.0]).sample(3)
    for bad in (("hinge", 1.0), ("drelu", 0.0)):
        with pytest.raises(ValueError, match="kind is one of"):
            sampled.loss(torch.zeros(2), *bad)
    with pytest.raises(ValueError, match="shape"):
        sampled.loss(torch.zeros(3))
