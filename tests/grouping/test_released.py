"""The released preset against a simulation written line by line, in plain loops, with its own model and optimizer."""

import warnings

import numpy as np
import torch
from sklearn.cluster import AffinityPropagation
from sklearn.exceptions import ConvergenceWarning
from torch.optim import Adam

from motet import GroupedUpdates
from tests.grouping.models import Heads

TASKS = tuple("abcdef")
BETA = 0.01


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(12, 5, generator=generator)
    signs = torch.tensor([1.0, 1.0, -1.0, -1.0, 1.0, -1.0])
    return x, torch.tanh(x.sum(1, keepdim=True)) * signs + 0.1 * torch.randn(12, 6, generator=generator)


class Simulation:
    """What the released code does with one batch after another, given the order of the groups."""

    def __init__(self) -> None:
        self.model = Heads(TASKS)
        self.optimizer = Adam(self.model.parameters(), lr=5e-3, weight_decay=1e-6)
        self.map = np.zeros((6, 6))
        self.partition = [[k] for k in range(6)]
        self.count = 0

    def regroup(self) -> list[list[int]]:
        scaled = self.map.copy()
        for column in range(6):
            scaled[:, column] /= self.map[column, column]
        scaled = (scaled + scaled.T) / 2
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                found = AffinityPropagation(affinity="precomputed", convergence_iter=50, random_state=0).fit(scaled)
            except ConvergenceWarning:  # What scikit-learn 1.0 says by returning no centres.
                return self.partition
        return [list(np.flatnonzero(found.labels_ == label)) for label in range(found.labels_.max() + 1)]

    def train(self, number: int, order: list[list[int]]) -> None:
        x, y = batch(number)
        previous: list[float] | None = None
        for group in order:
            losses = list(self.model.losses(x, y).values())
            for parameter in self.model.parameters():  # Zeros and not None, as torch 1.13 leaves them.
                if parameter.grad is not None:
                    parameter.grad.zero_()
            sum(losses[k] for k in group).backward()  # type: ignore[union-attr]
            self.optimizer.step()
            now = [float(loss.detach().double()) for loss in losses]
            if previous is not None:
                self.credit(group, previous, now)
            previous = now

    def credit(self, group: list[int], previous: list[float], now: list[float]) -> None:
        share = [(1 - now[t] / previous[t]) / len(group) for t in range(6)]
        for s in group:
            for t in range(6):
                if t not in group:
                    value = share[t]
                elif t == s:
                    if share[t] < 0:
                        continue
                    value = share[t]
                else:
                    value = share[t] if share[t] * share[s] >= 0 else -max(share[t], share[s])
                self.map[s, t] = (1 - BETA) * self.map[s, t] + BETA * value


def test_two_hundred_batches_follow_the_simulation() -> None:
    model = Heads(TASKS)
    updates = GroupedUpdates.released(TASKS, Adam(model.parameters(), lr=5e-3, weight_decay=1e-6), decay=BETA)
    simulation = Simulation()
    sizes = set()
    for number in range(200):
        if number > 100:
            simulation.partition = simulation.regroup()
        step = updates.step(model.closure(*batch(number)))
        order = [[TASKS.index(task) for task in group] for group in step.groups]
        expected = sorted(simulation.partition)
        assert sorted(order) == (expected * 2 if len(expected) == 1 else expected)
        simulation.train(number, order)
        sizes.add(len(expected))
        np.testing.assert_allclose(updates.affinity.matrix.numpy(), simulation.map, atol=1e-6)
    for ours, theirs in zip(model.parameters(), simulation.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert len(sizes) > 1  # It has regrouped.
