"""The layerwise way of the exact route gives what the row by row way gives, for whatever trunk."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from motet.routes import Exact, Layerwise, exact
from motet.routes.layerwise import linear_layers

TASKS = 4


class Twice(nn.Module):
    """One weight, used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(40, 40)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(torch.tanh(self.linear(x)))


class Scaled(nn.Module):
    """An addmm that is no linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(30, 40) / 6)
        self.bias = nn.Parameter(torch.randn(30))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x, self.weight.T, alpha=2.0)


class Cached(nn.Module):
    """One transposed weight in two products."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(30, 40) / 6)

    def forward(self, x: Tensor) -> Tensor:
        transposed = self.weight.T
        return x @ transposed - (x + 0.01) @ transposed


def frozen_bias() -> nn.Module:
    layer = nn.Linear(40, 30)
    layer.bias.requires_grad_(False)
    return layer


TRUNKS = {
    "perceptron": lambda: nn.Sequential(nn.Linear(40, 50), nn.ReLU(), nn.Linear(50, 30)),
    "without bias": lambda: nn.Sequential(nn.Linear(40, 50, bias=False), nn.Tanh(), nn.Linear(50, 30, bias=False)),
    "frozen bias": lambda: nn.Sequential(frozen_bias(), nn.Tanh(), nn.Linear(30, 30)),
    "normalised": lambda: nn.Sequential(nn.Linear(40, 50), nn.LayerNorm(50), nn.ReLU(), nn.Linear(50, 30)),
    "few inputs": lambda: nn.Sequential(nn.Linear(40, 5), nn.Tanh(), nn.Linear(5, 90), nn.Tanh(), nn.Linear(90, 90)),
    "a weight used twice": lambda: nn.Sequential(Twice(), nn.ReLU(), nn.Linear(40, 90)),
    "a transposed weight used twice": lambda: nn.Sequential(Cached(), nn.Tanh(), nn.Linear(30, 90)),
    "addmm with a factor": lambda: nn.Sequential(Scaled(), nn.ReLU(), nn.Linear(30, 90)),
    "positions": lambda: nn.Sequential(
        nn.Unflatten(1, (2, 20)), nn.Linear(20, 60), nn.ReLU(), nn.Linear(60, 60), nn.Flatten()
    ),
}


def build(name: str) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Losses, shared parameters, parameters of the heads; the same every time."""
    torch.manual_seed(0)
    trunk = TRUNKS[name]().double()
    x = torch.randn(8, 40, dtype=torch.double)
    z = trunk(x)
    heads = nn.ModuleList(nn.Linear(z.shape[1], 2) for _ in range(TASKS)).double()
    losses = [(head(z) - k).pow(2).mean() for k, head in enumerate(heads)]
    return losses, [p for p in trunk.parameters() if p.requires_grad], list(heads.parameters())


def layerwise(losses: list[Tensor], shared: list[Tensor]) -> Layerwise:
    layers = linear_layers(losses, shared)
    covered = {id(p) for layer in layers for p in (layer.weight, layer.bias)}
    return Layerwise(losses, layers, [p for p in shared if id(p) not in covered])


@pytest.mark.parametrize("name", TRUNKS)
def test_gram_matrix_and_gradients_are_those_of_the_rows(name):
    weights = torch.tensor([0.5, 2.0, 0.0, -1.0], dtype=torch.double)
    scale = torch.tensor([1.0, 1.0, 3.0, 0.5], dtype=torch.double)
    losses, shared, heads = build(name)
    rows = Exact(losses, shared)
    rows.write(weights, scale)
    losses, again, again_heads = build(name)
    ours = layerwise(losses, again)
    assert_close(ours.gram(), rows.gram(), rtol=1e-10, atol=1e-12)
    assert not ours.gram().requires_grad
    ours.write(weights, scale)
    for found, expected in zip((*again, *again_heads), (*shared, *heads), strict=True):
        assert_close(found.grad, expected.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("perceptron", 2),
        ("without bias", 2),
        ("a weight used twice", 1),
        ("a transposed weight used twice", 1),
        ("addmm with a factor", 1),
        ("positions", 2),
    ],
)
def test_only_linear_layers_that_are_used_once_are_covered(name, expected):
    losses, shared, _ = build(name)
    assert len(linear_layers(losses, shared)) == expected


def test_forgetting_a_task_forgets_it_everywhere():
    losses, shared, _ = build("normalised")
    ours = layerwise(losses, shared)
    whole = ours.gram()
    ours.keep([0, 2])
    assert_close(ours.gram(), whole[[0, 2]][:, [0, 2]])
    ours.write(torch.ones(2).double(), torch.ones(2).double())
    losses, expected, _ = build("normalised")
    (losses[0] + losses[2]).backward()
    assert_close(shared[0].grad, expected[0].grad)


def test_the_way_is_chosen_by_what_takes_less_room():
    losses, shared, _ = build("perceptron")
    assert isinstance(exact(losses, shared, rows=False, reuse=None), Layerwise)
    losses, shared, _ = build("perceptron")
    assert isinstance(exact(losses, shared, rows=True, reuse=None), Exact)
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Conv1d(1, 3, 3), nn.Flatten(), nn.Linear(18, 2))
    losses = [column.mean() for column in trunk(torch.randn(50, 1, 8)).unbind(1)]
    assert isinstance(exact(losses, list(trunk.parameters()), rows=False, reuse=None), Exact)


def test_a_hook_on_a_weight_is_obeyed():
    def masked() -> tuple[list[Tensor], list[Tensor]]:
        torch.manual_seed(0)
        trunk = nn.Linear(200, 30)
        trunk.weight.register_hook(lambda gradient: gradient * 0)
        z = trunk(torch.randn(8, 200))
        return [column.pow(2).mean() for column in z.unbind(1)[:3]], list(trunk.parameters())

    losses, shared = masked()
    gradients = exact(losses, shared, rows=False, reuse=None)
    gradients.write(torch.ones(3), torch.ones(3))
    assert shared[0].grad is None or not shared[0].grad.any()
