"""The planted problems are what they say."""

import copy

import pytest
import torch
from torch.testing import assert_close

from motet.grouping.lookahead import lookahead_affinity
from tests.grouping.planted import quadratics, simulated_measurements

CLUSTERS = [[0, 3, 5], [1, 4], [2]]


def trained(steps: int):
    """A problem after some noisy steps of the sum of its losses."""
    model = quadratics(CLUSTERS, noise=0.1, seed=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.stack(list(model.losses(model.batch()).values())).sum().backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("steps", [0, 20])
def test_the_true_affinity_is_the_limit_of_small_steps(steps):
    lr, model = 1e-6, trained(steps)
    truth = model.affinity(lr)
    for source in range(6):
        moved = copy.deepcopy(model)
        optimizer = torch.optim.SGD(moved.parameters(), lr=lr)
        moved.losses()[str(source)].backward()
        optimizer.step()
        decrease = [1 - (moved.losses()[t] / model.losses()[t]).item() for t in model.tasks]
        assert_close(torch.tensor(decrease, dtype=torch.float64), truth[source], rtol=1e-5, atol=1e-11)
    only_shared = lookahead_affinity(model.closure(), [model.shared], lr)
    assert_close(only_shared, model.affinity(lr, heads=False), rtol=1e-5, atol=1e-11)


def test_clusters_are_aligned_within_and_opposed_between():
    model = quadratics(CLUSTERS)
    products = model.affinity(1.0, heads=False) * torch.stack(list(model.losses().values())).detach()
    expected = torch.full((6, 6), -0.5, dtype=torch.float64)
    for cluster in CLUSTERS:
        for task in cluster:
            expected[task, cluster] = 1.0
    assert_close(products, expected.fill_diagonal_(1.09))


def test_noise_is_added_to_the_gradient_and_no_loss_becomes_negative():
    model = quadratics(CLUSTERS, noise=2.0)
    batch = model.batch()
    quiet, noisy = (
        torch.stack(
            [torch.autograd.grad(loss, model.shared, retain_graph=True)[0] for loss in model.losses(given).values()]
        )
        for given in (None, batch)
    )
    assert_close(noisy - quiet, -2.0 * batch)
    assert min(model.losses(batch).values()) > 1
    assert not torch.equal(model.batch(), batch)
    again = quadratics(CLUSTERS, noise=2.0)
    assert torch.equal(again.batch(), batch)


def test_measurements_are_sums_of_effects_and_noise():
    measured = list(simulated_measurements(CLUSTERS)([[0, 3], [2]]))
    expected = torch.tensor([[0.15, -0.14, -0.14, 0.15, -0.14, 0.14], [-0.07, -0.07, 0.08, -0.07, -0.07, -0.07]])
    assert [group for group, _ in measured] == [[0, 3], [2]]
    assert_close(torch.stack([rel for _, rel in measured]), expected.double())
    noisy = torch.stack([rel for _, rel in simulated_measurements(CLUSTERS, noise=0.5, seed=3)([[0]] * 2000)])
    assert_close(noisy.std(dim=0), torch.full((6,), 0.5, dtype=torch.float64), rtol=0.1, atol=0)
