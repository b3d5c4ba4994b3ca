"""Every method on every route that can feed it, on every device that this machine has."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import motet

DEVICES = ["cpu", *(f"cuda:{i}" for i in range(min(torch.cuda.device_count(), 1)))]
ROUTES = ("exact", "last-layer", "features", "probe", "disjoint")


def feeds(route: str, name: str) -> bool:
    try:
        motet.Balancer(name, route=route)
    except ValueError:  # tests/test_balancer.py looks at what is refused and why
        return False
    return True


FEEDABLE = [(name, route) for name in motet.methods.available() for route in ROUTES if feeds(route, name)]


def gradients(name: str, route: str, device: str) -> list[torch.Tensor]:
    torch.manual_seed(0)
    trunk, heads = nn.Sequential(nn.Linear(4, 6), nn.Tanh()), nn.ModuleList(nn.Linear(6, 1) for _ in range(3))
    x = torch.randn(12, 4)
    trunk, heads, x = trunk.to(device), heads.to(device), x.to(device)
    z = trunk(x)
    balancer, options = motet.Balancer(name, route=route), {}
    if route == "disjoint":
        options["assignment"] = torch.arange(12, device=device) % 3
    losses = {}
    for k, head in enumerate(heads):
        losses[str(k)] = (head(z)[k::3] if options else head(z)).sub(k).pow(2).mean()
    step = balancer.backward(losses, features=z, **options)
    assert step.gram is None or route == "probe" or step.gram.device == z.device
    return [parameter.grad.cpu() for parameter in (*trunk.parameters(), *heads.parameters())]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("name", "route"), FEEDABLE)
def test_a_step_gives_finite_gradients_the_same_as_on_the_cpu(name, route, device):
    found = gradients(name, route, device)
    assert all(gradient.isfinite().all() for gradient in found)
    assert any(gradient.abs().sum() > 0 for gradient in found)
    for here, there in zip(found, gradients(name, route, "cpu"), strict=True):
        assert_close(here, there, rtol=1e-4, atol=1e-6)
