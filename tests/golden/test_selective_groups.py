"""Selective Task Group Updates: two planted clusters that the paper's rule finds, and what its table leaves open."""

import random

import pytest
import torch
from torch.testing import assert_close

from motet.grouping import Affinity, partition
from motet.metrics import delta_m
from tests.golden.published import TASKONOMY, TASKONOMY_SINGLE

TASKS = ("a", "b", "c", "d")
PARTNER = {0: 1, 1: 0, 2: 3, 3: 2}
SELF, HELP, HARM = 0.081, 0.068, -0.074
"""The effects that single-task updates have in a problem of the clusters {a, b} and {c, d}."""


def planted():
    rows = [[SELF if t == s else HELP if t == PARTNER[s] else HARM for t in range(4)] for s in range(4)]
    return torch.tensor(rows, dtype=torch.float64)


def by_kind(matrix):
    """Mean of a task's entries onto itself, of those onto its partner, and of all others."""
    partner = torch.tensor([[t == PARTNER[s] for t in range(4)] for s in range(4)])
    own = torch.eye(4, dtype=torch.bool)
    return [matrix[kind].mean().item() for kind in (own, partner, ~own & ~partner)], partner, own


def measured(attribution, batches=5000, decay=0.004):
    """Every batch updates the four tasks one by one in random order; every loss falls by its planted part."""
    affinity, truth, rng = Affinity(TASKS, decay, attribution), planted(), random.Random(0)
    for _ in range(batches):
        losses = torch.tensor([rng.uniform(0.5, 2.0) for _ in TASKS], dtype=torch.float64)
        for task in rng.sample(range(4), 4):
            after = losses * (1 - truth[task])
            affinity.update_vectors([task], losses, after)
            losses = after
    return affinity


def test_the_paper_s_rule_recovers_two_planted_clusters():
    affinity = measured("paper", batches=1000)
    assert_close(affinity.matrix, planted())
    assert affinity.counts.tolist() == [[1000] * 4] * 4


def test_the_released_rule_turns_partners_into_opponents():
    # The change credited to i is that of any j but i: onto its partner (SELF + 2 HARM) / 3, onto others
    # (SELF + HELP + HARM) / 3; onto itself only what its partner did before it is ever counted.
    (own, partner, other), *_ = by_kind(measured("released").matrix)
    assert own == pytest.approx(0.070, abs=0.004)
    assert partner == pytest.approx(-0.025, abs=0.004)
    assert other == pytest.approx(0.025, abs=0.004)
    assert partner == pytest.approx((SELF + 2 * HARM) / 3, abs=0.003)
    assert other == pytest.approx((SELF + HELP + HARM) / 3, abs=0.003)


@pytest.mark.parametrize("method", ["affinity-propagation", "correlation"])
def test_the_clusters_are_found_on_the_paper_s_map_and_not_on_the_released_rule_s(method):
    assert partition(measured("paper", batches=1000), method) == [[0, 1], [2, 3]]
    assert partition(measured("released", batches=1000), method) != [[0, 1], [2, 3]]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_training_on_quadratics_shows_the_clusters_by_the_paper_s_rule_only(optimizer):
    # L_k = ½|θ - c_k|² + ½(h_k - 1)² + 1 with the clusters' centres on opposite sides, noise in every batch.
    generator = torch.Generator().manual_seed(0)
    side = torch.tensor([1.0, 1.0, -1.0, -1.0])[:, None] * torch.ones(6)
    centres = side + 0.2 * torch.randn(4, 6, generator=generator)
    theta, heads = torch.zeros(6, requires_grad=True), [torch.zeros((), requires_grad=True) for _ in TASKS]
    kinds = {"sgd": lambda p: torch.optim.SGD(p, lr=0.02), "adam": lambda p: torch.optim.Adam(p, lr=0.02)}
    step = kinds[optimizer]([theta, *heads])
    maps = {name: Affinity(TASKS, 0.005, attribution=name) for name in ("paper", "released")}
    rng = random.Random(0)
    for _ in range(300):
        targets = centres + 0.1 * torch.randn(4, 6, generator=generator)

        def losses(targets=targets):
            return 0.5 * ((theta - targets) ** 2).sum(1) + 0.5 * (torch.stack(heads) - 1) ** 2 + 1

        for task in rng.sample(range(4), 4):
            before = losses()
            step.zero_grad()
            before[task].backward()
            step.step()
            values = before.detach().double(), losses().detach().double()
            for affinity in maps.values():
                affinity.update_vectors([task], *values)
    _, partner, own = by_kind(maps["paper"].matrix)
    right = maps["paper"].matrix
    assert (right[partner | own] > 0).all()
    assert (right[~partner & ~own] < 0).all()
    lagged = maps["released"].matrix
    assert (lagged[partner] < 0).all()
    assert (lagged[~partner & ~own] > 0).all()


def test_the_taskonomy_row_of_dwa_is_off_by_a_fifth_of_a_per_cent():
    # The other rows come out to 0.01 (test_published.py). Its printed results give -7.92.
    ours = -delta_m(TASKONOMY["DWA"].metrics, TASKONOMY_SINGLE, higher_is_better=False)
    assert TASKONOMY["DWA"].delta_m == -7.72
    assert ours == pytest.approx(-7.92, abs=0.005)
    assert len(TASKONOMY) == 11


def test_the_printed_edge_error_of_the_taskonomy_baseline_has_lost_a_digit():
    # Printed 0.0102, with which the plain sum would be worse by about 99 per cent instead of 8.65.
    printed = [0.0102 if value == 0.1012 else value for value in TASKONOMY_SINGLE]
    assert delta_m(TASKONOMY["GD"].metrics, printed, higher_is_better=False) > 90
