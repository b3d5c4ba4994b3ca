"""Each sharing architecture against its own equations, its limits and values by hand."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from motet.nn.sharing import CGC, LTB, MTAN, PLE, AdaShare, CrossStitch, DSelectK, HardSharing, MMoE
from motet.nn.sharing.dselect import smooth_step


class Plus(nn.Module):
    """x + c, with a count of the calls."""

    def __init__(self, constant):
        super().__init__()
        self.constant, self.calls = constant, 0

    def forward(self, x):
        self.calls += 1
        return x + self.constant


class Times(nn.Module):
    def __init__(self, constant):
        super().__init__()
        self.constant = constant

    def forward(self, x):
        return x * self.constant


def given_in_turn(modules):
    """A factory that makes these."""
    return iter(modules).__next__


def mlp(inputs=4, outputs=4):
    return nn.Sequential(nn.Linear(inputs, outputs), nn.Tanh())


X = torch.tensor([[1.0, -2.0, 0.5, 3.0], [0.0, 1.0, -1.0, 2.0]])


# Hard sharing


def test_hard_sharing_is_the_trunk_for_every_task():
    trunk = mlp()
    features, info = HardSharing(trunk, ["a", "b"])(X)
    assert features["a"] is features["b"] is info["features"]
    assert_close(features["a"], trunk(X))


# Cross-stitch


def test_stitches_mix_what_the_networks_give():
    sharing = CrossStitch([given_in_turn([Plus(1.0), Plus(10.0)]), given_in_turn([Times(2.0), Times(3.0)])], ["a", "b"])
    with torch.no_grad():
        for row, values in zip(itertools.chain(*sharing.stitches), [(1, 0.5), (0, 2), (1, 1), (0, 1)], strict=True):
            row.copy_(torch.tensor(values))
    features, info = sharing(torch.tensor([[1.0]]))
    # h = 2 and 11; mixed 7.5 and 22; times 2 and 3: 15 and 66; mixed 81 and 66.
    assert (features["a"].item(), features["b"].item()) == (81, 66)
    assert info["stitches"].tolist() == [[[1, 0.5], [0, 2]], [[1, 1], [0, 1]]]


@pytest.mark.parametrize("tasks", [["a"], ["a", "b", "c"]])
def test_identity_stitches_are_independent_networks(tasks):
    sharing = CrossStitch(nn.Sequential(mlp(), mlp(4, 2)), tasks, alpha=1.0)
    features, _ = sharing(X)
    for task, column in zip(tasks, sharing.columns, strict=True):
        assert_close(features[task], nn.Sequential(*column)(X))


def test_one_task_is_its_own_network():
    sharing = CrossStitch([mlp(), mlp()], ["a"])
    assert_close(sharing(X)[0]["a"], nn.Sequential(*sharing.columns[0])(X))


def test_stitches_start_convex():
    stitches = CrossStitch([mlp(), mlp()], ["a", "b", "c"], alpha=0.8)(X)[1]["stitches"]
    expected = torch.full((3, 3), 0.1).fill_diagonal_(0.8)
    assert_close(stitches, expected.expand(2, 3, 3))


def test_alpha_is_a_share():
    with pytest.raises(ValueError, match=r"alpha .*\[0, 1\], not 1.5"):
        CrossStitch([mlp()], ["a"], alpha=1.5)


# MMoE


def test_gates_mix_the_experts():
    sharing = MMoE(mlp(4, 3), ["a", "b"], 5)
    features, info = sharing(X)
    for k, task in enumerate(("a", "b")):
        logits = X @ sharing.gates[k].weight.T
        for b in range(2):
            weights = [math.exp(v) for v in logits[b].tolist()]
            mixed = sum(w / sum(weights) * expert(X[b]) for w, expert in zip(weights, sharing.experts, strict=True))
            assert_close(features[task][b], mixed)
    assert info["gates"].shape == (2, 2, 5)
    assert_close(info["gates"].sum(-1), torch.ones(2, 2))


def test_mmoe_with_one_expert_is_hard_sharing():
    sharing = MMoE(mlp(), ["a", "b"], 1)
    features, info = sharing(X)
    expected = HardSharing(sharing.experts[0], ["a", "b"])(X)[0]
    assert_close(features, expected, rtol=0, atol=0)
    assert (info["gates"] == 1).all()


def test_there_must_be_an_expert():
    with pytest.raises(ValueError, match="experts must be at least 1, not 0"):
        MMoE(mlp(), ["a"], 0)


# CGC and PLE


def softmax_mix(logits, outputs):
    weights = torch.tensor([math.exp(v) for v in logits.tolist()])
    return (weights / weights.sum()) @ outputs


def test_ple_by_hand_row_by_row():
    sharing = PLE([mlp(4, 3), mlp(3, 2)], ["a", "b"], shared=2, own=1)
    features, info = sharing(X)
    for b in range(2):
        inputs, common = {"a": X[b], "b": X[b]}, X[b]
        for level in sharing.levels:
            shared = [expert(common) for expert in level.shared]
            own = {task: level.own[k][0](inputs[task]) for k, task in enumerate("ab")}
            new = {
                task: softmax_mix(level.gates[k].weight @ inputs[task], torch.stack([own[task], *shared]))
                for k, task in enumerate("ab")
            }
            if level.common is not None:
                common = softmax_mix(level.common.weight @ common, torch.stack([own["a"], own["b"], *shared]))
            inputs = new
        for task in "ab":
            assert_close(features[task][b], inputs[task])
    assert [tuple(gates.shape) for gates in info["gates"]] == [(2, 2, 3)] * 2


def test_the_last_level_has_no_common_gate():
    assert [level.common is None for level in PLE([mlp(), mlp(), mlp()], ["a"]).levels] == [False, False, True]


def test_cgc_is_one_level():
    cgc, ple = CGC(mlp(), ["a", "b"], 2, 3), PLE([mlp()], ["a", "b"], 2, 3)
    ple.load_state_dict(cgc.state_dict())
    assert_close(cgc(X)[0], ple(X)[0], rtol=0, atol=0)


def test_ple_with_one_shared_expert_is_hard_sharing():
    sharing = PLE([mlp(), mlp()], ["a", "b"], shared=1, own=0)
    trunk = nn.Sequential(*(level.shared[0] for level in sharing.levels))
    features, info = sharing(X)
    assert_close(features, HardSharing(trunk, ["a", "b"])(X)[0], rtol=0, atol=0)
    assert all((gates == 1).all() for gates in info["gates"])


def test_a_tasks_own_experts_are_its_own_on_the_last_level_alone():
    sharing = PLE([mlp(), mlp()], ["a", "b"])
    own, shared = set(map(id, sharing.task_parameters("a"))), set(map(id, sharing.shared_parameters()))
    assert {id(p) for p in sharing.levels[1].own[0].parameters()} <= own
    assert {id(p) for p in sharing.levels[0].own[0].parameters()} <= shared
    assert {id(p) for level in sharing.levels for p in level.gates[0].parameters()} <= own


@pytest.mark.parametrize(
    ("options", "match"), [({"shared": 0}, "shared .* at least 1"), ({"own": -1}, "own .* at least 0")]
)
def test_numbers_of_experts_are_checked(options, match):
    with pytest.raises(ValueError, match=match):
        PLE([mlp()], ["a"], **options)


# DSelect-k


@given(st.floats(-2, 2), st.floats(0.1, 3))
def test_the_smooth_step_is_its_cubic(t, gamma):
    t = torch.tensor(t, dtype=torch.float64)
    cubic = -2 * t**3 / gamma**3 + 3 * t / (2 * gamma) + 0.5
    expected = torch.where(t <= -gamma / 2, 0.0, torch.where(t >= gamma / 2, 1.0, cubic))
    assert_close(smooth_step(t, gamma), expected.double(), rtol=1e-9, atol=1e-12)


def test_the_smooth_step_is_flat_at_its_ends():
    t = torch.tensor([-0.5, 0.0, 0.5, 0.7], requires_grad=True)
    smooth_step(t).sum().backward()
    assert t.grad.tolist() == [0, 1.5, 0, 0]


@pytest.mark.parametrize("experts", range(1, 10))
def test_gates_are_the_products_of_the_bits(experts):
    torch.manual_seed(experts)
    k = min(2, experts)
    sharing = DSelectK(mlp(), ["a"], experts, k, static=True)
    bits = sharing.bits
    with torch.no_grad():
        sharing.gates[0].uniform_(-0.5, 0.5)
    raw = sharing.gates[0].detach()
    share, z = raw[:k].softmax(0), raw[k:].view(k, bits)
    expected = torch.zeros(experts)
    for i in range(k):
        for code in range(2**bits):
            product = share[i].item()
            for bit in range(bits):
                s = smooth_step(z[i, bit]).item()
                product *= s if code >> bit & 1 else 1 - s
            expected[code if code < experts else code - 2 ** (bits - 1)] += product
    gates = sharing(X)[1]["gates"]
    assert_close(gates, expected.expand(2, 1, -1))
    assert_close(gates.sum(-1), torch.ones(2, 1))


@given(st.integers(1, 9), st.data())
def test_saturated_codes_choose_at_most_k_experts(experts, data):
    k = data.draw(st.integers(1, experts))
    torch.manual_seed(data.draw(st.integers(0, 1000)))
    sharing = DSelectK(mlp(), ["a", "b"], experts, k)
    with torch.no_grad():
        for gate in sharing.gates:
            gate.weight.zero_()
            gate.bias.copy_(torch.randn_like(gate.bias).sign())
    features, info = sharing(X)
    assert ((info["gates"] > 0).sum(-1) <= k).all()
    assert_close(info["gates"].sum(-1), torch.ones(2, 2))
    assert info["regularisers"]["entropy"] == 0
    (features["a"].sum() + info["regularisers"]["entropy"]).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in sharing.parameters())


def test_the_entropy_leads_to_sparse_gates():
    torch.manual_seed(0)
    sharing = DSelectK(mlp(), ["a", "b"], 6, 2)
    optimizer = torch.optim.Adam(sharing.gates.parameters(), lr=0.1)
    assert (sharing(X)[1]["gates"] > 0).all(), "at first every expert has a share"
    for _ in range(60):
        optimizer.zero_grad()
        sharing(X)[1]["regularisers"]["entropy"].backward()
        optimizer.step()
    info = sharing(X)[1]
    assert info["regularisers"]["entropy"] == 0
    assert ((info["gates"] > 0).sum(-1) <= 2).all()


def test_the_entropy_by_hand():
    sharing = DSelectK(mlp(), ["a", "b"], 4, 2, static=True)
    with torch.no_grad():
        for gate in sharing.gates:
            gate.zero_()  # Every code is even over 4 experts: log 4 each, 2 codes, 2 tasks.
    assert sharing(X)[1]["regularisers"]["entropy"].item() == pytest.approx(4 * math.log(4))


def test_static_gates_are_the_same_for_all_inputs():
    gates = DSelectK(mlp(), ["a", "b"], 4, 2, static=True)(X)[1]["gates"]
    assert torch.equal(gates[0], gates[1])


def test_dselect_k_with_one_expert_is_hard_sharing():
    sharing = DSelectK(mlp(), ["a", "b"], 1, 1)
    features, info = sharing(X)
    assert_close(features["b"], sharing.experts[0](X))
    assert_close(info["gates"], torch.ones(2, 2, 1))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"experts": 0}, "experts must be at least 1"),
        ({"k": 0}, "k is .* from 1 to 8, not 0"),
        ({"k": 9}, "k is .* from 1 to 8, not 9"),
        ({"gamma": 0.0}, "gamma .* positive"),
        ({"static": True, "gate": nn.Linear(4, 4)}, "static gates .* leave gate= out"),
    ],
)
def test_options_of_dselect_k_are_checked(options, match):
    with pytest.raises(ValueError, match=match):
        DSelectK(mlp(), ["a"], **options)


# MTAN


def convolutions(size, inputs=2, outputs=4, stride=1):
    return nn.Sequential(getattr(nn, f"Conv{size}d")(inputs, outputs, 3, stride, 1), nn.ReLU())


@pytest.mark.parametrize("size", [1, 2, 3])
def test_masks_lie_on_convolutions_of_any_dimension(size):
    sharing = MTAN([convolutions(size), convolutions(size, 4, 6, stride=2)], ["a", "b"])
    features, info = sharing(torch.randn(3, 2, *[8] * size))
    assert features["a"].shape == (3, 6, *[4] * size)
    assert [tuple(mask.shape) for mask in info["masks"]] == [(3, 2, 4, *[8] * size), (3, 2, 6, *[4] * size)]
    assert all((mask > 0).all() and (mask < 1).all() for mask in info["masks"])


def test_open_masks_are_hard_sharing():
    trunk = nn.Sequential(convolutions(2), convolutions(2, 4, 6, stride=2))
    sharing = MTAN(trunk, ["a", "b"])
    with torch.no_grad():
        for own in sharing.attention:
            for mask in own:
                mask[1][1].weight.zero_()
                mask[1][1].bias.fill_(100.0)
    x = torch.randn(3, 2, 8, 8)
    assert_close(sharing(x)[0], HardSharing(trunk, ["a", "b"])(x)[0])


def test_attention_by_its_equations():
    sharing = MTAN(
        [convolutions(2), nn.Sequential(convolutions(2, 4, 6), nn.MaxPool2d(2), nn.ReLU())], ["a", "b"]
    ).eval()
    x = torch.randn(3, 2, 8, 8)
    first, second = sharing.stages
    u1 = first[0](x)
    p1 = first[1](u1)
    own = sharing.attention[1]
    h1 = own[0](u1) * p1
    u2 = second[0](p1)
    assert u2.shape[-1] == 4, "the last member leads from u to p"
    passed = nn.functional.max_pool2d(sharing.passing[0](h1), 2)
    expected = own[1](torch.cat([u2, passed], 1)) * second[1](u2)
    assert_close(sharing(x)[0]["b"], expected)


def test_stages_without_convolutions_have_no_masks():
    with pytest.raises(ValueError, match="convolutions of one dimension"):
        MTAN([mlp()], ["a"])


# Learning to branch


def tree():
    """x + 1 or x + 2, then + 10 or + 20."""
    sharing = LTB(
        [given_in_turn([Plus(1.0), Plus(2.0)]), given_in_turn([Plus(10.0), Plus(20.0)])], list("abc"), nodes=2
    )
    with torch.no_grad():
        sharing.logits[0][0].copy_(torch.tensor([0.0, 1.0]))  # The first node of stage 2 is a child of the second.
        sharing.logits[0][1].copy_(torch.tensor([0.5, 0.0]))
        for row, values in zip(sharing.logits[1], [(3.0, 0.0), (3.0, 1.0), (3.0, 0.0)], strict=True):
            row.copy_(torch.tensor(values))
    return sharing


def test_a_tree_by_hand_computes_each_node_once_and_only_if_needed():
    sharing = tree().eval()
    features, info = sharing(torch.zeros(1, 1))
    assert [z.item() for z in features.values()] == [12, 12, 12]
    assert [branch.tolist() for branch in info["branches"]] == [[[0, 1], [1, 0]], [[1, 0], [1, 0], [1, 0]]]
    assert [[node.calls for node in nodes] for nodes in sharing.stages] == [[0, 1], [1, 0]]
    with torch.no_grad():
        sharing.logits[1][2].copy_(torch.tensor([0.0, 1.0]))
    assert [z.item() for z in sharing(torch.zeros(1, 1))[0].values()] == [12, 12, 21]


def test_branches_are_drawn_by_their_probabilities():
    torch.manual_seed(0)
    sharing = tree()
    draws = [sharing(torch.zeros(1, 1)) for _ in range(400)]
    chosen = torch.stack([info["branches"][1][1] for _, info in draws])
    assert_close(chosen, chosen.round(), rtol=0, atol=1e-6)
    expected = torch.tensor([3.0, 1.0]).softmax(0)
    assert_close(chosen.mean(0), expected, rtol=0, atol=0.09)  # 4 standard errors
    values = {round(z.item()) for features, _ in draws for z in features.values()}
    assert values == {11, 12, 21, 22}


def test_one_node_a_stage_is_hard_sharing():
    sharing = LTB([mlp(), mlp()], ["a", "b"], nodes=1)
    trunk = nn.Sequential(*(nodes[0] for nodes in sharing.stages))
    expected = HardSharing(trunk, ["a", "b"])(X)[0]
    assert_close(sharing(X)[0], expected)
    assert_close(sharing.eval()(X)[0], expected, rtol=0, atol=0)


def test_a_lower_temperature_sharpens_the_gradient_not_the_draw():
    found = []
    for temperature in (0.5, 5.0):
        sharing = tree()
        sharing.temperature = temperature
        torch.manual_seed(1)
        features, info = sharing(torch.ones(1, 1))
        features["a"].sum().backward()
        found.append((info["branches"], sharing.logits[1][0].grad.abs().max()))
    (sharp, steep), (soft, shallow) = found
    assert_close(sharp, soft)
    assert steep != shallow


@pytest.mark.parametrize(
    ("options", "match"), [({"nodes": 0}, "nodes .* at least 1"), ({"temperature": 0.0}, "positive")]
)
def test_options_of_ltb_are_checked(options, match):
    with pytest.raises(ValueError, match=match):
        LTB([mlp()], ["a"], **options)


# AdaShare


def policies(*rows, fixed=()):
    sharing = AdaShare([Plus(1.0), Plus(10.0), Plus(100.0)], [f"t{i}" for i in range(len(rows))], fixed)
    with torch.no_grad():
        for logits, row in zip(sharing.logits, rows, strict=True):
            logits.copy_(torch.tensor(row))
    return sharing


def test_policies_by_hand_and_common_ways_are_gone_once():
    sharing = policies((1.0, -1.0, 2.0), (0.5, -2.0, -1.0), (-1.0, 0.0, 3.0)).eval()
    features, info = sharing(torch.zeros(1, 1))
    assert [z.item() for z in features.values()] == [101, 1, 110]
    assert info["policies"].tolist() == [[1, 0, 1], [1, 0, 0], [0, 1, 1]]
    # The first block once for two tasks; the third for two tasks that come to it with different inputs.
    assert [block.calls for block in sharing.blocks] == [1, 1, 2]


def test_regularisers_of_adashare_by_hand():
    a, b = (0.0, 2.0, -1.0), (1.0, 0.5, -1.0)
    found = policies(a, b)(torch.zeros(1, 1))[1]["regularisers"]
    alpha, beta = ([1 / (1 + math.exp(-v)) for v in row] for row in (a, b))
    assert found["sparsity"].item() == pytest.approx(sum(map(math.log, [*alpha, *beta])))
    expected = sum((3 - i) / 3 * abs(p - q) for i, (p, q) in enumerate(zip(alpha, beta, strict=True)))
    assert found["sharing"].item() == pytest.approx(expected)


def test_equal_policies_share_everything():
    found = policies((1.0, -2.0, 0.3), (1.0, -2.0, 0.3), (1.0, -2.0, 0.3))(torch.zeros(1, 1))[1]
    assert found["regularisers"]["sharing"] == 0


def test_blocks_are_drawn_by_their_probabilities():
    torch.manual_seed(0)
    sharing = policies((1.0, -1.0, 0.0))
    drawn = torch.stack([sharing(torch.zeros(1, 1))[1]["policies"][0] for _ in range(400)])
    assert_close(drawn, drawn.round(), rtol=0, atol=1e-6)
    assert_close(drawn.mean(0), torch.tensor([1.0, -1.0, 0.0]).sigmoid(), rtol=0, atol=0.1)  # 4 standard errors


def test_all_blocks_are_hard_sharing():
    trunk = nn.Sequential(mlp(), mlp(), mlp())
    sharing = AdaShare(trunk, ["a", "b"])
    with torch.no_grad():
        for logits in sharing.logits:
            logits.fill_(100.0)
    expected = HardSharing(trunk, ["a", "b"])(X)[0]
    assert_close(sharing(X)[0], expected)
    assert_close(sharing.eval()(X)[0], expected, rtol=0, atol=0)


def test_fixed_blocks_are_always_executed_and_may_change_the_shape():
    sharing = AdaShare([mlp(4, 6), mlp(6, 6), mlp(6, 2)], ["a", "b"], fixed=[0, 2])
    assert sharing(X)[1]["policies"].shape == (2, 1)
    with torch.no_grad():
        sharing.logits[0].fill_(-1.0)
    features, _ = sharing.eval()(X)
    assert_close(features["a"], sharing.blocks[2](sharing.blocks[0](X)))
    assert_close(features["b"], sharing.blocks[2](sharing.blocks[1](sharing.blocks[0](X))))


@pytest.mark.parametrize("training", [True, False])
def test_a_block_that_changes_the_shape_must_be_fixed(training):
    with pytest.raises(ValueError, match=r"blocks\[0\] makes \(2, 6\) of \(2, 4\).*add 0 to fixed="):
        AdaShare([mlp(4, 6), mlp(6, 6)], ["a"]).train(training)(X)


@pytest.mark.parametrize(
    ("options", "match"), [({"fixed": [3]}, "from 0 to 0, not 3"), ({"temperature": -1.0}, "positive")]
)
def test_options_of_adashare_are_checked(options, match):
    with pytest.raises(ValueError, match=match):
        AdaShare([mlp()], ["a"], **options)
