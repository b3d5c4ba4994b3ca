"""Look-ahead affinity against its definition by hand, and that measuring leaves no trace."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from motet.grouping import lookahead
from motet.grouping.lookahead import feature_affinity, lookahead_affinity

TASKS = ("a", "b", "c")


class Net(nn.Module):
    """A trunk with dropout and batch normalisation, and a linear head for each of three tasks."""

    def __init__(self, dtype: torch.dtype = torch.float64, dropout: float = 0.3, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.trunk = nn.Sequential(
            nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 6, bias=False)
        )
        self.heads = nn.ModuleDict({task: nn.Linear(6, 1) for task in TASKS})
        self.to(dtype)
        self.x, self.y = torch.randn(16, 5, dtype=dtype), torch.randn(16, 3, dtype=dtype)

    def losses(self) -> dict[str, Tensor | None]:
        z = self.trunk(self.x)
        return {t: (head(z)[:, 0] - self.y[:, k]).pow(2).mean() for k, (t, head) in enumerate(self.heads.items())}


def by_definition(net: Net, lr: float) -> Tensor:
    """A with torch's own optimizer, on a copy of the model and from the same random state for every pass."""

    def evaluate(model: Net) -> dict[str, Tensor]:
        torch.manual_seed(3)
        return model.losses()

    rows = []
    for source in TASKS:
        model = copy.deepcopy(net)
        before = evaluate(model)
        # Running statistics do not enter a loss in training mode, so one copy serves for both passes.
        optimizer = torch.optim.SGD(model.trunk.parameters(), lr=lr)
        before[source].backward()
        optimizer.step()
        after = evaluate(model)
        rows.append([1 - after[k].item() / before[k].item() for k in TASKS])
    return torch.tensor(rows, dtype=torch.float64)


def trace(net: nn.Module) -> dict[str, object]:
    """All that a measurement might change."""
    return {
        "values": {name: value.clone() for name, value in net.state_dict().items()},
        "gradients": {name: None if p.grad is None else p.grad.clone() for name, p in net.named_parameters()},
        "versions": [p._version for p in net.parameters()],
        "flags": [p.requires_grad for p in net.parameters()],
        "torch": torch.random.get_rng_state(),
        "numpy": torch.from_numpy(np.random.get_state()[1].copy()),  # noqa: NPY002 - the one that models use
        "python": random.getstate(),
    }


def assert_same(found: object, expected: object) -> None:
    if isinstance(expected, Tensor):
        assert isinstance(found, Tensor)
        assert torch.equal(found, expected)
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name in expected:
            assert_same(found[name], expected[name])
    else:
        assert found == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("lr", [1e-2, 0.3])
def test_it_is_the_relative_decrease_after_a_real_step_for_one_task(lr, dtype):
    net = Net(dtype)
    torch.manual_seed(3)
    found = lookahead_affinity(net.losses, net.trunk, lr)
    assert found.dtype == torch.float64
    assert found.device.type == "cpu"
    assert not found.requires_grad
    assert_close(found, by_definition(net, lr), rtol=1e-12, atol=1e-13)


def test_parameters_do_for_the_module_that_holds_them():
    net = Net(dropout=0.0)
    whole = lookahead_affinity(net.losses, net.trunk, 0.1)
    assert torch.equal(lookahead_affinity(net.losses, net.trunk.parameters(), 0.1), whole)
    only_last = lookahead_affinity(net.losses, net.trunk[-1], 0.1)
    net.trunk[:-1].requires_grad_(False)
    assert torch.equal(lookahead_affinity(net.losses, net.trunk, 0.1), only_last)


def test_a_step_of_no_length_changes_no_loss_though_masks_are_random():
    net = Net(dropout=0.5)

    def losses():
        found = net.losses()
        return found | {"still": found["a"].detach() + 0 * net.heads["a"].weight.sum(), "gone": None}

    found = lookahead_affinity(losses, net.trunk, 0.1)
    assert torch.equal(found[3, :4], torch.zeros(4, dtype=torch.float64))
    assert (found[:3, :3] != 0).all()
    assert torch.equal(found[:3, 3], found[:3, 0])  # as a target it is task a


def test_measuring_leaves_no_trace():
    net = Net()
    sum(net.losses().values()).backward()

    def losses():
        noise = random.random() + np.random.random()  # noqa: NPY002 - the one that models use
        return {task: loss + noise for task, loss in net.losses().items()}

    held = net.losses()
    before = trace(net)
    assert lookahead_affinity(losses, net.trunk, 0.5).isfinite().all()
    assert_same(trace(net), before)
    sum(held.values()).backward()  # a graph from before does not take the parameters for changed ones


def test_a_buffer_that_each_pass_changes_is_the_same_in_all_of_them_and_in_their_backward_passes():
    class Gain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))
            self.register_buffer("gain", torch.ones(2, dtype=torch.float64))

        def forward(self) -> Tensor:
            self.gain.mul_(3.0)
            return self.w * self.gain

    model = Gain()

    def losses():
        output = model()
        return {"a": output.sum(), "b": 1 + output[0]}

    # At a gain of 3 the losses are 9 and 4, their gradients (3, 3) and (3, 0).
    expected = torch.tensor([[1.8 / 9, 0.9 / 4], [0.9 / 9, 0.9 / 4]], dtype=torch.float64)
    assert_close(lookahead_affinity(losses, model, 0.1), expected)
    assert torch.equal(model.gain, torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("call", range(1, 8))
def test_a_closure_that_raises_leaves_no_trace_either(call):
    net, calls = Net(), 0

    def losses():
        nonlocal calls
        calls += 1
        found = net.losses()
        if calls == call:
            raise KeyboardInterrupt
        return found

    before = trace(net)
    with pytest.raises(KeyboardInterrupt):
        lookahead_affinity(losses, net.trunk, 0.5)
    assert_same(trace(net), before)
    assert calls == call


def test_it_calls_the_closure_2k_plus_1_times_and_reads_the_device_once_a_source(monkeypatch):
    net, calls, reads = Net(), 0, []
    read = lookahead.host_values
    monkeypatch.setattr(lookahead, "host_values", lambda losses: reads.append(len(losses)) or read(losses))

    def losses():
        nonlocal calls
        calls += 1
        return net.losses()

    lookahead_affinity(losses, net.trunk, 0.1)
    assert calls == 7
    assert reads == [9, 9, 9]


def test_it_measures_also_where_gradients_are_off_or_a_loss_holds_derivatives():
    net = Net(dropout=0.0)
    net.x.requires_grad_(True)

    def losses():
        slope = torch.autograd.grad(net.trunk(net.x).sum(), net.x, create_graph=True)[0]
        return {"slope": slope.pow(2).mean(), "a": net.losses()["a"]}

    with torch.no_grad():
        found = lookahead_affinity(losses, net.trunk, 1e-3)
    assert found.isfinite().all()
    assert (found.diagonal() > 0).all()


def test_an_autocast_around_it_does_not_hide_the_step():
    net = Net(torch.float32, dropout=0.0)
    plain = lookahead_affinity(net.losses, net.trunk, 0.3)
    with torch.autocast("cpu", torch.bfloat16):
        start = net.losses()["a"].item()
        found = lookahead_affinity(net.losses, net.trunk, 0.3)
        assert net.losses()["a"].item() == start
    assert_close(found, plain, rtol=0.1, atol=0.02)


def test_sparse_gradients_of_embeddings_are_steps_too():
    torch.manual_seed(0)
    table, words = nn.Embedding(7, 3, sparse=True), torch.tensor([0, 3, 3, 5])
    twin = nn.Embedding.from_pretrained(table.weight.detach().clone(), freeze=False)

    def losses(embedding):
        return lambda: {"a": embedding(words).pow(2).mean(), "b": (embedding(words) - 1).pow(2).mean()}

    assert_close(lookahead_affinity(losses(table), table, 0.1), lookahead_affinity(losses(twin), twin, 0.1))


def test_absent_and_constant_tasks_are_nan_and_the_others_as_without_them():
    net = Net(dropout=0.0)

    def some():
        found = net.losses()
        return {"c": found["c"], "b": None, "n": torch.tensor(0.0), "a": found["a"]}

    whole = lookahead_affinity(net.losses, net.trunk, 0.1)
    found = lookahead_affinity(some, net.trunk, 0.1, tasks=["a", "b", "c", "n", "never"])
    assert torch.equal(found[:3, :3][[0, 2]][:, [0, 2]], whole[[0, 2]][:, [0, 2]])
    assert found.isnan().sum() == 25 - 4
    by_itself = lookahead_affinity(some, net.trunk, 0.1)  # in the closure's order
    assert torch.equal(by_itself[[0, 3]][:, [0, 3]], whole[[2, 0]][:, [2, 0]])


def test_one_task_and_no_task():
    net = Net(dropout=0.0)
    alone = lookahead_affinity(lambda: {"b": net.losses()["b"]}, net.trunk, 0.1)
    assert torch.equal(alone, lookahead_affinity(net.losses, net.trunk, 0.1)[1:2, 1:2])
    assert lookahead_affinity(lambda: {"a": None, "b": None}, net.trunk, 0.1).isnan().all()


def test_rescaling_a_loss_changes_its_own_row_only():
    net = Net(dropout=0.0)
    plain = lookahead_affinity(net.losses, net.trunk, 0.1)
    scaled = lookahead_affinity(lambda: {**net.losses(), "b": 1e-9 * net.losses()["b"]}, net.trunk, 0.1)
    assert_close(scaled[[0, 2]], plain[[0, 2]], rtol=1e-9, atol=1e-12)
    assert (scaled[1].abs() < 1e-8).all()


def test_positive_means_improved_for_negative_losses_and_a_loss_of_zero_has_no_share_to_lose():
    p = nn.Parameter(torch.tensor([1.0, 1.0], dtype=torch.float64))

    def losses():
        return {"negative": (p**2).sum() - 4, "zero": p[0] - p[1], "mean": p.sum()}

    # Steps of 0.1: along (2, 2), (1, -1) and (1, 1). The first task's loss is -2, the last one's 2.
    expected = torch.tensor([[0.36, 0.2], [-0.01, 0.0], [0.19, 0.1]], dtype=torch.float64)
    found = lookahead_affinity(losses, [p], 0.1)
    assert_close(found[:, [0, 2]], expected)
    assert found[:, 1].isnan().all()


@pytest.mark.parametrize("lr", [0.0, -1.0, float("nan"), float("inf")])
def test_the_step_must_have_a_length(lr):
    net = Net()
    with pytest.raises(ValueError, match="lr .* positive and finite"):
        lookahead_affinity(net.losses, net.trunk, lr)
    with pytest.raises(ValueError, match="lr .* positive and finite"):
        feature_affinity(net.losses(), net.x, lr)


def test_what_cannot_be_measured_is_named():
    net, p = Net(), nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def fails(closure, message, shared=net.trunk, **options):
        before = trace(net)
        with pytest.raises((ValueError, TypeError), match=message):
            lookahead_affinity(closure, shared, 0.1, **options)
        assert_same(trace(net), before)

    fails(lambda: {**net.losses(), "b": net.losses()["b"] * torch.nan}, "loss of task 'b' is nan")
    fails(lambda: {**net.losses(), "b": net.losses()["b"] + torch.inf}, "loss of task 'b' is inf")
    fails(lambda: {"one": 1 + p.sum(), "root": 1 + p.abs().sqrt().sum()}, "gradient of task 'root' is not", [p])
    fails(
        lambda: {"one": 1 + p.sum(), "log": 1 - (p + 0.05).log().sum()},
        "task 'one' makes the loss of task 'log' nan",
        [p],
    )
    fails(net.losses, "task 'c', which is unknown: did you mean 'cc'", tasks=["a", "b", "cc"])
    fails(net.losses, "shared is None", None)
    fails(net.losses, "frozen", nn.Linear(2, 2).requires_grad_(False))
    fails(lambda: list(net.losses().values()), "must be a dict")
    fails(lambda: {"a": torch.tensor(1.0)}, "no loss depends on any parameter")
    with pytest.raises(ValueError, match="lr=1e\\+308 .* take a smaller lr"):
        lookahead_affinity(net.losses, net.trunk, 1e308)


def test_a_closure_that_draws_a_new_batch_is_found_out():
    net = Net()
    batches = iter(torch.randn(9, 16, 5, dtype=torch.float64))

    def losses():
        net.x = next(batches)
        return net.losses()

    before = [p.clone() for p in net.parameters()]
    with pytest.raises(ValueError, match="task 'a' was .* same batch in every call"):
        lookahead_affinity(losses, net.trunk, 0.1)
    assert all(torch.equal(p, old) for p, old in zip(net.parameters(), before, strict=True))
    present = iter([True, False])
    with pytest.raises(ValueError, match="task 'b' in some of its calls only"):
        lookahead_affinity(lambda: {**net.losses(), "b": net.losses()["b"] if next(present) else None}, net.trunk, 0.1)


def test_features_by_hand():
    net = Net(dropout=0.0)
    z = net.trunk(net.x)
    losses = {task: (head(z)[:, 0] - net.y[:, k]).pow(2).mean() for k, (task, head) in enumerate(net.heads.items())}
    rows = [torch.autograd.grad(loss, z, retain_graph=True)[0] for loss in losses.values()]
    expected = torch.stack(
        [torch.stack([0.2 * (i * k).sum() / loss for k, loss in zip(rows, losses.values(), strict=True)]) for i in rows]
    )
    found = feature_affinity(losses, z, 0.2)
    assert_close(found, expected.detach())
    assert found.dtype == torch.float64
    assert all(p.grad is None for p in net.parameters())
    sum(losses.values()).backward()  # the graph is still there


def test_features_are_the_first_order_of_a_step_at_the_features():
    net = Net(dropout=0.0)
    z = nn.Parameter(net.trunk(net.x).detach())

    def losses():
        return {task: (head(z)[:, 0] - net.y[:, k]).pow(2).mean() for k, (task, head) in enumerate(net.heads.items())}

    errors = [(lookahead_affinity(losses, [z], lr) - feature_affinity(losses(), z, lr)).norm() for lr in (1e-3, 1e-4)]
    assert errors[0] / errors[1] == pytest.approx(100, rel=0.02)


def test_a_linear_trunk_on_orthonormal_inputs_has_the_affinity_of_its_features():
    generator = torch.Generator().manual_seed(0)
    x = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64))[0]
    trunk = nn.Linear(6, 4, bias=False).double()
    heads = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    targets = torch.randn(6, 5, generator=generator, dtype=torch.float64)

    def losses(z):
        return {str(k): 1 + (z @ heads[k] - targets[:, k]).pow(2).mean() for k in range(5)}

    z = trunk(x)
    estimate = feature_affinity(losses(z), z, 1e-6)
    truth = lookahead_affinity(lambda: losses(trunk(x)), trunk, 1e-6)
    assert (truth < 0).any()
    assert torch.equal(estimate.sign(), truth.sign())
    assert_close(estimate, truth, rtol=1e-3, atol=1e-10)


def test_features_of_absent_constant_and_zero_losses():
    z = torch.ones(3, requires_grad=True)
    losses = {"a": z.sum(), "gone": None, "empty": torch.tensor(0.0), "zero": z[0] - z[1], "negative": -2 * z.sum()}
    nan = torch.nan
    expected = torch.tensor(
        [
            [0.1, nan, nan, nan, -0.1],
            [nan] * 5,
            [nan] * 5,
            [0.0, nan, nan, nan, 0.0],
            [-0.2, nan, nan, nan, 0.2],
        ],
        dtype=torch.float64,
    )
    assert_close(feature_affinity(losses, z, 0.1), expected, equal_nan=True)
    assert feature_affinity({"a": None, "b": None}, z, 0.1).isnan().all()
    assert feature_affinity({"a": z.sum()}, z, 0.1) == pytest.approx(0.1)


def test_several_features_count_together_and_heads_may_share_parameters():
    first, head = torch.randn(4, 3, requires_grad=True), nn.Linear(3, 1)
    second = torch.randn(4, 3, requires_grad=True)
    losses = {"a": head(first).pow(2).sum() + head(second).pow(2).sum(), "b": (head(first) - 1).pow(2).sum()}
    rows = [
        torch.cat(
            [
                g.flatten()
                for g in torch.autograd.grad(
                    loss, [first, second], retain_graph=True, allow_unused=True, materialize_grads=True
                )
            ]
        )
        for loss in losses.values()
    ]
    gram = torch.stack(rows) @ torch.stack(rows).T
    expected = 0.1 * gram / torch.stack([*losses.values()])
    assert_close(feature_affinity(losses, [first, second], 0.1).float(), expected.detach())


def test_features_that_cannot_be_used_are_named():
    z = torch.ones(3, requires_grad=True)
    with pytest.raises(ValueError, match="task 'b' does not use the features"):
        feature_affinity({"a": z.sum(), "b": torch.ones((), requires_grad=True) * 2}, z, 0.1)
    with pytest.raises(ValueError, match="frozen"):
        feature_affinity({"a": z.sum()}, z.detach(), 0.1)
    with pytest.raises(ValueError, match="features is empty"):
        feature_affinity({"a": z.sum()}, None, 0.1)
    with pytest.raises(ValueError, match="loss of task 'b' is inf"):
        feature_affinity({"a": z.sum(), "b": z.sum() + torch.inf}, z, 0.1)
    with pytest.raises(ValueError, match="gradient of task 'b' at the features is not finite"):
        feature_affinity({"a": z.sum(), "b": (z - 1).abs().sqrt().sum()}, z, 0.1)
