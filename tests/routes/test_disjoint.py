"""Where every sample belongs to one task, one backward pass gives what one a task gives."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from motet.routes import Exact
from motet.routes.base import NoPathError
from motet.routes.disjoint import Disjoint, infer_assignment

OWNERS = torch.tensor([2, 0, 1, 2, 2, 0, 1, 0, 3, 3, 1, 0])
TASKS, BATCH = 4, len(OWNERS)


class Words(nn.Module):
    """Embedded tokens with positions, and one transformer layer."""

    def __init__(self, **options) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 8)
        self.positions = nn.Parameter(torch.randn(1, 5, 8))
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **options)

    def forward(self, x: Tensor) -> Tensor:
        tokens = (x[:, :5].abs() * 3).long().clamp(max=6)
        return self.layer(self.table(tokens) + self.positions).mean(1)


def pictures(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Unflatten(1, (1, 4, 6)), *layers, nn.Flatten())


TRUNKS: dict[str, Callable[[], nn.Module]] = {
    "wide perceptron": lambda: nn.Sequential(nn.Linear(24, 60), nn.ReLU(), nn.Linear(60, 50), nn.Tanh()),
    "narrow perceptron": lambda: nn.Sequential(nn.Linear(24, 2, bias=False), nn.Tanh(), nn.Linear(2, 3)),
    "convolutions": lambda: pictures(nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU(), nn.Conv2d(4, 6, 2)),
    "groups": lambda: pictures(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 3, groups=4), nn.ConvTranspose2d(4, 2, 2)),
    "batch norm in evaluation": lambda: pictures(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4).eval(), nn.ReLU()),
    "transformer": lambda: Words(dropout=0.0),
    "transformer with dropout": lambda: Words(dropout=0.3),
    "transformer, normalised first": lambda: Words(dropout=0.0, norm_first=True),
}


def build(name: str, dtype: torch.dtype = torch.double) -> tuple[nn.Module, nn.ModuleList, Tensor]:
    torch.manual_seed(0)
    trunk, x = TRUNKS[name]().to(dtype), torch.randn(BATCH, 24).to(dtype)
    width = trunk(x).shape[1]
    return trunk, nn.ModuleList(nn.Linear(width, 1) for _ in range(TASKS)).to(dtype), x


def losses_of(
    trunk: nn.Module, heads: nn.ModuleList, x: Tensor, owners: Tensor = OWNERS
) -> tuple[Tensor, list[Tensor]]:
    torch.manual_seed(1)  # Dropout
    z = trunk(x)
    return z, [(head(z[owners == k]) - k).pow(2).mean() for k, head in enumerate(heads)]


def clear(*modules: nn.Module) -> None:
    for module in modules:
        module.zero_grad()


def grads(*modules: nn.Module) -> list[Tensor | None]:
    return [p.grad for module in modules for p in module.parameters()]


@pytest.mark.parametrize("name", TRUNKS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-9)])
def test_gram_matrix_and_gradients_are_those_of_the_exact_route(name, dtype, tolerance):
    trunk, heads, x = build(name, dtype)
    shared = list(trunk.parameters())
    weights = torch.tensor([0.5, 2.0, 0.0, -1.0], dtype=torch.double)
    scale = torch.tensor([1.0, 1.0, 3.0, 0.5], dtype=torch.double)
    expected = Exact(losses_of(trunk, heads, x)[1], shared)
    expected.write(weights, scale)
    theirs = grads(trunk, heads)
    trunk.zero_grad()
    heads.zero_grad()
    ours = Disjoint(losses_of(trunk, heads, x)[1], shared, OWNERS)
    assert_close(ours.gram(), expected.gram(), rtol=tolerance, atol=tolerance * float(expected.gram().abs().max()))
    ours.write(weights, scale)
    for found, known in zip(grads(trunk, heads), theirs, strict=True):
        assert_close(found, known, rtol=tolerance, atol=tolerance * float(known.abs().max()))


@pytest.mark.parametrize("name", ["wide perceptron", "convolutions", "transformer"])
def test_many_samples_and_many_tasks_go_by_whichever_way_is_less_work(name):
    trunk, _, _ = build(name)
    for batch, tasks in ((96, 3), (24, 12)):
        x = torch.randn(batch, 24).double()
        heads = nn.ModuleList(nn.Linear(trunk(x).shape[1], 1) for _ in range(tasks)).double()
        owners = torch.arange(batch) % tasks
        expected = Exact(losses_of(trunk, heads, x, owners)[1], list(trunk.parameters())).gram()
        ours = Disjoint(losses_of(trunk, heads, x, owners)[1], list(trunk.parameters()), owners).gram()
        assert_close(ours, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", TRUNKS)
def test_samples_of_no_task_and_tasks_that_are_forgotten_count_for_nothing(name):
    trunk, heads, x = build(name)
    heads = heads[:3]
    owners = OWNERS.masked_fill(OWNERS == 3, -1)
    ours = Disjoint(losses_of(trunk, heads, x, owners)[1], list(trunk.parameters()), owners)
    ours.keep([0, 2])
    ours.write(torch.tensor([2.0, 3.0]).double(), torch.ones(2).double())
    found = grads(trunk)
    clear(trunk, heads)
    losses = losses_of(trunk, heads, x, owners)[1]
    expected = Exact([losses[0], losses[2]], list(trunk.parameters()))
    assert_close(ours.gram(), expected.gram(), rtol=1e-9, atol=1e-12)
    expected.write(torch.tensor([2.0, 3.0]).double(), torch.ones(2).double())
    for ours_, theirs in zip(found, grads(trunk), strict=True):
        assert_close(ours_, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", TRUNKS)
def test_one_task_alone_needs_no_trial(name):
    trunk, heads, x = build(name)
    owners = torch.where(OWNERS == 0, 0, -1)
    losses = losses_of(trunk, heads[:1], x, owners)[1]
    ours = Disjoint(losses, list(trunk.parameters()), owners)
    assert ours.trunk_backwards == 1
    losses = losses_of(trunk, heads[:1], x, owners)[1]
    assert_close(ours.gram(), Exact(losses, list(trunk.parameters())).gram(), rtol=1e-9, atol=1e-12)


def test_layers_are_tried_once_for_every_size_of_batch():
    trunk, heads, x = build("transformer")
    layouts: dict = {}

    def passes(count: int) -> int:
        losses = losses_of(trunk, heads, x[:count], OWNERS[:count])[1]
        return Disjoint(losses, list(trunk.parameters()), OWNERS[:count], layouts).trunk_backwards

    assert [passes(12), passes(12), passes(11), passes(11)] == [2, 1, 2, 1]


def test_a_task_that_is_not_finite_does_not_spoil_the_others():
    trunk, heads, x = build("wide perceptron")

    def losses() -> list[Tensor]:
        z, found = losses_of(trunk, heads, x)
        found[1] = found[1] + (z[OWNERS == 1] * 0).abs().sqrt().sum()  # Value 0, gradient 0/0
        return found

    layouts: dict = {}
    Disjoint(losses_of(trunk, heads, x)[1], list(trunk.parameters()), OWNERS, layouts)
    ours = Disjoint(losses(), list(trunk.parameters()), OWNERS, layouts)
    assert ours.finite(ours.gram()).tolist() == [True, False, True, True]
    ours.keep([0, 2, 3])
    assert ours.gram().isfinite().all()
    ours.write(torch.ones(3).double(), torch.ones(3).double())
    assert all(gradient is None or gradient.isfinite().all() for gradient in grads(trunk))


def test_samples_of_no_task_need_not_be_finite():
    trunk, heads, x = build("convolutions")
    x[OWNERS == 3] = torch.nan
    owners = OWNERS.masked_fill(OWNERS == 3, -1)
    ours = Disjoint(losses_of(trunk, heads[:3], x, owners)[1], list(trunk.parameters()), owners)
    assert ours.gram().isfinite().all()


class Mixing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(24, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.second(x - x.mean(0))


def test_a_model_that_mixes_samples_is_refused_with_the_layer_and_the_sample():
    TRUNKS["mixing"] = Mixing
    trunk, heads, x = build("mixing")
    del TRUNKS["mixing"]
    with pytest.raises(
        ValueError, match=r"layer with parameters of shape \(6, 24\) and \(6,\) has a gradient of other"
    ):
        Disjoint(losses_of(trunk, heads, x)[1], list(trunk.parameters()), OWNERS)
    norm = nn.Sequential(trunk.second, nn.BatchNorm1d(6, affine=False).double())
    with pytest.raises(ValueError, match=r"training mode mixes samples: use GroupNorm or eval\(\)"):
        Disjoint(losses_of(norm, heads, x[:, :6])[1], list(norm.parameters()), OWNERS)
    norm = nn.Sequential(trunk.second, nn.BatchNorm1d(6).double())
    with pytest.raises(ValueError, match=r"\(NativeBatchNormBackward0\). Batch normalisation in training mode"):
        Disjoint(losses_of(norm, heads, x[:, :6])[1], list(norm.parameters()), OWNERS)


def test_a_wrong_assignment_is_refused_by_the_sample_and_the_tasks_name():
    trunk, heads, x = build("wide perceptron")
    shared = list(trunk.parameters())
    names = ["a", "b", "c", "d"]
    wrong = OWNERS.clone()
    wrong[[3, 5]] = wrong[[5, 3]]
    with pytest.raises(ValueError, match="rows of sample 3, which belongs to task 'a': .* samples of another task"):
        Disjoint(losses_of(trunk, heads, x)[1], shared, wrong, names=names)
    wrong = OWNERS.clone()
    wrong[0] = -1
    with pytest.raises(ValueError, match="rows of sample 0, which belongs to no task"):
        Disjoint(losses_of(trunk, heads, x)[1], shared, wrong, names=names)
    for bad, message in (
        (OWNERS + 1, "between -1 and 3"),
        (OWNERS - 2, "between -1 and 3"),
        (OWNERS.clamp(max=2), "no sample is assigned to task 'd'"),
        (OWNERS.double(), "one whole number a sample"),
        (OWNERS[None], "one whole number a sample"),
    ):
        with pytest.raises(ValueError, match=message):
            Disjoint(losses_of(trunk, heads, x)[1], shared, bad, names=names)
    with pytest.raises(ValueError, match="not a whole number for each of the 7 samples"):
        Disjoint(losses_of(trunk, heads, x)[1], shared, torch.tensor([0, 1, 2, 3, 0, 1, 2]), names=names)


def test_parameters_that_are_used_otherwise_are_refused_with_shape_and_reason():
    trunk, heads, x = build("wide perceptron")
    twice = nn.Linear(24, 24).double()
    chain = nn.Sequential(twice, nn.Tanh(), twice, trunk)
    with pytest.raises(ValueError, match=r"shape \(24, 24\) apart: it is used more than once; use route='exact'"):
        Disjoint(losses_of(chain, heads, x)[1], list(chain.parameters()), OWNERS)
    chain = nn.Sequential(nn.PReLU(), trunk).double()
    with pytest.raises(ValueError, match=r"shape \(1,\) apart: it is used in a way that is not known here"):
        Disjoint(losses_of(chain, heads, x)[1], list(chain.parameters()), OWNERS)


def test_a_parameter_of_several_heads_is_refused():
    trunk, heads, x = build("wide perceptron")
    heads[2] = heads[0]
    with pytest.raises(ValueError, match=r"shape \(1, 50\) is used by several losses.*add it to shared="):
        Disjoint(losses_of(trunk, heads, x)[1], list(trunk.parameters()), OWNERS)


def test_losses_without_a_path_are_named():
    trunk, heads, x = build("wide perceptron")
    losses = losses_of(trunk, heads, x)[1]
    losses[2] = heads[2].weight.pow(2).sum()
    with pytest.raises(NoPathError) as caught:
        Disjoint(losses, list(trunk.parameters()), OWNERS)
    assert caught.value.tasks == [2]


def test_frozen_and_unused_parameters_stay_untouched():
    trunk, heads, x = build("wide perceptron")
    trunk[0].weight.requires_grad_(False)
    trunk.register_parameter("unused", nn.Parameter(torch.ones(3).double()))
    shared = [p for p in trunk.parameters() if p.requires_grad]
    ours = Disjoint(losses_of(trunk, heads, x)[1], shared, OWNERS)
    expected = Exact(losses_of(trunk, heads, x)[1], shared)
    assert_close(ours.gram(), expected.gram(), rtol=1e-9, atol=1e-12)
    ours.write(torch.ones(4).double(), torch.ones(4).double())
    assert trunk[0].weight.grad is None
    assert trunk.unused.grad is None
    assert trunk[0].bias.grad is not None


def test_a_direction_is_refused_with_the_fix():
    trunk, heads, x = build("wide perceptron")
    ours = Disjoint(losses_of(trunk, heads, x)[1], list(trunk.parameters()), OWNERS)
    with pytest.raises(TypeError, match="use motet.routes.Exact"):
        ours.write_direction(torch.ones(3), torch.ones(4))


def test_the_assignment_is_seen_from_the_gradients_at_the_features():
    trunk, heads, x = build("transformer")
    owners = OWNERS.masked_fill(OWNERS == 3, -1)
    z, losses = losses_of(trunk, heads[:3], x, owners)
    assert torch.equal(infer_assignment(losses, [z]), owners)
    ours = Disjoint(losses, list(trunk.parameters()), infer_assignment(losses, [z]))
    assert ours.gram().diagonal().gt(0).all()


def test_a_sample_of_two_tasks_is_refused_by_its_number_and_their_names():
    trunk, heads, x = build("wide perceptron")
    z, losses = losses_of(trunk, heads, x)
    losses[1] = losses[1] + z[9].sum()
    with pytest.raises(ValueError, match="sample 9 has a gradient of the tasks 'b' and 'd'"):
        infer_assignment(losses, [z], "abcd")
    with pytest.raises(ValueError, match="samples first"):
        infer_assignment(losses, [z, z[:3]])
