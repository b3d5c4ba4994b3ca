"""The routes by way of the features give what autograd gives, whatever the tasks share above them."""

import itertools
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from motet.linalg import cosines
from motet.routes import Exact, Features, LastLayer, last_layer, leaves
from motet.routes.base import NoPathError
from motet.routes.graph import branches

TASKS = 4
EXACT = {"rtol": 1e-10, "atol": 1e-12}


def gradients_at(losses: Sequence[Tensor], taps: Sequence[Tensor]) -> Tensor:
    """(K, P) by one call of the engine a task."""
    rows = []
    for loss in losses:
        found = torch.autograd.grad(loss, taps, retain_graph=True, allow_unused=True, materialize_grads=True)
        rows.append(torch.cat([gradient.flatten() for gradient in found]))
    return torch.stack(rows)


class Square(torch.autograd.Function):
    """A function written by a user."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, gradient):
        return 2 * ctx.saved_tensors[0] * gradient


def apart(z: Tensor) -> tuple[list[Tensor], list[Tensor], int]:
    heads = nn.ModuleList(nn.Linear(z.shape[1], 2) for _ in range(TASKS)).double()
    return [(head(z) - k).pow(2).mean() for k, head in enumerate(heads)], list(heads.parameters()), 1


def one_for_all(z: Tensor) -> tuple[list[Tensor], list[Tensor], int]:
    head = nn.Linear(z.shape[1], TASKS).double()
    return [(c - k).pow(2).mean() for k, c in enumerate(head(z).unbind(1))], list(head.parameters()), TASKS


def half_and_half(z: Tensor) -> tuple[list[Tensor], list[Tensor], int]:
    pair, alone = nn.Linear(z.shape[1], 2).double(), nn.Linear(z.shape[1], 1).double()
    first, second = pair(z).unbind(1)
    losses = [first.pow(2).mean(), (second - 1).pow(2).mean(), alone(z).sin().mean(), z.cos().mean()]
    return losses, [*pair.parameters(), *alone.parameters()], 3


def one_parameter_in_two(z: Tensor) -> tuple[list[Tensor], list[Tensor], int]:
    head = nn.Linear(z.shape[1], 1).double()
    return [head(z).mean(), head(z).pow(2).mean(), z.mean(), z.pow(2).mean()], list(head.parameters()), 3


def by_several_ways(z: Tensor) -> tuple[list[Tensor], list[Tensor], int]:
    losses = [(z * z).mean(), torch.cat([z, z.sin()], 1).pow(3).mean(), Square.apply(z).mean(), z[:3].pow(2).mean()]
    return losses, [], 1


def the_feature_itself(z: Tensor) -> tuple[list[Tensor], list[Tensor], int]:
    return [z.mean() * 2, z.sum()], [], 1


HEADS = [apart, one_for_all, half_and_half, one_parameter_in_two, by_several_ways, the_feature_itself]


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("walked", [True, False])
def test_rows_and_head_gradients_are_those_of_one_pass_a_task(heads, walked):
    torch.manual_seed(0)
    trunk = nn.Linear(5, 6).double()
    z = trunk(torch.randn(8, 5, dtype=torch.double)).tanh()
    losses, parameters, passes = heads(z)
    rows = gradients_at(losses, [z])
    expected = gradients_at(losses, parameters) if parameters else torch.zeros(len(losses), 0)
    found = branches(losses, [z]) if walked else [leaves(loss, stop=[z]) for loss in losses]
    ours = Features(losses, found, [z])
    assert_close(ours.rows, rows, **EXACT)
    assert ours.head_backwards == passes
    place = {id(parameter): part for parameter, part in zip(parameters, _slices(parameters), strict=True)}
    for head, row in zip(ours.heads, expected, strict=True):
        seen = torch.zeros_like(row)
        for parameter, gradient in head:
            seen[place[id(parameter)]] = gradient.flatten()
        assert_close(seen, row, **EXACT)


def _slices(tensors: Sequence[Tensor]) -> list[slice]:
    ends = torch.tensor([0, *(tensor.numel() for tensor in tensors)]).cumsum(0).tolist()
    return [slice(start, end) for start, end in itertools.pairwise(ends)]


def test_a_loss_that_is_the_feature_has_gradient_one():
    z = torch.ones(3, dtype=torch.double, requires_grad=True).sum()
    losses = [z, z * 3]
    ours = Features(losses, branches(losses, [z]), [z])
    assert ours.rows.flatten().tolist() == [1, 3]


def test_nothing_is_left_on_the_graph_when_a_pass_fails():
    def fail(_: Tensor) -> None:
        raise RuntimeError("on purpose")

    z = torch.ones(3, requires_grad=True) * 2
    middle = z * 3
    handle = middle.register_hook(fail)
    loss = middle.sum()
    with pytest.raises(RuntimeError, match="on purpose"):
        Features([loss], branches([loss], [z]), [z], retain=True)
    handle.remove()
    assert torch.autograd.grad(loss, z)[0].tolist() == [3, 3, 3]


def test_the_graph_lives_on_where_it_is_retained():
    z = torch.ones(3, requires_grad=True) * 2
    loss = z.pow(2).sum()
    Features([loss], branches([loss], [z]), [z], retain=True)
    assert torch.autograd.grad(loss, z)[0].tolist() == [4, 4, 4]


def test_an_earlier_steps_rows_leave_no_trace():
    torch.manual_seed(0)
    z = torch.randn(2, 3, requires_grad=True) * 1
    losses = [z[:1].sum(), z.sum()]
    reuse = torch.full((5, 6), torch.nan)
    assert_close(Features(losses, branches(losses, [z]), [z], reuse).rows, gradients_at([z[:1].sum(), z.sum()], [z]))


class Skip(nn.Module):
    """Two features, the second computed from the first; ``reach`` says which heads take which."""

    def __init__(self, reach: str) -> None:
        super().__init__()
        self.low, self.high = nn.Linear(5, 6), nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.Tanh())
        self.heads = nn.ModuleList(nn.Linear(12 if kind == "both" else 6, 1) for kind in reach.split())
        self.reach = reach.split()

    def top(self, s: Tensor, z: Tensor) -> list[Tensor]:
        pairs = zip(self.heads, self.reach, strict=True)
        takes = {"both": torch.cat([s, z], 1), "low": s, "high": z}
        return [(head(takes[kind]) - k).pow(2).mean() for k, (head, kind) in enumerate(pairs)]

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        s = self.low(x).tanh()
        z = self.high(s)
        return [s, z], self.top(s, z)


class Two(nn.Module):
    """Two trunks; the tasks use one, the other, or both."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(5, 6), nn.Sequential(nn.Linear(5, 4), nn.Tanh())
        self.heads = nn.ModuleList([nn.Linear(6, 1), nn.Linear(4, 1), nn.Linear(10, 1)])

    def top(self, s: Tensor, z: Tensor) -> list[Tensor]:
        return [(head(t) - 1).pow(2).mean() for head, t in zip(self.heads, (s, z, torch.cat([s, z], 1)), strict=True)]

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        taps = [self.left(x), self.right(x)]
        return taps, self.top(*taps)


class Halves(Two):
    """Both features are outputs of one node."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(5, 10), nn.Identity()

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        taps = list(self.left(x).split([6, 4], 1))
        return taps, self.top(*taps)


MODELS = {
    "all take both": lambda: Skip("both both both"),
    "some take both": lambda: Skip("low high both"),
    "none takes both": lambda: Skip("low high high"),
    "two trunks": Two,
    "two outputs of one node": Halves,
}


def make(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return MODELS[name]().double(), torch.randn(8, 5, dtype=torch.double)


def run(route: type, losses: Sequence[Tensor], taps: Sequence[Tensor], **options) -> Features:
    layer = [last_layer(taps)] if route is LastLayer else []
    return route(losses, branches(losses, taps), taps, *layer, **options)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("route", [Features, LastLayer])
@pytest.mark.parametrize("order", [(0, 1), (1, 0), (0, 1, 0)])
def test_several_features_count_every_gradient_once(name, route, order):
    model, x = make(name)
    taps, losses = model(x)
    ours = run(route, losses, [taps[index] for index in order])
    weights = torch.tensor([0.5, 2.0, 1.0], dtype=torch.double)
    ours.write(weights, torch.ones(3, dtype=torch.double))
    again, _ = make(name)
    taps, losses = again(x)
    shared = [p for n, p in again.named_parameters() if not n.startswith("heads")]
    Exact(losses, shared).write(weights, torch.ones(3, dtype=torch.double))
    for found, expected in zip(model.parameters(), again.parameters(), strict=True):
        assert_close(found.grad, expected.grad, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_the_gram_matrix_at_several_features_is_that_of_features_cut_off_from_each_other(name):
    model, x = make(name)
    taps, losses = model(x)
    cut = [tap.detach().requires_grad_() for tap in taps]
    expected = gradients_at(model.top(*cut), cut)
    assert_close(Features(losses, branches(losses, taps), taps).gram(), expected @ expected.T, **EXACT)


@pytest.mark.parametrize("name", MODELS)
def test_the_last_layers_of_several_features_have_the_gradients_of_the_losses(name):
    model, x = make(name)
    taps, losses = model(x)
    layer = last_layer(taps)
    expected = gradients_at(losses, layer)
    assert_close(run(LastLayer, losses, taps).gram(), expected @ expected.T, **EXACT)


def test_a_feature_that_no_task_uses_leaves_its_trunk_untouched():
    model, x = make("two trunks")
    taps, losses = model(x)
    ours = Features(losses[:1], branches(losses[:1], taps), taps)
    ours.write(torch.ones(1, dtype=torch.double), torch.ones(1, dtype=torch.double))
    assert model.left.weight.grad is not None
    assert model.right[0].weight.grad is None


def test_tasks_that_are_forgotten_are_forgotten_with_what_they_alone_used():
    model, x = make("two trunks")
    taps, losses = model(x)
    ours = run(LastLayer, losses, taps)
    whole = ours.gram()
    ours.keep([0])
    assert_close(ours.gram(), whole[:1, :1])
    ours.write(torch.ones(1, dtype=torch.double), torch.ones(1, dtype=torch.double))
    assert model.right[0].weight.grad is None


def test_all_losses_without_a_path_are_named():
    z = torch.ones(3, requires_grad=True) * 2
    free = torch.ones((), requires_grad=True)
    losses = [free * 2, z.sum(), free * 3]
    with pytest.raises(NoPathError) as caught:
        Features(losses, branches(losses, [z]), [z])
    assert caught.value.tasks == [0, 2]


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (2, 3, 4)),
        nn.Conv2d(2, 3, 2),
        nn.ReLU(),
        nn.Conv2d(3, 5, 2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
    )


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.inner, self.last = (
            nn.Linear(24, 24),
            nn.LayerNorm(24),
            nn.Linear(24, 30),
            nn.Linear(30, 24),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x))
        return x + self.last(self.inner(x).relu())


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(24, 24)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.linear(x).tanh())


def pooled(*between: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (2, 3, 4)), nn.Conv2d(2, 5, 2), *between, nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )


class Mean(nn.Module):
    """The mean over positions."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


LAST = {
    "pooled": lambda: pooled(nn.ReLU()),
    "pooled without flattening": lambda: nn.Sequential(*pooled(nn.ReLU())[:-1]),
    "pooled behind a normalisation": lambda: pooled(nn.GroupNorm(1, 5, affine=False), nn.ReLU()),
    "averaged positions": lambda: nn.Sequential(nn.Unflatten(1, (3, 8)), nn.Linear(8, 6), nn.Sigmoid(), Mean()),
    "softmax": lambda: nn.Sequential(nn.Linear(24, 6), nn.Softmax(1)),
    "few rows": lambda: nn.Sequential(nn.Linear(24, 50), nn.ReLU(), nn.Linear(50, 30), nn.ReLU()),
    "few inputs": lambda: nn.Sequential(nn.Linear(24, 3), nn.ReLU(), nn.Linear(3, 30), nn.ReLU()),
    "normalised": lambda: nn.Sequential(nn.Linear(24, 50), nn.ReLU(), nn.Linear(50, 30), nn.LayerNorm(30)),
    "positions": lambda: nn.Sequential(nn.Unflatten(1, (3, 8)), nn.Linear(8, 6), nn.ReLU(), nn.Flatten()),
    "convolutions": convolutions,
    "groups": lambda: nn.Sequential(nn.Unflatten(1, (4, 6)), nn.Conv1d(4, 4, 3, groups=2), nn.Flatten()),
    "residual": Residual,
    "used twice": Twice,
    "no matrix": lambda: nn.LayerNorm(24),
}


@pytest.mark.parametrize("name", LAST)
@pytest.mark.parametrize("tasks", [2, 12])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_the_last_layers_gram_matrix_is_that_of_one_backward_pass_a_task(name, tasks, dtype, tolerance):
    torch.manual_seed(0)
    trunk, x = LAST[name]().to(dtype), torch.randn(9, 24, dtype=dtype)
    heads = nn.ModuleList(nn.Linear(trunk(x).flatten(1).shape[1], 2) for _ in range(tasks)).to(dtype)

    def last(**options) -> Tensor:
        z = trunk(x)
        losses = [(head(z.flatten(1)) - k).pow(2).mean() for k, head in enumerate(heads)]
        return LastLayer(losses, branches(losses, [z]), [z], last_layer([z]), **options).gram()

    ours, expected = last(), last(products=lambda *_: [])
    assert_close(ours, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))


def test_layers_below_the_last_matrix_are_not_part_of_the_last_layer():
    model = Residual()
    found = {id(parameter) for parameter in last_layer([model(torch.randn(9, 24))])}
    assert found == {id(parameter) for parameter in model.last.parameters()}
    normalised = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4))
    found = {id(parameter) for parameter in last_layer([normalised(torch.randn(9, 4))])}
    assert found == {id(parameter) for parameter in normalised[2].parameters()}


@pytest.mark.parametrize(
    ("name", "simple"), [("pooled", True), ("averaged positions", True), ("few rows", True), ("softmax", False)]
)
def test_one_pattern_stands_for_all_tasks_only_where_it_is_all_there_is(name, simple, monkeypatch):
    torch.manual_seed(0)
    trunk = LAST[name]()
    z = trunk(torch.randn(9, 24))
    losses = [(z * torch.randn(z.shape)).sum() for _ in range(5)]
    passes = []
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *args, **options: passes.append(1) or grad(*args, **options))
    LastLayer(losses, branches(losses, [z]), [z], last_layer([z]))
    assert len(passes) == 1 + (2 if simple else 2 + 5)


@pytest.mark.parametrize("trunk", ["linear", "convolution"])
def test_with_many_tasks_the_last_layers_gram_matrix_is_close_by_a_projection_that_stays_the_same(trunk):
    torch.manual_seed(0)
    if trunk == "linear":
        model, x, width = nn.Sequential(nn.Linear(8, 300), nn.ReLU(), nn.Linear(300, 90), nn.ReLU()), (32, 8), 90
    else:
        last = nn.Conv2d(20, 100, 3)
        model = nn.Sequential(nn.Conv2d(3, 20, 3), nn.ReLU(), last, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        x, width = (32, 3, 8, 8), 100
    heads = nn.ModuleList(nn.Linear(width, 1) for _ in range(80))
    inputs, targets = torch.randn(*x), torch.randn(80, 32)

    def run(many: bool) -> Tensor:
        z = model(inputs)
        losses = [(head(z).squeeze(1) - y).pow(2).mean() for head, y in zip(heads, targets, strict=True)]
        options = {} if many else {"products": lambda *_: []}
        own = [list(head.parameters()) for head in heads]
        return LastLayer(losses, own, [z], last_layer([z]), **options).gram()

    exact, sketched = run(False), run(True)
    assert not torch.equal(exact, sketched)
    assert torch.equal(sketched, run(True))
    assert (cosines(exact) - cosines(sketched)).abs().mean() < 0.02
    assert ((sketched.diagonal() / exact.diagonal()).log().abs() < 0.3).all()
