"""Task branching against its own equations written task by task, and against plain hard sharing."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from motet.nn.branching import SMALL, TaskBranching

NAMES = ["grade", "stage.of.tumour", "forward", "", "keys"]


def make(count, rank=3, hierarchy=None, dim=6, trained=True, seed=0, **options):
    """A branching in float64; trained means that nothing is at its special start."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        branching = TaskBranching(dim, NAMES[:count], rank, hierarchy, **options).double()
        if trained:
            with torch.no_grad():
                for parameter in (branching.up, branching.logits, branching.strength):
                    parameter.add_(torch.randn_like(parameter))
    return branching


def data(rows=7, dim=6, seed=1):
    return torch.randn(rows, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def stacked(features):
    return torch.stack(list(features.values()))


counts = st.integers(1, 5)
modes = st.booleans()


@given(counts, st.integers(1, 4), modes)
def test_features_are_the_common_part_and_what_each_task_takes(count, rank, signed):
    branching, z = make(count, rank, features=4, signed=signed), data()
    features, info = branching(z)
    common = (z @ branching.shared[0].weight.T + branching.shared[0].bias).clamp(min=0)
    for k, name in enumerate(NAMES[:count]):
        expected = common.clone()
        for j in range(count):
            private = z @ branching.down[j].T @ branching.up[j].T
            expected += branching.strength[k] * info["influence"][k, j] * private
        assert_close(features[name], expected, rtol=0, atol=1e-9)


@given(counts, modes, st.sampled_from(["strength", "projection"]))
def test_without_influence_it_is_hard_sharing_bit_for_bit(count, signed, off):
    branching, z = make(count, signed=signed, features=4).float(), data().float().requires_grad_()
    with torch.no_grad():
        (branching.strength if off == "strength" else branching.up).zero_()
    plain = nn.Sequential(nn.Linear(6, 4), nn.ReLU())
    plain.load_state_dict(branching.shared.state_dict())
    for feature in branching(z)[0].values():
        assert torch.equal(feature, plain(z))
    loss = sum(feature.square().sum() * (k + 1) for k, feature in enumerate(branching(z)[0].values()))
    other = sum(plain(z).square().sum() * (k + 1) for k in range(count))
    # Only in the order of the sum over tasks may the gradients differ.
    assert_close(torch.autograd.grad(loss, z)[0], torch.autograd.grad(other, z)[0])


@pytest.mark.parametrize("signed", [False, True])
def test_a_new_block_is_hard_sharing(signed):
    branching, z = make(4, trained=False, signed=signed), data()
    features, info = branching(z)
    assert all(torch.equal(feature, branching.shared(z)) for feature in features.values())
    assert all(value == 0 for value in info["regularisers"].values())


def test_a_new_block_learns_though_its_projections_are_zero():
    branching = make(3, trained=False)
    stacked(branching(data())[0]).square().sum().backward()
    assert (branching.up.grad.abs().amax((1, 2)) > 1e-3).all()


@given(counts)
def test_each_task_takes_shares_that_sum_to_one(count):
    _, info = make(count)(data())
    assert_close(info["influence"].sum(1), torch.ones(count, dtype=torch.float64))
    assert (info["influence"] > 0).all()


def test_signed_influence_can_push_away():
    branching = make(3, signed=True)
    with torch.no_grad():
        branching.logits.copy_(torch.tensor([1.0, -1.0, 0.0] * 3))
    assert_close(branching.influence()[0], torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64).tanh())


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("hierarchy", [None, [["grade", "forward"], ["stage.of.tumour"]]])
def test_influence_starts_at_the_prior(hierarchy, signed):
    _, info = make(3, hierarchy=hierarchy, trained=False, signed=signed)(data())
    assert torch.equal(info["influence"], info["prior"])
    assert info["regularisers"]["divergence"] == 0
    if hierarchy:
        assert info["prior"][0, 2] > 5 * info["prior"][0, 1]


@given(counts, modes)
def test_penalties_are_what_their_sums_over_pairs_say(count, signed):
    branching, z = make(count, signed=signed), data()
    _, info = branching(z)
    influence, prior = info["influence"], info["prior"]
    found = info["regularisers"]
    private = [z @ branching.down[k].T @ branching.up[k].T for k in range(count)]
    maps = [branching.up[k] @ branching.down[k] for k in range(count)]
    positive = influence.detach().clamp(min=0)
    related = [
        [float(positive[k, j] + positive[j, k]) / 2 if k != j else 0.0 for j in range(count)] for k in range(count)
    ]
    pairs = [(k, j) for k in range(count) for j in range(count) if k != j]
    entries = private[0].numel()
    apart = sum(related[k][j] * (private[k] - private[j]).square().sum() for k, j in pairs)
    size = 2 * sum(p.square().sum() for p in private) + 2 * SMALL * entries
    top = max(max(row) for row in related)
    cosines = [
        (1 - (related[k][j] / top if top else 0))
        * (maps[k] * maps[j]).sum() ** 2
        / (maps[k].square().sum() + SMALL)
        / (maps[j].square().sum() + SMALL)
        for k, j in pairs
    ]
    if signed and count > 1:
        divergence = (influence - prior).square().sum() / (2 * count)
    else:
        divergence = (influence * (influence / prior).log()).sum() / count
    zero = torch.zeros((), dtype=torch.float64)
    assert_close(found["divergence"], divergence, rtol=0, atol=1e-9)
    assert_close(found["consistency"], apart / size + zero, rtol=0, atol=1e-9)
    assert_close(found["redundancy"], sum(cosines, zero) / max(len(pairs), 1), rtol=0, atol=1e-9)
    assert all(value >= -1e-12 for value in found.values())


def test_tasks_with_equal_projections_are_consistent():
    branching = make(4)
    with torch.no_grad():
        branching.up.copy_(branching.up[:1].clone().expand_as(branching.up))
        branching.down.copy_(branching.down[:1].clone().expand_as(branching.down))
    penalties = branching(data())[1]["regularisers"]
    assert penalties["consistency"].abs() < 1e-9
    assert penalties["redundancy"] > 0.1


def test_tasks_with_maps_at_right_angles_are_not_redundant():
    branching = make(2, rank=2)
    with torch.no_grad():
        branching.down.zero_()
        branching.down[0, :, :3], branching.down[1, :, 3:] = 1.0, 1.0
    assert branching(data())[1]["regularisers"]["redundancy"].abs() < 1e-9


@given(st.permutations(range(4)), modes)
def test_the_order_of_the_tasks_does_not_matter(order, signed):
    hierarchy = [["grade", "forward"], ["stage.of.tumour", ""]]
    branching, z = make(4, hierarchy=hierarchy, signed=signed), data()
    other = TaskBranching(6, [NAMES[k] for k in order], 3, hierarchy, signed=signed).double()
    other.shared.load_state_dict(branching.shared.state_dict())
    with torch.no_grad():
        for name in ("up", "down", "strength"):
            getattr(other, name).copy_(getattr(branching, name)[list(order)])
        other.logits.copy_(branching.logits.view(4, 4)[list(order)][:, list(order)].flatten())
    (features, info), (permuted, same) = branching(z), other(z)
    for name in NAMES[:4]:
        assert_close(permuted[name], features[name], rtol=0, atol=1e-9)
    assert_close(same["prior"], info["prior"][list(order)][:, list(order)], rtol=0, atol=1e-7)
    for name, value in info["regularisers"].items():
        assert_close(same["regularisers"][name], value, rtol=0, atol=1e-7 if name == "divergence" else 1e-9)


def test_with_diagonal_influence_a_task_does_not_touch_anothers_branch():
    branching = make(3, signed=True)
    with torch.no_grad():
        branching.logits.copy_(torch.eye(3).flatten())
    features, _ = branching(data())
    gradient = torch.autograd.grad(features["forward"].square().sum(), branching.up)[0]
    assert (gradient[:2] == 0).all()
    assert gradient[2].abs().max() > 0


@pytest.mark.parametrize("signed", [False, True])
def test_one_task_takes_all_of_itself_and_pays_nothing(signed):
    branching = make(1, signed=signed)
    features, info = branching(data())
    assert info["influence"].tolist() == [[1.0]]
    assert [value.item() for value in info["regularisers"].values()] == [0.0, 0.0, 0.0]
    (features["grade"].sum() + sum(info["regularisers"].values())).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in branching.parameters())


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("scale", [0.0, 1e-12, 1e-3, 1e6])
def test_gradients_are_finite_at_any_size_of_the_projections(scale, signed):
    branching = make(3, signed=signed).float()
    with torch.no_grad():
        branching.up.mul_(scale)
    features, info = branching(data().float())
    (stacked(features).mean() + sum(info["regularisers"].values())).backward()
    assert all(parameter.grad.isfinite().all() for parameter in branching.parameters())


@pytest.mark.parametrize("signed", [False, True])
def test_gradients_agree_with_finite_differences(signed):
    branching = make(3, signed=signed)
    names = [name for name, _ in branching.named_parameters()]

    def run(*values):
        features, info = torch.func.functional_call(branching, dict(zip(names, values, strict=True)), (data(),))
        return (*features.values(), *info["regularisers"].values())

    assert torch.autograd.gradcheck(run, tuple(p.detach().clone().requires_grad_() for p in branching.parameters()))


def test_a_batch_without_samples_has_no_penalty_of_its_projections():
    features, info = make(3)(torch.zeros(0, 6, dtype=torch.float64))
    assert features["grade"].shape == (0, 6)
    assert info["regularisers"]["consistency"] == 0


def test_half_precision_keeps_influence_and_penalties_exact():
    branching, z = make(3).float(), data().float()
    expected = branching(z)[1]
    with torch.autocast("cpu", torch.bfloat16):
        features, info = branching(z)
    assert features["grade"].dtype == torch.bfloat16
    assert torch.equal(info["influence"], expected["influence"])
    assert torch.equal(info["regularisers"]["redundancy"], expected["regularisers"]["redundancy"])
    assert_close(info["regularisers"]["consistency"], expected["regularisers"]["consistency"], rtol=2e-2, atol=0)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        branching.strength.zero_()
        assert torch.equal(branching(z)[0]["grade"], branching.shared(z))


def test_state_and_copies_keep_the_prior():
    branching = make(3, hierarchy=[["grade", "forward"], ["stage.of.tumour"]])
    other = make(3, seed=5)
    other.load_state_dict(branching.state_dict())
    for twin in (other, copy.deepcopy(branching)):
        (features, info), (expected, known) = twin(data()), branching(data())
        assert torch.equal(stacked(features), stacked(expected))
        assert torch.equal(info["regularisers"]["divergence"], known["regularisers"]["divergence"])


def test_what_was_told_of_a_step_does_not_change_with_the_next():
    branching = TaskBranching(4, ["a", "b"])
    told = branching(torch.ones(2, 4))[1]["strength"]
    with torch.no_grad():
        branching.strength.zero_()
    assert told.tolist() == [1, 1]


def test_compiled_it_is_the_same():
    branching, z = make(3, signed=False).float(), data().float()
    compiled = torch.compile(branching, backend="aot_eager", fullgraph=True)
    assert_close(stacked(compiled(z)[0]), stacked(branching(z)[0]), rtol=0, atol=1e-5)


def test_vectors_only_so_that_muon_does_not_take_logits_for_a_map():
    from motet.optim import muon_for

    optimizer = muon_for(nn.Sequential(nn.Linear(6, 6), make(3)), lr=1e-3, heads=[])
    routed = {route.name: route.optimizer for route in optimizer.routes}
    assert routed.pop("1.shared.0.weight") == "muon"
    assert set(routed.values()) == {"adamw"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": []}, "tasks is empty"),
        ({"tasks": "grade"}, r"write \['grade'\]"),
        ({"tasks": ["a", "a"]}, "named twice"),
        ({"tasks": ["a", 3]}, "string, not 3"),
        ({"rank": 0}, "rank .* at least 1"),
        ({"rank": 2.0}, "rank .* whole number"),
        ({"features": 0}, "features .* at least 1"),
        ({"dim": True}, "dim .* whole number"),
        ({"hierarchy": [["a"]]}, "leaves out 'b'"),
        ({"kappa": 0.0}, "kappa .* positive"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TaskBranching(**({"dim": 4, "tasks": ["a", "b"]} | options))


@pytest.mark.parametrize("shape", [(3, 5), (3, 6, 6), (6,)])
def test_a_representation_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"z must be \(B, 6\)"):
        make(2)(torch.zeros(shape, dtype=torch.float64))
