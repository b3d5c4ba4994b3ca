"""What is told of a layer by its node is what autograd gives."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge
from torch.testing import assert_close

from motet.routes.layers import Conv, Linear, Product, find, products

EXACT = {"rtol": 1e-10, "atol": 1e-12}


class Scale(nn.Module):
    """A factor and a shift of the given shape."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.randn(shape))
        self.shift = nn.Parameter(torch.randn(shape))

    def forward(self, x: Tensor) -> Tensor:
        return torch.add(x * self.factor, self.shift, alpha=2.0)


class Token(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 5))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.token.expand(len(x), -1, -1), x], 1)


class Turned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(5, 7)), nn.Parameter(torch.randn(7))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x, self.weight)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x, x, x, need_weights=False)[0]


def without(name: str, module: nn.Module) -> nn.Module:
    getattr(module, name).requires_grad_(False)
    return module


KINDS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "linear": (lambda: nn.Linear(5, 7), lambda: torch.randn(6, 5)),
    "linear with positions": (lambda: nn.Linear(5, 7), lambda: torch.randn(6, 3, 5)),
    "linear without bias": (lambda: nn.Linear(5, 7, bias=False), lambda: torch.randn(6, 3, 5)),
    "linear with its weight frozen": (lambda: without("weight", nn.Linear(5, 7)), lambda: torch.randn(6, 5)),
    "weight not turned": (Turned, lambda: torch.randn(6, 5)),
    "1-d convolution": (lambda: nn.Conv1d(4, 6, 3, padding=1), lambda: torch.randn(6, 4, 7)),
    "2-d convolution": (
        lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)),
        lambda: torch.randn(6, 4, 7, 8),
    ),
    "3-d convolution": (lambda: nn.Conv3d(2, 3, 2, stride=2, bias=False), lambda: torch.randn(6, 2, 4, 5, 4)),
    "groups": (lambda: nn.Conv2d(4, 6, 3, groups=2), lambda: torch.randn(6, 4, 5, 5)),
    "transposed convolution": (lambda: nn.ConvTranspose2d(4, 3, 3, stride=2), lambda: torch.randn(6, 4, 3, 3)),
    "convolution with its weight frozen": (
        lambda: without("weight", nn.Conv2d(4, 6, 3)),
        lambda: torch.randn(6, 4, 5, 5),
    ),
    "embedding": (lambda: nn.Embedding(5, 3), lambda: torch.randint(5, (6, 4))),
    "padded embedding": (lambda: nn.Embedding(5, 3, padding_idx=1), lambda: torch.randint(5, (6, 4))),
    "layer norm": (lambda: nn.LayerNorm((4, 5)), lambda: torch.randn(6, 3, 4, 5)),
    "group norm": (lambda: nn.GroupNorm(2, 4), lambda: torch.randn(6, 4, 5)),
    "shift of a layer norm": (lambda: without("weight", nn.LayerNorm(5)), lambda: torch.randn(6, 3, 5)),
    "batch norm in evaluation": (lambda: nn.BatchNorm2d(4).eval(), lambda: torch.randn(6, 4, 3, 3)),
    "root mean square norm": (lambda: nn.RMSNorm(5), lambda: torch.randn(6, 3, 5)),
    "scale of features": (lambda: Scale(5), lambda: torch.randn(6, 3, 5)),
    "scale of channels": (lambda: Scale(4, 1, 1), lambda: torch.randn(6, 4, 3, 3)),
    "scale of all": (lambda: Scale(), lambda: torch.randn(6, 4)),
    "positions": (lambda: Scale(1, 3, 5), lambda: torch.randn(6, 3, 5)),
    "token": (Token, lambda: torch.randn(6, 3, 5)),
    "attention": (Attention, lambda: torch.randn(6, 3, 8)),
}


def build(name: str) -> tuple[nn.Module, Tensor]:
    """The module, and its output for six samples."""
    torch.manual_seed(0)
    module, inputs = KINDS[name]
    made, x = module().double(), inputs()
    return made, made(x if x.dtype == torch.long else x.double())


def trained(module: nn.Module) -> list[Tensor]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def samples(y: Tensor) -> Tensor:
    """A loss for every sample."""
    return (y - torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)).pow(2).flatten(1).sum(1)


@pytest.mark.parametrize("name", KINDS)
def test_gradients_from_rows_are_those_of_autograd(name):
    module, y = build(name)
    layers, left = find([y], trained(module))
    assert not left
    cotangents = torch.autograd.grad(samples(y).sum(), [GradientEdge(layer.node, 0) for layer in layers])
    module.zero_grad()
    for layer, cotangent in zip(layers, cotangents, strict=True):
        rows = layer.rows(cotangent)
        assert len({len(part) for part in rows}) == 1
        for parameter, gradient in zip(layer.parameters(), layer.gradients(*rows), strict=True):
            assert parameter.grad is None
            parameter.grad = gradient
    again, y = build(name)
    samples(y).sum().backward()
    for ours, theirs in zip(trained(module), trained(again), strict=True):
        assert_close(ours.grad, theirs.grad, **EXACT)


@pytest.mark.parametrize("name", [name for name in KINDS if name != "attention"])
@pytest.mark.parametrize("counts", [(1, 2, 0, 3), (6,), (1, 1, 1, 1, 1, 1)])
def test_gram_matrix_of_owners_is_that_of_their_own_gradients(name, counts):
    module, y = build(name)
    layers, _ = find([y], trained(module))
    cotangents = torch.autograd.grad(
        samples(y).sum(), [GradientEdge(layer.node, 0) for layer in layers], retain_graph=True
    )
    total = torch.zeros(len(counts), len(counts), dtype=torch.double)
    for layer, cotangent in zip(layers, cotangents, strict=True):
        rows = layer.rows(cotangent)
        per = len(rows[0]) // 6
        owners = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)).repeat_interleave(per)
        total += layer.gram(rows, owners, [count * per for count in counts])[0]
    parts = [part.sum() for part in samples(y).split(counts)]
    grads = [torch.autograd.grad(part, trained(module), retain_graph=True) for part in parts]
    expected = torch.stack([torch.cat([g.flatten() for g in grad]) for grad in grads])
    assert_close(total, expected @ expected.T, **EXACT)


@pytest.mark.parametrize("batch", [2, 60])  # Ghost products, and gradients block by block
def test_both_ways_to_a_linear_layers_gram_matrix_agree(batch):
    torch.manual_seed(0)
    layer = nn.Linear(20, 30).double()
    y = layer(torch.randn(batch, 20, dtype=torch.double))
    (found,) = products([y], layer.parameters())
    cotangent = torch.randn_like(y)
    owners = torch.arange(2).repeat_interleave(batch // 2)
    rows, counts = found.rows(cotangent), [batch // 2] * 2
    ours = found.gram(rows, owners, counts)[0]
    segments = found.segments(rows, owners, counts)
    expected = torch.cat([segment.flatten(1) for segment in segments], 1)
    assert_close(ours, expected @ expected.T, **EXACT)


@pytest.mark.parametrize("name", ["linear", "1-d convolution", "2-d convolution"])
@pytest.mark.parametrize("tasks", [1, 3, 40])
def test_cotangents_of_tasks_give_the_gram_matrix_of_their_gradients_both_ways(name, tasks, monkeypatch):
    module, y = build(name)
    (layer,) = products([y], module.parameters())
    torch.manual_seed(1)
    cotangents = torch.randn(tasks, *y.shape, dtype=torch.double)
    rows = [torch.autograd.grad(y, trained(module), cotangent, retain_graph=True) for cotangent in cotangents]
    expected = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])
    for kernel in (True, False):
        monkeypatch.setattr(Product, "kernel_pays", lambda *_, kernel=kernel: kernel)
        total = layer.accumulator(tasks)
        for task, cotangent in enumerate(cotangents):
            total.put(task, cotangent)
        assert_close(total.gram(), expected @ expected.T, **EXACT)
        total.put(0, None)
        assert not total.gram()[0].any()


def test_the_way_with_less_work_is_taken():
    few, many = (products([layer(torch.randn(4, 50))], layer.parameters())[0] for layer in (nn.Linear(50, 9),) * 2)
    assert few.kernel_pays(10)
    layer = nn.Linear(3, 9)
    many = products([layer(torch.randn(400, 3))], layer.parameters())[0]
    assert not many.kernel_pays(10)


def test_a_convolution_is_not_unfolded_into_more_room_than_the_cotangents_take():
    layer = nn.Conv2d(8, 4, 3)
    (found,) = products([layer(torch.randn(2, 8, 6, 6))], layer.parameters())
    assert isinstance(found, Conv)
    assert not found.unfolds(2)
    assert found.unfolds(40)


def test_what_belongs_to_no_known_layer_is_named_with_the_reason():
    torch.manual_seed(0)
    twice, hooked, known = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
    power, unused = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4))
    hooked.weight.register_hook(lambda gradient: gradient * 2)
    y = known(hooked(twice(twice(torch.randn(3, 4)))).sigmoid() ** power)
    modules = [*twice.parameters(), *hooked.parameters(), *known.parameters()]
    layers, left = find([y], [*modules, power, unused])
    assert [layer.weight is known.weight for layer in layers if isinstance(layer, Linear)] == [True]
    reasons = {id(parameter): reason for parameter, reason in left}
    assert reasons[id(twice.weight)] == "is used more than once"
    assert reasons[id(hooked.weight)] == "has a hook"
    assert reasons[id(hooked.bias)] == "belongs to a layer with such a one"
    assert "PowBackward" in reasons[id(power)]
    assert id(unused) not in reasons


@pytest.mark.parametrize("options", [{"sparse": True}, {"scale_grad_by_freq": True}])
def test_embeddings_whose_gradient_is_no_sum_over_rows_are_not_known(options):
    table = nn.Embedding(4, 3, **options)
    assert find([table(torch.arange(4))], table.parameters())[0] == []


def test_batch_norm_in_training_is_not_known():
    norm = nn.BatchNorm1d(3)
    layers, left = find([norm(torch.randn(4, 3))], norm.parameters())
    assert layers == []
    assert len(left) == 2
