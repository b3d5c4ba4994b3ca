"""Products with the Jacobian: exact on every kind of layer, and no trace of them in training."""

import copy
import logging
import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from motet.routes.forward_mode import difference_product, forward_product
from motet.routes.probe import Probe, ProbeError
from motet.routes.weighted import Weighted

TASKS = ("depth", "normals", "edges")


class Plain(torch.autograd.Function):
    """y = x·w with a derivative of its derivative, but none in forward mode."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x * w

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return g * w, (g * x).sum(0)


class Once(Plain):
    """The same, differentiable once."""

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        return Plain.backward(ctx, g)


class Hidden(Plain):
    """The same, whose backward pass hides the cotangent from differentiation."""

    @staticmethod
    def backward(ctx, g):
        return Plain.backward(ctx, g.detach())


class Gain(nn.Module):
    def __init__(self, function=Plain):
        super().__init__()
        self.function, self.w = function, nn.Parameter(torch.tensor([1.0, 2.0, -1.0, 0.5, 1.5, 1.0]))

    def forward(self, x):
        return self.function.apply(x, self.w)


class Attention(nn.Module):
    """Attention that takes a fused kernel, which has one derivative and no second."""

    def __init__(self):
        super().__init__()
        self.project, self.out = nn.Linear(4, 24), nn.Linear(8, 6)

    def forward(self, x):
        q, k, v = self.project(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        return self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2).mean(1))


class Last(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0][:, -1]


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 6))

    def forward(self, x):
        return checkpoint(self.inner, x, use_reentrant=False)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 6)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.out(torch.tanh(self.b(torch.tanh(self.a(x)))))


class Stopped(nn.Module):
    """Divides by a norm that gradients do not pass."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 6)

    def forward(self, x):
        z = self.a(x)
        with torch.no_grad():
            size = z.norm() + self.a.weight.norm()
        return torch.tanh(z) * size


def _encoder():
    return nn.Sequential(
        nn.TransformerEncoderLayer(4, 2, 8, dropout=0.2, batch_first=True), nn.Flatten(), nn.Linear(20, 6)
    )


TRUNKS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 6)), (16, 4)),
    "conv": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        ),
        (8, 3, 7, 7),
    ),
    "norm": (lambda: nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.GELU(), nn.GroupNorm(2, 6)), (16, 4)),
    "transformer": (_encoder, (8, 5, 4)),
    "embedding": (lambda: nn.Sequential(nn.Embedding(9, 3), nn.Flatten(), nn.Linear(15, 6)), (8, 5)),
    "gru": (lambda: Last(nn.GRU(4, 6, batch_first=True)), (8, 5, 4)),
    "lstm": (lambda: Last(nn.LSTM(4, 6, 2, batch_first=True, dropout=0.2)), (8, 5, 4)),
    "checkpoint": (Checkpointed, (16, 4)),
    "tied": (Tied, (16, 4)),
    "no_grad": (Stopped, (16, 4)),
    "spectral norm": (
        lambda: nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(4, 6)), nn.Tanh()),
        (16, 4),
    ),
    "custom function": (lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), Gain()), (16, 4)),
}


class Net(nn.Module):
    """A trunk, three heads, and one batch."""

    def __init__(self, name: str = "mlp", dtype: torch.dtype = torch.float64, trunk: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        make, shape = TRUNKS[name]
        self.trunk = trunk or make()
        self.heads = nn.ModuleDict({task: nn.Linear(6, 1) for task in TASKS})
        self.to(dtype)
        self.x = torch.randint(9, shape) if name == "embedding" else torch.randn(shape, dtype=dtype)
        self.seed: int | None = None

    def shared(self) -> list[Tensor]:
        return list(self.trunk.parameters())

    def losses(self) -> dict[str, Tensor]:
        if self.seed is not None:
            torch.manual_seed(self.seed)
        random.random(), np.random.rand()  # noqa: NPY002 - as a model may draw that skips layers
        z = self.trunk(self.x)
        return {task: (head(z) - i).pow(2).mean() for i, (task, head) in enumerate(self.heads.items())}

    def step(self, probe: Probe):
        losses = self.losses()
        return probe.step(list(losses.values()), TASKS, self.shared())


def jacobian(net: Net) -> Tensor:
    """Row by row, by ordinary backward passes over one forward pass."""
    losses, shared = net.losses().values(), net.shared()
    rows = [torch.autograd.grad(loss, shared, retain_graph=True) for loss in losses]
    return torch.stack([torch.cat([part.reshape(-1) for part in row]) for row in rows])


def oracle(net: Net, weights: Tensor) -> Tensor:
    rows = jacobian(copy.deepcopy(net)).double()
    return rows @ (rows.T @ weights.double())


def split(net: Net, row: Tensor) -> list[Tensor]:
    parts = row.split([p.numel() for p in net.shared()])
    return [part.view(p.shape) for part, p in zip(parts, net.shared(), strict=True)]


def state(net: Net):
    return {name: value.clone() for name, value in net.state_dict().items()}


WEIGHTS = torch.tensor([0.7, 1.9, 0.4])
EXACT = {torch.float64: 1e-10, torch.float32: 1e-4}


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("name", TRUNKS)
def test_a_double_backward_pass_gives_the_product_on_the_steps_own_graph(name, dtype):
    net = Net(name, dtype)
    net.seed = 3  # The oracle's dropout masks are those of the step.
    expected = oracle(net, WEIGHTS)
    found = net.step(Probe()).finish(WEIGHTS.to(dtype), torch.ones(3, dtype=dtype))
    assert relative(found, expected) < EXACT[dtype]


@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("name", TRUNKS)
def test_a_closure_gives_the_product(name, dtype, caplog):
    net = Net(name, dtype)
    net.seed = 3
    probe = Probe(net.losses)
    step = net.step(probe)
    # A closure sees the model after the step's forward pass, which for spectral norms is another.
    rows = jacobian(copy.deepcopy(net)).double()
    found = step.finish(WEIGHTS.to(dtype), torch.ones(3, dtype=dtype))
    expected = rows @ torch.cat([part.reshape(-1) for part in step.gradients.direction]).double()
    assert relative(found, expected) < EXACT[dtype]
    # Custom functions without a derivative in forward mode are the only ones here that need another way.
    assert probe.way == ("a double backward pass" if name == "custom function" else "forward mode")
    assert len(caplog.records) == (name == "custom function")


@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("name", [name for name in TRUNKS if name not in ("no_grad", "spectral norm")])
def test_finite_differences_come_near_the_product(name, dtype):
    net = Net(name, dtype)
    net.seed = 3
    expected = oracle(net, WEIGHTS)
    rows = jacobian(copy.deepcopy(net))
    found = difference_product(lambda: list(net.losses().values()), net.shared(), split(net, WEIGHTS.to(dtype) @ rows))
    assert relative(found, expected) < {torch.float64: 1e-6, torch.float32: 1e-2}[dtype]


def ways(net: Net):
    closure, shared = lambda: list(net.losses().values()), net.shared()
    direction = [torch.ones_like(p) for p in shared]
    probe = Probe(net.losses)
    double = Probe(net.losses, ways=["a double backward pass"])
    return {
        "probe": lambda: probe.along(TASKS, shared, direction),
        "forward": lambda: forward_product(closure, shared, direction),
        "double": lambda: double.along(TASKS, shared, direction),
        "differences": lambda: difference_product(closure, shared, direction),
    }


@pytest.mark.parametrize(
    ("name", "way"),
    [
        (name, way)
        for name in TRUNKS
        for way in ("probe", "forward", "double", "differences")
        if (name, way) != ("custom function", "forward")  # It has no derivative in forward mode.
    ],
)
def test_a_probe_leaves_no_trace(name, way):
    net = Net(name)
    before, versions = state(net), [p._version for p in net.parameters()]
    draws = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    buffers = dict(net.named_buffers())
    ways(net)[way]()
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(buffer is buffers[key] for key, buffer in net.named_buffers())
    assert [p._version for p in net.parameters()] == versions
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert torch.equal(torch.get_rng_state(), draws[0])
    assert random.getstate() == draws[1]
    assert np.array_equal(np.random.get_state()[1], draws[2])  # noqa: NPY002


def test_a_probe_that_fails_leaves_no_trace_either():
    net = Net("conv")

    def broken():
        net.losses()
        raise KeyError("labels")

    before, draws = state(net), torch.get_rng_state()
    for probe in (
        lambda: forward_product(broken, net.shared(), net.shared()),
        lambda: difference_product(broken, net.shared(), net.shared()),
    ):
        with pytest.raises(KeyError, match="labels"):
            probe()
        assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
        assert all(p.requires_grad for p in net.parameters())
        assert torch.equal(torch.get_rng_state(), draws)
    assert torch.is_grad_enabled()
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_training_step_with_a_probe_ends_where_one_without_it_ends():
    def train(probing: bool):
        net = Net("transformer")
        torch.manual_seed(1)
        probe = Probe(net.losses)
        for _ in range(3):
            losses = net.losses()
            if probing:
                step = probe.step(list(losses.values()), TASKS, net.shared())
                step.finish(torch.ones(3), torch.ones(3))
                step.gradients.write()
            else:
                sum(losses.values()).backward()
            with torch.no_grad():
                for p in net.parameters():
                    p -= 0.1 * p.grad
                    p.grad = None
        return torch.cat([p.reshape(-1) for p in net.parameters()])

    assert_close(train(True), train(False), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("closure", [False, True])
def test_the_trunk_gets_the_weighted_gradient_and_every_head_its_own(closure):
    net, scale = Net("conv"), torch.tensor([1.0, 3.0, 2.0])
    net.seed = 3
    rows = jacobian(copy.deepcopy(net))
    own = {t: torch.autograd.grad(net.losses()[t], net.heads[t].weight)[0] for t in TASKS}
    step = net.step(Probe(net.losses if closure else None))
    step.product(torch.tensor([1.0, 0.0, 0.0]))
    step.finish(WEIGHTS, scale)
    assert all(p.grad is None for p in net.parameters())
    assert step.gradients.finite()
    step.gradients.write()
    trunk = torch.cat([p.grad.reshape(-1) for p in net.shared()])
    assert_close(trunk, WEIGHTS.double() @ rows)
    for task, factor in zip(TASKS, scale, strict=True):
        assert_close(net.heads[task].weight.grad, factor * own[task])
    assert (step.trunk_backwards, step.products) == (2, 2)


@pytest.mark.parametrize("closure", [False, True])
def test_more_products_in_one_step_are_columns_of_the_gram_matrix(closure):
    net = Net("conv")
    net.seed = 3
    rows = jacobian(copy.deepcopy(net))
    step = net.step(Probe(net.losses if closure else None))
    found = torch.stack([step.product(unit) for unit in torch.eye(3)])
    assert_close(found, rows @ rows.T)
    direction = torch.ones(rows.shape[1], dtype=rows.dtype)
    assert_close(step.along(split(net, direction)), rows @ direction)


def test_a_closure_on_a_part_of_the_batch_gives_that_parts_product():
    net = Net()
    whole, part = net.x, net.x[:4]

    def quarter():
        net.x = part
        losses = net.losses()
        net.x = whole
        return {"edges": losses["edges"], "depth": losses["depth"], "normals": None}

    step = net.step(Probe(quarter))
    found = step.finish(WEIGHTS, torch.ones(3))
    direction = torch.cat([p.reshape(-1) for p in step.gradients.direction])
    net.x = part
    expected = jacobian(net) @ direction
    assert_close(found[[0, 2]], expected[[0, 2]])
    assert found[1].isnan()


def test_a_task_that_does_not_use_the_trunk_gains_nothing():
    net = Net()
    free = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def losses():
        return {**net.losses(), "edges": free**2}

    for probe in (Probe(), Probe(losses)):
        found = losses()
        t = probe.step(list(found.values()), TASKS, net.shared()).finish(WEIGHTS, torch.ones(3))
        assert t[2] == 0
        assert (t[:2] != 0).all()


def test_without_a_closure_an_operation_without_second_derivative_is_named_with_what_to_do():
    for function in (Once, Hidden):
        net = Net(trunk=nn.Sequential(nn.Linear(4, 6), Gain(function)))
        with pytest.raises(ProbeError, match="probe=closure.*route='features'"):
            net.step(Probe()).finish(WEIGHTS, torch.ones(3))
        assert all(p.grad is None for p in net.parameters())


def test_ways_that_fail_are_left_for_good_with_one_line_each(caplog):
    net = Net(trunk=nn.Sequential(nn.Linear(4, 6), nn.Tanh(), Gain(Once)))
    probe, expected = Probe(net.losses), oracle(net, WEIGHTS)
    for _ in range(3):
        assert relative(net.step(probe).finish(WEIGHTS, torch.ones(3)), expected) < 1e-6
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    first, second = (record.getMessage() for record in caplog.records)
    assert "a double backward pass, since forward mode failed: You must implement the jvp" in first
    assert "finite differences, since a double backward pass failed" in second


def test_finite_differences_are_not_trusted_where_no_grad_hides_a_dependence():
    net = Net("no_grad")
    probe = Probe(net.losses, ways=["finite differences"])
    with pytest.raises(ProbeError, match="where a backward pass gives"):
        net.step(probe).finish(WEIGHTS, torch.ones(3))


def test_half_precision_is_refused_finite_differences():
    net = Net(trunk=nn.Sequential(nn.Linear(4, 6), Gain(Once)), dtype=torch.bfloat16)
    with pytest.raises(ProbeError, match=r"float32 or float64 throughout, and this is bfloat16.*route='features'"):
        net.step(Probe(net.losses)).finish(WEIGHTS, torch.ones(3))
    net = Net(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(TypeError, match="autocast"):
        difference_product(lambda: list(net.losses().values()), net.shared(), net.shared())


def test_fused_attention_is_had_by_plain_kernels_from_a_closure_and_named_without_one(caplog):
    torch.manual_seed(0)
    net = Net("transformer", trunk=Attention())
    rows = jacobian(net)
    direction = split(net, WEIGHTS.double() @ rows)
    for way in ("forward mode", "a double backward pass"):
        probe = Probe(net.losses, ways=[way])
        assert relative(probe.along(TASKS, net.shared(), direction), oracle(net, WEIGHTS)) < 1e-10
    with pytest.raises(ProbeError, match=r"sdpa_kernel\(SDPBackend.MATH\), or pass probe=closure"):
        net.step(Probe()).finish(WEIGHTS, torch.ones(3))


@pytest.mark.parametrize("closure", [False, True])
def test_half_precision_products_are_right_to_its_accuracy(closure):
    net = Net(dtype=torch.bfloat16)
    expected = oracle(net, WEIGHTS)
    found = net.step(Probe(net.losses if closure else None)).finish(WEIGHTS, torch.ones(3))
    assert relative(found, expected) < 0.02


def test_a_wrong_forward_derivative_is_found_out(caplog):
    class Wrong(Plain):
        @staticmethod
        def jvp(ctx, x, w):
            return x * 17

    net = Net(trunk=nn.Sequential(nn.Linear(4, 6), nn.Tanh(), Gain(Wrong)))
    expected = oracle(net, WEIGHTS)
    assert relative(net.step(Probe(net.losses)).finish(WEIGHTS, torch.ones(3)), expected) < 1e-10
    assert "forward mode failed: it gives" in caplog.text


def test_gradients_through_weighted_losses_in_one_pass_are_the_plain_ones():
    net = Net()
    losses, weights = list(net.losses().values()), WEIGHTS.double()
    expected = torch.autograd.grad(torch.stack(losses) @ weights, list(net.parameters()), retain_graph=True)
    gradients = Weighted(losses, weights, weights, net.shared())
    assert gradients.head_backwards == 0
    gradients.write()
    for parameter, gradient in zip(net.parameters(), expected, strict=True):
        assert_close(parameter.grad, gradient)


def test_known_weights_add_to_grad_and_pass_over_what_no_loss_uses():
    net = Net()
    idle = nn.Parameter(torch.ones(2))
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    Weighted(list(net.losses().values()), WEIGHTS, torch.zeros(3), [*net.shared(), idle]).write()
    assert idle.grad is None
    assert torch.equal(net.heads["depth"].weight.grad, torch.ones(1, 6, dtype=torch.float64))
    row = torch.cat([p.grad.reshape(-1) for p in net.shared()])
    assert_close(row, 1 + WEIGHTS.double() @ jacobian(net))


def test_the_task_of_a_bad_gradient_is_named():
    net = Net()
    losses = net.losses()
    losses["normals"] = losses["normals"] + (net.heads["normals"].bias * 0).abs().pow(0.5).sum()
    gradients = Weighted(list(losses.values()), WEIGHTS, torch.ones(3), net.shared())
    assert not gradients.finite()
    assert gradients.culprits() == [1]
    losses = {task: loss + (net.shared()[0] * 0).abs().pow(0.5).sum() for task, loss in net.losses().items()}
    gradients = Weighted(list(losses.values()), torch.tensor([1.0, 0.0, 1.0]), torch.ones(3), net.shared())
    assert not gradients.finite()
    assert gradients.culprits() == [0, 1, 2] or gradients.culprits() == [0, 2]


def test_a_way_that_does_not_exist_is_refused():
    for ways in ([], ["forward"]):
        with pytest.raises(ValueError, match="ways must be some of 'forward mode'"):
            Probe(dict, ways)
