"""The choice of a route, and the estimate that it rests on."""

import pytest
import torch
from torch import nn

from motet.routes import Wish, Work, choose, measure

BIG = Work(trunk=1e9, heads=1e7, rows=8192, parameters=260_160, layer=1.5e8, layer_parameters=147_584)
"""A convolutional trunk: its last layer holds 15 % of the work."""


def wish(needs: str = "gram", tasks: int = 40, *, features: bool = True, shared: bool = False, **more: object) -> Wish:
    return Wish(needs, tasks, features, shared, **more)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (wish("losses"), "none"),
        (wish(tasks=3), "exact"),
        (wish(), "last-layer"),
        (wish(budget=100.0), "exact"),
        (wish(budget=3.5), "last-layer"),
        (wish(budget=2.8), "probe"),
        (wish(budget=2.8, unprobed="no"), "features"),
        (wish(budget=1.2), "features"),
        (wish(features=False, shared=True), "exact"),
        (wish(features=False, shared=True, budget=2.8), "probe"),
        (wish(features=False, shared=True, budget=2.8, unprobed="no"), "exact"),
        (wish(hindered="compiled"), "features"),
        (wish(samples=True), "last-layer"),
        (wish(samples=True, tasks=3), "last-layer"),
        (wish(samples=True, unsampled="convolution"), "features"),
        (wish(samples=True, hindered="compiled"), "features"),
        (wish(samples=True, budget=1.04), "features"),
        (wish(assignment=True), "disjoint"),
        (wish(assignment=True, single=True), "exact"),
        (wish(single=True), "exact"),
        (wish(same_rows=True, budget=1.1), "exact"),
        (wish("jacobian"), "exact"),
        (wish("jacobian", budget=1.5), "features"),
        (wish("jacobian", assignment=True), "exact"),
    ],
)
def test_the_truest_route_within_the_budget_is_taken(asked, expected):
    assert choose(asked, BIG)[0] == expected


@pytest.mark.parametrize("asked", [wish(features=False, shared=True, budget=1.1), wish(single=True, budget=1.1)])
def test_a_budget_that_can_not_be_kept_is_said(asked):
    assert "over the budget of 1.1×" in choose(asked, BIG)[1]


def test_the_reason_for_single_samples_gradients_at_the_features_is_said():
    assert "features: convolution" in choose(wish(samples=True, unsampled="convolution"), BIG)[1]
    assert "nearer to the trunk's own" in choose(wish(samples=True), BIG)[1]


def test_nothing_to_start_from_is_an_error_that_says_what_to_pass():
    with pytest.raises(ValueError, match=r"pass features=z.*or shared="):
        choose(wish(features=False))


def test_the_work_of_a_perceptron_is_counted_from_its_sizes():
    trunk, head = nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 256)), nn.Linear(256, 1)
    z = trunk(torch.randn(128, 64))
    work = measure([head(z).pow(2).mean()], [z], [])
    products = 128 * (64 * 512 + 512 * 256)
    assert products < work.trunk < 1.3 * products
    assert work.rows == 128 * 256
    assert work.parameters == sum(p.numel() for p in trunk.parameters())
    assert work.layer_parameters == 512 * 256 + 256
    assert 128 * 128 * 256 <= work.layer < 1.1 * 128 * 128 * 256  # Fewer samples than inputs: their products instead.


def test_a_convolution_costs_its_kernel_at_every_position():
    trunk = nn.Conv2d(8, 16, 3)
    z = trunk(torch.randn(4, 8, 20, 20))
    work = measure([z.pow(2).mean()], [z], [])
    products = 4 * 16 * 18 * 18 * 8 * 9
    assert products < work.trunk < 1.5 * products


def test_more_tasks_cost_more_on_every_route_and_least_on_the_probe():
    few, many = BIG.ratios(10), BIG.ratios(40)
    more = {route: many[route] - few[route] for route in few}
    assert 0 < more["probe"] < more["features"] < more["last-layer"] < more["exact"]


def test_the_exact_route_costs_a_forward_and_k_backward_passes():
    alone = Work(trunk=1e12, heads=0.0, rows=10, parameters=10, layer=1e9, layer_parameters=10)
    assert alone.ratios(40)["exact"] == pytest.approx((1 + 2 * 40) / 3, rel=1e-3)
