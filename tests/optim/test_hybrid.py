"""muon_for's routing, and Hybrid as one optimizer."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.testing import assert_close

from motet.optim.adamw import APTAdamW
from motet.optim.hybrid import Hybrid, muon_for
from motet.optim.muon import APTMuon


def mlp(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 6), nn.Linear(6, 2)
    )


class Everything(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.conv = nn.Conv2d(8, 16, 3)
        self.depthwise = nn.Conv2d(16, 16, 3, groups=16)
        self.up = nn.ConvTranspose2d(16, 8, 2)
        self.words = nn.Embedding(10, 8)
        self.attention = nn.MultiheadAttention(8, 2, add_bias_kv=True)
        self.separate = nn.MultiheadAttention(8, 2, kdim=4, vdim=6)
        self.lstm = nn.LSTM(8, 8, proj_size=4)
        self.gru = nn.GRUCell(8, 8)
        self.pos_embedding = nn.Parameter(torch.zeros(7, 8))
        self.mixing = nn.Parameter(torch.zeros(8, 8))
        self.bank = nn.Parameter(torch.zeros(2, 8, 8))
        self.gain = nn.Parameter(torch.zeros(()))
        self.score = nn.Linear(8, 1)
        self.tasks = nn.ModuleDict(
            {"a": nn.Linear(8, 2), "b": nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))}
        )


def muons(model, **options):
    """Name and number of blocks of all that goes to Muon."""
    return {r.name: r.split for r in muon_for(model, 1e-3, **options).routes if r.optimizer == "muon"}


def train(optimizer, steps, start=0):
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for t in range(start, start + steps):
        for i, p in enumerate(params):
            generator = torch.Generator().manual_seed(1000 * t + i)
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()
    return [p.detach().clone() for p in params]


def test_every_kind_of_parameter_goes_where_it_belongs():
    assert muons(Everything()) == {
        "conv.weight": 1,
        "up.weight": 1,
        "attention.in_proj_weight": 3,
        "attention.out_proj.weight": 1,
        "separate.q_proj_weight": 1,
        "separate.k_proj_weight": 1,
        "separate.v_proj_weight": 1,
        "separate.out_proj.weight": 1,
        "lstm.weight_ih_l0": 4,
        "lstm.weight_hh_l0": 4,
        "lstm.weight_hr_l0": 1,
        "gru.weight_ih": 3,
        "gru.weight_hh": 3,
        "mixing": 1,
    }


def test_every_parameter_goes_somewhere_once():
    model = Everything()
    optimizer = muon_for(model, 1e-3, apt=True)
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(held) == len(set(held)) == len(list(model.parameters()))


def test_heads_are_what_the_caller_says():
    model = mlp()
    assert set(muons(model)) == {"2.weight", "5.weight"}
    assert set(muons(model, heads=model[5:])) == {"2.weight"}
    assert set(muons(model, heads=[model[2], model[6]])) == {"5.weight"}
    assert set(muons(model, heads={"a": model[5]})) == {"2.weight", "6.weight"}
    assert set(muons(model, heads=[])) == {"2.weight", "5.weight", "6.weight"}


def test_inputs_are_what_the_caller_says():
    model = mlp()
    assert set(muons(model, inputs=[model[0], model[2]])) == {"5.weight"}
    assert set(muons(model, inputs=[])) == {"0.weight", "2.weight", "5.weight"}


def test_modules_that_are_called_heads_are_heads():
    model = nn.Module()
    model.heads = nn.ModuleList([nn.Linear(8, 2), nn.Linear(8, 8)])
    model.trunk = mlp()
    assert set(muons(model, inputs=model.trunk[0])) == {"trunk.2.weight", "trunk.5.weight", "trunk.6.weight"}


def test_a_dictionary_of_trunk_and_head_is_no_dictionary_of_heads():
    model = nn.ModuleDict({"trunk": mlp(), "out": nn.Linear(2, 3)})
    assert set(muons(model)) == {"trunk.2.weight", "trunk.5.weight", "trunk.6.weight"}


def test_an_embedding_is_the_first_layer_where_there_is_one():
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    assert set(muons(model)) == {"1.weight"}


def test_of_a_recurrent_first_layer_only_what_meets_the_input_is_left_out():
    model = nn.ModuleList([nn.LSTM(5, 8, num_layers=2), nn.Linear(8, 2)])
    assert muons(model) == {"0.weight_hh_l0": 4, "0.weight_ih_l1": 4, "0.weight_hh_l1": 4}


def test_a_weight_shared_with_an_embedding_goes_with_it():
    model = nn.Sequential(nn.Embedding(8, 8), nn.Linear(8, 8), nn.Linear(8, 8, bias=False), nn.Linear(8, 2))
    model[2].weight = model[0].weight
    assert set(muons(model)) == {"1.weight"}


def test_a_model_without_hidden_matrices_says_so(caplog):
    optimizer = muon_for(nn.Linear(4, 2), 1e-3)
    assert "no parameter of this model is a hidden matrix" in caplog.text
    train(optimizer, 1)
    with pytest.raises(ValueError, match="nothing to preserve"):
        optimizer.task_gradients(torch.zeros(2, 8), [])


def test_what_it_cannot_take_is_refused_by_name():
    with pytest.raises(ValueError, match=r"0\.weight has no shape yet"):
        muon_for(nn.Sequential(nn.LazyLinear(3)), 1e-3)
    with pytest.raises(TypeError, match=r"0\.weight is complex"):
        muon_for(nn.Sequential(nn.Linear(3, 3, dtype=torch.complex64)), 1e-3)
    with pytest.raises(TypeError, match=r"0\.weight has sparse gradients"):
        muon_for(nn.Sequential(nn.Embedding(3, 3, sparse=True)), 1e-3)
    with pytest.raises(ValueError, match="no parameters"):
        muon_for(nn.ReLU(), 1e-3)
    with pytest.raises(ValueError, match="heads holds parameters that are not the model's"):
        muon_for(mlp(), 1e-3, heads=nn.Linear(3, 3))
    with pytest.raises(TypeError, match="heads and inputs are modules"):
        muon_for(mlp(), 1e-3, heads=["0"])
    with pytest.raises(ValueError, match="apt=True"):
        muon_for(mlp(), 1e-3, beta_min=0.5)
    with pytest.raises(TypeError, match="unexpected keyword"):
        muon_for(mlp(), 1e-3, unknown=1)


@pytest.mark.parametrize("apt", [False, True])
def test_it_is_muon_and_adamw_side_by_side(apt):
    model = mlp()
    twin = copy.deepcopy(model)
    scope = {"scope": "group"} if apt else {}
    optimizer = muon_for(model, 0.01, apt=apt, **scope)
    matrices = [twin[2].weight, twin[5].weight]
    heads = list(twin[6].parameters())
    taken = {id(p) for p in matrices + heads}
    rest = [p for p in twin.parameters() if id(p) not in taken]
    beta_min = 0.5 if apt else None
    options = {"lr": 0.01, "weight_decay": 0.01, "beta_min": beta_min} | scope
    two = [
        APTMuon(matrices, adjust_lr_fn="match_rms_adamw", **options),
        APTAdamW([{"params": rest}, {"params": heads, "beta_min": None}], **options),
    ]
    for t in range(4):
        for i, (p, q) in enumerate(zip(model.parameters(), twin.parameters(), strict=True)):
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(100 * t + i))
            q.grad = p.grad.clone()
        optimizer.step()
        for one in two:
            one.step()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert_close(p, q, rtol=1e-6, atol=1e-7)


def test_the_global_cosine_is_over_both_parts_and_not_over_the_heads():
    model = mlp()
    optimizer = muon_for(model, 0.01, apt=True)
    heads = set(model[6].parameters())
    generator = torch.Generator().manual_seed(0)
    first = {p: torch.randn(p.shape, generator=generator) for p in model.parameters()}
    second = {p: 0.3 * g + torch.randn(p.shape, generator=generator) for p, g in first.items()}
    for gradients in (first, second):
        for p, g in gradients.items():
            p.grad = g
        optimizer.step()
    a, b = (torch.cat([g.flatten() for p, g in grads.items() if p not in heads]) for grads in (first, second))
    cosine = float(torch.nn.functional.cosine_similarity(a, b, dim=0))
    for group in optimizer.param_groups:
        if group["beta_min"] is None:
            assert set(group["params"]) == heads
        else:
            top = group["momentum"] if group["optimizer"] == "muon" else group["betas"][0]
            expected = torch.full((len(group["params"]),), 0.5 + (top - 0.5) * (1 + cosine) / 2, dtype=torch.float64)
            assert_close(group["beta"], expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("apt", [False, True])
def test_ten_steps_saved_and_ten_more_are_twenty_bit_for_bit(apt):
    whole = train(muon_for(mlp(), 0.01, apt=apt), 20)
    model = mlp()
    first = muon_for(model, 0.01, apt=apt)
    train(first, 10)
    resumed = mlp(seed=1)
    resumed.load_state_dict(model.state_dict())
    second = muon_for(resumed, 0.5, apt=apt)
    train(second, 2)
    resumed.load_state_dict(model.state_dict())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert all(torch.equal(a, b) for a, b in zip(train(second, 10, 10), whole, strict=True))


def test_a_copy_goes_on_alike_and_alone():
    optimizer = muon_for(mlp(), 0.01, apt=True, preserve=0.1, variant="L3", record=True)
    train(optimizer, 3)
    twin = copy.deepcopy(optimizer)
    assert twin.routing() == optimizer.routing()
    assert all(torch.equal(a, b) for a, b in zip(train(twin, 2, 3), train(optimizer, 2, 3), strict=True))
    assert len(twin.effective_ranks) == 2


def test_one_scheduler_drives_both():
    optimizer = muon_for(mlp(), 0.01)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.1)
    train(optimizer, 1)
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == [pytest.approx(0.001)] * len(optimizer.param_groups)
    before = train(optimizer, 0)
    moved = max(float((a - b).abs().max()) for a, b in zip(before, train(optimizer, 1, 1), strict=True))
    assert moved < 0.003


def test_a_gradient_scaler_sees_one_optimizer():
    model = mlp()
    optimizer = muon_for(model, 0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    before = [p.detach().clone() for p in model.parameters()]
    scaler.scale(model(torch.ones(2, 5)).sum() * torch.inf).backward()
    scaler.step(optimizer)
    scaler.update()
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    assert scaler.get_scale() == 2.0
    optimizer.zero_grad()
    assert all(p.grad is None for p in model.parameters())
    scaler.scale(model(torch.ones(2, 5)).square().sum()).backward()
    scaler.step(optimizer)
    assert not torch.equal(model[2].weight, before[2])


def test_hooks_and_the_closure_run_once_a_step():
    model = mlp()
    optimizer = muon_for(model, 0.01)
    calls = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    everywhere = register_optimizer_step_post_hook(lambda *_: calls.append("anywhere"))

    def closure():
        optimizer.zero_grad()
        loss = model(torch.ones(2, 5)).square().sum()
        loss.backward()
        calls.append("closure")
        return loss

    try:
        loss = optimizer.step(closure)
    finally:
        everywhere.remove()
    assert loss.requires_grad
    assert sorted(calls) == ["after", "anywhere", "before", "closure"]


def test_groups_can_be_added_to_either_part():
    optimizer = muon_for(mlp(), 0.01)
    matrix, vector = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4))
    optimizer.add_param_group({"params": [matrix], "optimizer": "muon", "lr": 0.5})
    optimizer.add_param_group({"params": [vector]})
    assert [group["optimizer"] for group in optimizer.param_groups[-2:]] == ["muon", "adamw"]
    count = len(optimizer.param_groups)
    for wrong in ({"params": [nn.Parameter(torch.ones(3))], "optimizer": "muon"}, {"params": [vector]}):
        with pytest.raises(ValueError, match=r"AdamW|more than one"):
            optimizer.add_param_group(wrong)
    with pytest.raises(ValueError, match="'muon' or 'adamw'"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(3))], "optimizer": "sgd"})
    assert len(optimizer.param_groups) == count
    train(optimizer, 2)
    assert set(optimizer.state[matrix]) == {"momentum_buffer"}
    assert "exp_avg" in optimizer.state[vector]


def test_the_tasks_gradients_reach_muon():
    model = mlp()
    optimizer = muon_for(model, 0.01, preserve=0.5, record=True)
    shared = list(model[:6].parameters())
    for p in model.parameters():
        p.grad = torch.ones_like(p)  # Rank one; the tasks have more.
    generator = torch.Generator().manual_seed(0)
    optimizer.task_gradients(torch.randn(3, sum(p.numel() for p in shared), generator=generator), shared)
    optimizer.step()
    assert set(optimizer.effective_ranks) == {model[2].weight, model[5].weight}
    assert all(ranks.plain[0] < 1.01 < 2 < ranks.preserved[0] for ranks in optimizer.effective_ranks.values())


def test_options_reach_the_part_they_are_for():
    optimizer = muon_for(mlp(), 0.01, apt=True, rule="A2", momentum=0.9, adamw={"lr": 0.1, "eps": 1e-6})
    for group in optimizer.param_groups:
        assert group["rule"] == "A2"
        assert group["weight_decay"] == 0.01
        assert group["lr"] == (0.01 if group["optimizer"] == "muon" else 0.1)
        assert group.get("momentum", 0.9) == 0.9
        assert group["eps"] == (1e-7 if group["optimizer"] == "muon" else 1e-6)


def test_it_trains():
    torch.manual_seed(0)
    model, x = mlp(), torch.randn(64, 5)
    y = torch.stack([x[:, 0] * x[:, 1], x[:, 2].abs()], 1)
    optimizer = muon_for(model, 0.01, apt=True)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_groups_of_plain_parameters_are_adamws():
    model = mlp()
    optimizer = Hybrid(model.parameters(), adamw={"lr": 0.01})
    reference = APTAdamW(mlp().parameters(), lr=0.01)
    assert all(torch.equal(a, b) for a, b in zip(train(optimizer, 3), train(reference, 3), strict=True))


class Layered(nn.Module):
    """Attributes as given, in their order."""

    def __init__(self, **layers):
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)


def whys(model, **options):
    return {route.name: route.reason for route in muon_for(model, 1e-3, **options).routes if len(route.shape) > 1}


@pytest.mark.parametrize(
    "names",
    [
        ("head_a", "head_b"),
        ("task_heads", "aux_head"),
        ("headDepth", "headNormals"),
        ("classifier", "predictor"),
        ("pred1", "predictions"),
        ("lm_head", "classifiers"),
    ],
)
def test_heads_are_known_by_their_names_and_the_table_says_by_which(names):
    one, two = names
    layers = {one: nn.ModuleList([nn.Linear(8, 8)]), "trunk": mlp()[:3], two: nn.Linear(8, 8), "late": nn.Linear(8, 8)}
    model = Layered(first=nn.Linear(5, 8), **layers)
    found = whys(model)
    assert {name: why for name, why in found.items() if why.startswith("head")} == {
        f"{one}.0.weight": f"head, by the name {one!r}",
        f"{two}.weight": f"head, by the name {two!r}",
    }
    assert found["late.weight"] == found["trunk.2.weight"] == "hidden matrix"
    heads = {p for name in names for p in getattr(model, name).parameters()}
    [group] = [g for g in muon_for(model, 1e-3, apt=True).param_groups if g["beta_min"] is None]
    assert set(group["params"]) == heads


@pytest.mark.parametrize("name", ["overhead", "attention_head", "predecessor", "multihead_attn", "heading"])
def test_other_names_are_no_heads(name):
    model = Layered(first=nn.Linear(5, 8), **{name: nn.Linear(8, 8)}, mix=nn.Linear(8, 8), last=nn.Linear(8, 2))
    assert set(muons(model)) == {f"{name}.weight", "mix.weight"}


def test_the_heads_of_an_attention_and_a_name_for_the_whole_model_are_no_heads():
    block = Layered(attn=Layered(heads=nn.ModuleList([nn.Linear(8, 8)])), mix=nn.Linear(8, 8))
    model = Layered(predictor=Layered(first=nn.Linear(5, 8), block=block, last=nn.Linear(8, 2)))
    assert set(muons(model)) == {"predictor.block.attn.heads.0.weight", "predictor.block.mix.weight"}


def test_layers_beside_the_last_that_feed_no_layer_are_heads_too():
    model = Layered(trunk=mlp()[:3], mix=nn.Linear(8, 8), depth=nn.Linear(8, 3), normals=nn.Linear(8, 2))
    assert {name: why for name, why in whys(model).items() if why.startswith("head")} == {
        "depth.weight": "head: no layer takes its 3 outputs",
        "normals.weight": "head: the last layer",
    }
    towers = nn.ModuleList([nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, k)) for k in (1, 2, 3)])
    model = Layered(trunk=mlp()[:3], towers=towers)
    assert set(muons(model)) == {"trunk.2.weight", "towers.0.0.weight", "towers.1.0.weight", "towers.2.0.weight"}
    blocks = nn.ModuleList([nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 8)) for _ in range(3)])
    assert len(muons(Layered(first=nn.Linear(5, 8), blocks=blocks))) == 5  # All but the very last.


def test_what_the_caller_says_of_heads_outdoes_every_name():
    model = Layered(trunk=mlp()[:3], head=nn.Linear(8, 8), out=nn.Linear(8, 8))
    found = whys(model, heads=model.out)
    assert found["head.weight"] == "hidden matrix"
    assert found["out.weight"] == "head, as given"
    assert whys(model, inputs=model.trunk)["trunk.2.weight"] == "first layer, as given"


def test_a_transformer_splits_its_projections():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(8)
            self.qkv, self.kv, self.proj = nn.Linear(8, 24), nn.Linear(8, 16), nn.Linear(8, 8)
            self.in_proj = nn.Linear(8, 20)  # Not three times as many rows.

    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1)
    model = Layered(
        embed=nn.Linear(5, 8), blocks=nn.ModuleList([Block(), Block()]), encoder=encoder, head=nn.Linear(8, 8)
    )
    expected = {f"blocks.{i}.{name}.weight": n for i in (0, 1) for name, n in (("qkv", 3), ("proj", 1), ("in_proj", 1))}
    expected |= {f"blocks.{i}.kv.weight": 2 for i in (0, 1)}
    rest = {"self_attn.in_proj_weight": 3, "self_attn.out_proj.weight": 1, "linear1.weight": 1, "linear2.weight": 1}
    expected |= {f"encoder.layers.0.{name}": blocks for name, blocks in rest.items()}
    optimizer = muon_for(model, 1e-3, splits={"blocks.*.kv": 2})
    assert muons(model, splits={"blocks.*.kv": 2}) == expected
    table = optimizer.routing()
    assert "hidden matrix, 3 blocks by the name 'qkv'" in table
    assert "hidden matrix, 2 blocks, as given" in table
    assert muons(model, splits={"blocks.0.qkv.weight": 1})["blocks.0.qkv.weight"] == 1
    assert muons(model, splits={"blocks.0.qkv.weight": 1})["blocks.1.qkv.weight"] == 3
    train(optimizer, 2)


def test_a_split_projection_moves_as_three_matrices():
    whole = Layered(first=nn.Linear(5, 8), qkv=nn.Linear(8, 24, bias=False), out=nn.Linear(24, 2))
    start = whole.qkv.weight.detach().clone()
    parts = [nn.Parameter(part.clone()) for part in start.split(8)]
    gradient = torch.randn(24, 8, generator=torch.Generator().manual_seed(0))
    optimizer = muon_for(whole, 0.01)
    whole.qkv.weight.grad = gradient
    optimizer.step()
    plain = APTMuon(parts, 0.01, adjust_lr_fn="match_rms_adamw", weight_decay=0.01)
    for part, g in zip(parts, gradient.split(8), strict=True):
        part.grad = g.clone()
    plain.step()
    assert_close(whole.qkv.weight.detach(), torch.cat([part.detach() for part in parts]), rtol=0, atol=1e-3)
    assert not torch.equal(whole.qkv.weight, start)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"1": 0}, "must be a whole number of blocks"),
        ({"1": True}, "must be a whole number of blocks"),
        ({"1": 3}, "does not divide the 8 rows of 1.weight"),
        ({"0": 2}, "names no parameter that goes to Muon"),
        ({"qvk": 3}, "names no parameter that goes to Muon"),
    ],
)
def test_splits_that_do_not_fit_are_refused_by_name(splits, message):
    with pytest.raises(ValueError, match=message):
        muon_for(nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 2)), 1e-3, splits=splits)


def test_a_convolutional_net_keeps_its_first_layer_and_its_heads_from_muon():
    trunk = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 16, 3))
    model = Layered(trunk=trunk, mask_head=nn.Conv2d(16, 2, 1), depth_head=nn.Conv2d(16, 1, 1))
    assert set(muons(model)) == {"trunk.3.weight", "trunk.4.weight"}
    assert whys(model)["trunk.0.weight"] == "first layer"


@pytest.mark.parametrize(("layer", "gates"), [(nn.GRU, 3), (nn.LSTM, 4), (nn.RNN, 1)])
def test_recurrent_layers_split_their_gates_also_where_they_are_weight_normed(layer, gates):
    def model(normed=False):
        net = Layered(first=layer(5, 8, num_layers=2, bidirectional=True), head=nn.Linear(16, 2))
        if normed:
            parametrizations.weight_norm(net.first, "weight_hh_l0")
            parametrizations.weight_norm(net.first, "weight_ih_l0")
        return net

    names = [f"first.weight_{kind}_l{i}{way}" for kind in ("hh", "ih") for i in (0, 1) for way in ("", "_reverse")]
    hidden = dict.fromkeys((name for name in names if "ih_l0" not in name), gates)
    assert muons(model()) == hidden
    moved = "first.parametrizations.weight_hh_l0.original1"
    assert muons(model(normed=True)) == {k: v for k, v in hidden.items() if k != "first.weight_hh_l0"} | {moved: gates}


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
def test_parametrised_layers_go_where_their_weights_would():
    new, old = parametrizations.weight_norm, nn.utils.weight_norm
    for norm, direction in ((new, "parametrizations.weight.original1"), (old, "weight_v")):
        model = nn.Sequential(norm(nn.Linear(5, 8)), norm(nn.Linear(8, 8)), norm(nn.Linear(8, 2)))
        assert set(muons(model)) == {f"1.{direction}"}
        assert whys(model)[f"0.{direction}"] == "first layer"
        assert whys(model)[f"2.{direction}"] == "head: the last layer"
    model = nn.Sequential(
        nn.Linear(5, 8),
        parametrizations.spectral_norm(nn.Linear(8, 8)),
        parametrizations.orthogonal(nn.Linear(8, 8)),
        nn.Linear(8, 2),
    )
    found = whys(model)
    assert found["1.parametrizations.weight.original"] == "hidden matrix"
    assert found["2.parametrizations.weight.original"] == "parametrised by _Orthogonal"


def test_the_last_layers_of_towers_that_are_attributes_are_heads():
    towers = {
        name: nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, k)) for name, k in (("depth", 3), ("seg", 5))
    }
    assert set(muons(Layered(trunk=mlp()[:3], **towers))) == {"trunk.2.weight", "depth.0.weight", "seg.0.weight"}
    # What other layers read through a flattening or a concatenation is no output.
    net = Layered(features=nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3)), out=nn.Linear(400, 3))
    assert set(muons(net)) == {"features.1.weight"}
    two = {"image": nn.Sequential(nn.Linear(9, 8), nn.Linear(8, 10)), "text": nn.Sequential(nn.Linear(5, 8))}
    assert "image.1.weight" in muons(Layered(**two, out=nn.Sequential(nn.Linear(18, 8), nn.Linear(8, 2))))


def test_a_fused_projection_of_unknown_blocks_goes_to_muon_only_where_splits_names_it():
    class Conv1D(nn.Module):  # As of GPT-2: (in, out).
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(8, 24))

    model = Layered(first=nn.Linear(5, 8), c_attn=Conv1D(), qkv=nn.Linear(8, 12), head=nn.Linear(8, 2))
    assert muons(model) == {}
    assert "splits" in whys(model)["c_attn.weight"]
    assert muons(model, splits={"qkv": 3, "c_attn": 1}) == {"qkv.weight": 3, "c_attn.weight": 1}


def test_a_copy_of_a_hybrid_keeps_the_hook_that_measures_noise():
    optimizer = muon_for(mlp(), 1e-3, apt=True, rule="a7")
    optimizer.adaptive.noise_hook = lambda: 0.5
    twin = copy.deepcopy(optimizer)
    assert twin.adaptive.noise_hook is not None
    train(twin, 3)
    train(optimizer, 3)
    for one, other in zip(twin.param_groups, optimizer.param_groups, strict=True):
        assert one["rule"] == "A7"
        if one["beta_min"] is not None:
            assert torch.equal(one["noise"], other["noise"])


def test_a_hybrid_refuses_options_of_adaptation_where_nothing_adapts():
    with pytest.raises(ValueError, match="rule='A2' is an option of adaptive momentum"):
        muon_for(mlp(), 1e-3, rule="A2")
    copy.deepcopy(muon_for(mlp(), 1e-3, apt=True, rule="A2"))
