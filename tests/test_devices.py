"""Every method on every route that can feed it, on every device that this machine has."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import motet
from motet.routes import ROUTES

DEVICES = ["cpu", *(f"cuda:{i}" for i in range(min(torch.cuda.device_count(), 1)))]
FEEDABLE = [
    (name, route)
    for name in motet.methods.available()
    for route in ROUTES
    if (motet.methods.get(name).needs, route) != ("jacobian", "last-layer")
]


def gradients(name: str, route: str, device: str) -> list[torch.Tensor]:
    torch.manual_seed(0)
    trunk, heads = nn.Sequential(nn.Linear(4, 6), nn.Tanh()), nn.Linear(6, 3)
    x = torch.randn(12, 4)
    trunk, heads, x = trunk.to(device), heads.to(device), x.to(device)
    z = trunk(x)
    losses = {str(k): (column - k).pow(2).mean() for k, column in enumerate(heads(z).unbind(1))}
    step = motet.Balancer(name, route=route).backward(losses, features=z)
    assert step.gram.device == z.device
    return [parameter.grad.cpu() for parameter in (*trunk.parameters(), *heads.parameters())]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("name", "route"), FEEDABLE)
def test_a_step_gives_finite_gradients_the_same_as_on_the_cpu(name, route, device):
    found = gradients(name, route, device)
    assert all(gradient.isfinite().all() for gradient in found)
    assert any(gradient.abs().sum() > 0 for gradient in found)
    for here, there in zip(found, gradients(name, route, "cpu"), strict=True):
        assert_close(here, there, rtol=1e-4, atol=1e-6)
