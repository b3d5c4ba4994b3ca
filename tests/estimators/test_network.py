"""The shared network: its written-out gradient against automatic differentiation, and its scale."""

import pytest
import torch
from torch.testing import assert_close

from motet.estimators.network import SharedNet, activate, backward, clip, forward

HEADS = [(16,), (), (5, 4)]


def network(hidden_task=(6,), **options):
    return SharedNet(7, 3, 8, hidden_task, torch.Generator().manual_seed(0), **options).double()


def rows(n=20, columns=7):
    return torch.randn(n, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def rescaled(net, c):
    """(cW, cb, A/c): another way to write the same ReLU network."""
    other = SharedNet.from_flat(net.layout, net.flat())
    with torch.no_grad():
        other.first *= c
        other.bias *= c
        other.heads[0] /= c
    return other


@pytest.mark.parametrize("corner", [0.0, 0.3])
@pytest.mark.parametrize("linear_skip", [False, True])
@pytest.mark.parametrize("hidden_task", HEADS)
def test_scores_and_gradient_are_those_of_automatic_differentiation(hidden_task, linear_skip, corner):
    net = network(hidden_task, linear_skip=linear_skip, corner=corner)
    X, slope = rows(), rows(20, 3)
    scores = net(X)
    passed = forward(net.layout, net.flat(), X)
    assert_close(passed.scores, scores)
    (scores * slope).sum().backward()
    gradient, delta = backward(net.layout, net.flat(), X, passed, slope)
    for ours, theirs in zip(SharedNet.from_flat(net.layout, gradient).parameters(), net.parameters(), strict=True):
        assert_close(ours.detach(), theirs.grad)
    assert_close(X.T @ delta, net.layout.split(gradient).first)


def test_a_flat_vector_holds_the_whole_network():
    net = network(linear_skip=True)
    assert_close(SharedNet.from_flat(net.layout, net.flat())(rows()), net(rows()))


def test_heads_see_the_shared_layer_alone():
    """Written out for one task and one row, without any of the library's batching."""
    net, x = network(), rows()[3]
    h = (net.first @ x + net.bias).clamp(min=0)
    for k in range(3):
        expected = net.readout[k] @ (net.heads[0][k] @ h + net.shifts[0][k]).clamp(min=0)
        assert_close(net(x[None])[0, k], expected)


def test_a_zero_column_hides_its_feature():
    net, X = network(), rows()
    with torch.no_grad():
        net.first[:, 2] = 0
    before = net(X)
    X[:, 2] = 1e3
    assert_close(net(X), before)


def test_a_rounded_corner_is_smooth_and_stays_within_half_its_width_of_the_relu():
    z = torch.linspace(-1, 1, 2001, dtype=torch.float64, requires_grad=True)
    value, slope = activate(z, 0.4)
    (derivative,) = torch.autograd.grad(value.sum(), z)
    assert_close(derivative, slope)
    assert (slope.diff().abs() <= 0.001 / 0.4 + 1e-12).all()
    assert ((z.relu() - value).abs() <= 0.2 + 1e-12).all()


@pytest.mark.parametrize("c", [1e-3, 0.5, 7.0])
def test_no_rescaling_survives_projection(c):
    net = network()
    other = rescaled(net, c)
    assert_close(other(rows()), net(rows()))
    net.project(1.5)
    other.project(1.5)
    assert_close(other.flat(), net.flat())


@pytest.mark.parametrize("hidden_task", HEADS)
def test_projection_of_a_relu_network_keeps_its_scores(hidden_task):
    net = network(hidden_task)
    before = net(rows()).detach()
    net.project(0.7)
    assert_close(net(rows()).detach(), before)
    largest = max(part.detach().flatten(1).norm(dim=1).max() for part in [*net.heads, net.readout])
    assert_close(largest, torch.tensor(0.7, dtype=torch.float64))


def test_projection_of_dead_heads_is_finite():
    net = network()
    with torch.no_grad():
        net.readout[1] = 0
    net.project(1.0)
    assert net.flat().isfinite().all()
    with torch.no_grad():
        net.readout.zero_()
    net.project(1.0)
    assert net.flat().isfinite().all()


def test_rounded_corners_are_projected_by_shortening_heads():
    net = network(corner=0.3)
    first = net.first.detach().clone()
    net.project(0.5)
    assert_close(net.first.detach(), first)
    for part in (*net.heads, net.readout):
        assert (part.detach().flatten(1).norm(dim=1) <= 0.5 + 1e-12).all()


def test_clipping_leaves_heads_inside_of_the_ball_alone():
    net = network()
    assert_close(clip(net.layout, net.flat(), 100.0), net.flat())


def test_the_generator_alone_decides_the_weights():
    assert torch.equal(network().flat(), network().flat())


@pytest.mark.parametrize("wrong", [{"tasks": 0}, {"hidden_shared": 0}, {"hidden_task": (4, 0)}, {"corner": -1.0}])
def test_sizes_are_checked(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SharedNet(**{"p": 3, "tasks": 2, **wrong})
