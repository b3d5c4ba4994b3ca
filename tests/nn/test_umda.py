"""UMDA as a whole: what is missing changes nothing, padding and order neither, and every block can be left out."""

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

import motet
from motet.nn.bag import Bag
from motet.nn.umda import UMDA

TASKS = {"grade": 3, "forward": 1, "stage.of.tumour": 4}
WIDTHS = {"rna.seq": 5, "slide": 4, "keys": 4}
SIZES = (6, 1, 9, 3)
POOLINGS = ["graph", "mean", "max", "attention", "transformer"]


def build(seed=0, views=WIDTHS, tasks=TASKS, bags=("slide", "keys"), trained=True, **options):
    """A model in float64 in which no weight is at its special start."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = UMDA(views, tasks, bags, **({"dim": 8, "heads": 2, "rank": 2, "neighbours": 3} | options)).double()
        if trained:
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def random(*shape, seed=1):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def ragged(sizes=SIZES, width=4, seed=2):
    return Bag.of(list(random(sum(sizes), width, seed=seed).split(list(sizes))))


def batch(sizes=SIZES):
    return {"rna.seq": random(len(sizes), 5), "slide": ragged(sizes), "keys": ragged(sizes[::-1], seed=3)}


def aligned_batch(sizes=SIZES):
    return {name: ragged(sizes, width, seed=width + len(name)) for name, width in WIDTHS.items()}


def same(found, expected, rows=slice(None), others=slice(None)):
    """The same outputs of these samples to 1e-9."""
    for task, output in expected[0].items():
        assert_close(found[0][task][rows], output[others], rtol=0, atol=1e-9)


def same_penalties(found, expected):
    for name, value in expected[1]["regularisers"].items():
        assert_close(found[1]["regularisers"][name], value, rtol=0, atol=1e-9)


def wirings():
    return pytest.mark.parametrize("wiring", ["ragged", "aligned"])


def given_to(wiring, **options):
    """A model of this wiring and a batch for it."""
    if wiring == "aligned":
        return build(bags=True, wiring="aligned", **options), aligned_batch()
    return build(**options), batch()


@wirings()
@pytest.mark.parametrize("pooling", POOLINGS)
def test_padded_and_flat_bags_are_the_same_whatever_padding_holds(pooling, wiring):
    model, flat = given_to(wiring, pooling=pooling)
    padded = {}
    for name, value in flat.items():
        if isinstance(value, Bag):
            bag = value.padded()
            x = torch.cat([bag.x.masked_fill(~bag.mask[..., None], torch.nan), random(4, 2, bag.x.shape[-1])], 1)
            value = Bag(x, torch.cat([bag.mask, torch.zeros(4, 2, dtype=torch.bool)], 1))
        padded[name] = value
    expected, found = model(flat), model(padded)
    same(found, expected)
    same_penalties(found, expected)
    attention = found[1]["instances"]["slide"]["attention"]
    assert attention.shape == padded["slide"].mask.shape
    assert_close(attention[padded["slide"].mask], expected[1]["instances"]["slide"]["attention"])


@wirings()
@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_sample_gets_the_same_alone_as_in_a_batch(pooling, wiring):
    model, inputs = given_to(wiring, pooling=pooling)
    expected = model(inputs)
    for b in range(4):
        same(model({name: value[[b]] for name, value in inputs.items()}), expected, others=[b])


@wirings()
@pytest.mark.parametrize("fuse", ["mean", "concat"])
def test_a_missing_view_changes_nothing_however_it_is_told(fuse, wiring):
    model, inputs = given_to(wiring, fuse=fuse)
    gone = "slide"
    absent = {name: value for name, value in inputs.items() if name != gone}
    expected = model(absent)
    bag = inputs[gone]
    ways = {
        "None": ({**inputs, gone: None}, None),
        "mask": (inputs, {gone: torch.zeros(4, dtype=torch.bool)}),
        "NaN rows": ({**inputs, gone: Bag(bag.x * torch.nan, offsets=bag.offsets)}, None),
        "NaN padded": ({**inputs, gone: Bag(bag.padded().x * torch.nan, bag.padded().mask)}, None),
        "NaN and mask": (
            {**inputs, gone: Bag(bag.x * torch.nan, offsets=bag.offsets)},
            {gone: torch.zeros(4, dtype=torch.bool)},
        ),
    }
    if wiring == "ragged":
        ways["empty"] = ({**inputs, gone: Bag.of([torch.zeros(0, 4, dtype=torch.float64)] * 4)}, None)
    for values, mask in ways.values():
        found = model(values, mask)
        same(found, expected)
        assert found[1]["view_mask"].tolist() == [[True, False, True]] * 4
        for name, value in expected[1]["regularisers"].items():
            assert_close(found[1]["regularisers"][name], value, rtol=0, atol=1e-9)


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=4, max_size=4))
def test_rows_without_a_view_are_those_of_a_model_that_never_saw_it(there):
    model, inputs = build(pooling="attention"), batch()
    mask = {name: torch.tensor(column) for name, column in zip(WIDTHS, zip(*there, strict=True), strict=True)}
    junk = {
        "rna.seq": inputs["rna.seq"].masked_fill(~mask["rna.seq"][:, None], torch.nan),
        "slide": Bag(
            inputs["slide"].x.masked_fill(~mask["slide"][inputs["slide"].owner, None], torch.inf),
            offsets=inputs["slide"].offsets,
        ),
        "keys": inputs["keys"],
    }
    outputs, info = model(junk, mask)
    assert info["view_mask"].tolist() == there
    for b, row in enumerate(there):
        alone = {name: inputs[name][[b]] if present else None for name, present in zip(WIDTHS, row, strict=True)}
        if any(row):
            same((outputs,), model(alone), rows=[b])
    (sum(output.square().sum() for output in outputs.values()) + model.regularisation(info)).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@wirings()
def test_samples_without_any_view_get_one_finite_output(wiring):
    model, inputs = given_to(wiring)
    nothing = {name: torch.tensor([True, False, True, False]) for name in WIDTHS}
    outputs, info = model(inputs, nothing)
    for output in outputs.values():
        assert output.isfinite().all()
        assert torch.equal(output[1], output[3])
    same((outputs,), model(inputs), rows=[0, 2], others=[0, 2])
    for name in WIDTHS:
        nothing[name][:] = False
    outputs, info = model(inputs, nothing)
    (sum(output.sum() for output in outputs.values()) + model.regularisation(info)).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@given(st.permutations(list(WIDTHS)), st.permutations(list(TASKS)), st.sampled_from(["ragged", "aligned"]))
def test_the_order_of_views_and_tasks_does_not_matter(views, tasks, wiring):
    model, inputs = given_to(wiring, hierarchy=[["grade", "stage.of.tumour"], ["forward"]])
    bags = True if wiring == "aligned" else {"slide", "keys"}
    hierarchy = [["forward"], ["stage.of.tumour", "grade"]]
    other = build(
        views={name: WIDTHS[name] for name in views}, tasks={name: TASKS[name] for name in tasks}, bags=bags,
        wiring=wiring, hierarchy=hierarchy,
    )  # fmt: skip
    mine, theirs = list(WIDTHS), list(TASKS)
    pooled = [name for name in WIDTHS if name in model.bags]
    for v, name in enumerate(views):
        other.encoders[v].load_state_dict(model.encoders[mine.index(name)].state_dict())
    for v, name in enumerate(name for name in views if name in pooled):
        p = pooled.index(name) if wiring == "ragged" else 0
        other.poolings[v if wiring == "ragged" else 0].load_state_dict(model.poolings[p].state_dict())
    other.attention.load_state_dict(model.attention.state_dict())
    order = [theirs.index(name) for name in tasks]
    for k, place in enumerate(order):
        other.heads[k].load_state_dict(model.heads[place].state_dict())
    other.branching.shared.load_state_dict(model.branching.shared.state_dict())
    with torch.no_grad():
        for name in ("up", "down", "strength"):
            getattr(other.branching, name).copy_(getattr(model.branching, name)[order])
        for name in ("logits", "prior_logits"):
            old = getattr(model.branching, name).view(3, 3)
            getattr(other.branching, name).copy_(old[order][:, order].flatten())
    expected, found = model(inputs), other(inputs)
    same(found, expected)
    same_penalties(found, expected)


def test_the_order_of_instances_does_not_matter():
    model, inputs = build(), batch()
    expected = model(inputs)
    bag = inputs["slide"]
    order = torch.cat([start + torch.randperm(n) for start, n in zip(bag.offsets, bag.sizes, strict=False)])
    found = model({**inputs, "slide": Bag(bag.x[order], offsets=bag.offsets)})
    same(found, expected)
    attention = [each[1]["instances"]["slide"]["attention"] for each in (found, expected)]
    assert_close(attention[0], attention[1][order], rtol=0, atol=1e-9)


@wirings()
@pytest.mark.parametrize("form", ["flat", "padded"])
def test_a_missing_instance_leaves_places_and_edges_to_the_others(form, wiring):
    model = build(views={"a": 4}, bags=True, wiring=wiring)
    bag, points = ragged(), random(sum(SIZES), 2, seed=9)
    edges = torch.tensor([[0, 1, 2, 7, 8, 15, 3], [1, 2, 3, 8, 9, 14, 5]])
    gone = [2, 8, 15]
    stays = torch.tensor([i for i in range(sum(SIZES)) if i not in gone])
    new = {int(old): number for number, old in enumerate(stays)}
    left = torch.tensor([[new[i], new[j]] for i, j in edges.T.tolist() if i in new and j in new]).T
    offsets = torch.tensor([0, *(sum(int(i) < end for i in stays) for end in bag.offsets[1:])])
    x = bag.x.clone()
    x[gone] = torch.nan
    for options, rest in (
        ({"edges": edges}, {"edges": left}),
        ({"coordinates": points}, {"coordinates": points[stays]}),
    ):
        given_bag = Bag(x, offsets=bag.offsets, **options)
        given_bag = given_bag.padded() if form == "padded" else given_bag
        expected = model({"a": Bag(bag.x[stays], offsets=offsets, **rest)})
        found = model({"a": given_bag})
        same(found, expected)
        told, known = (each[1]["instances"]["a"] for each in (found, expected))
        attention = told["attention"] if form == "flat" else told["attention"][given_bag.mask]
        assert_close(attention[stays], known["attention"], rtol=0, atol=1e-9)
        assert (attention[gone] == 0).all()
        assert torch.equal(told["graph"]["edges"], stays[known["graph"]["edges"]])


def test_an_instance_may_lack_one_of_its_views():
    model, inputs = build(bags=True, wiring="aligned", pooling="mean", attention=False), aligned_batch()
    bag = inputs["slide"]
    x = bag.x.clone()
    x[3] = torch.nan
    info = model({**inputs, "slide": Bag(x, offsets=bag.offsets)})[1]
    encoded = torch.stack([e(inputs[n].x) for n, e in zip(WIDTHS, model.encoders, strict=True)])
    instances = encoded.mean(0)
    instances[3] = encoded[[0, 2], 3].mean(0)
    expected = torch.stack([part.mean(0) for part in instances.split(list(SIZES))])
    assert_close(info["features"], expected, rtol=0, atol=1e-9)


def test_without_attention_and_branching_it_is_hard_sharing_of_pooled_means():
    model, inputs = build(attention=False, branching=False, pooling="mean"), batch()
    outputs, info = model(inputs)
    rna, slide, keys = model.encoders
    pooled = [torch.stack([part.mean(0) for part in e(inputs[n].x).split(inputs[n].sizes.tolist())])
              for n, e in (("slide", slide), ("keys", keys))]  # fmt: skip
    z = (rna(inputs["rna.seq"]) + sum(pooled)) / 3
    assert_close(info["features"], z, rtol=0, atol=1e-9)
    assert_close(outputs["forward"], model.heads[1](model.shared(z)), rtol=0, atol=1e-9)
    assert info["regularisers"] == {}
    assert model.regularisation(info) == 0


@wirings()
def test_variants_of_one_seed_start_as_the_same_function(wiring):
    whole, inputs = given_to(wiring, trained=False)
    for options in ({"attention": False}, {"branching": False}, {"attention": False, "branching": False}):
        part, _ = given_to(wiring, trained=False, **options)
        for task, output in part(inputs)[0].items():
            assert torch.equal(output, whole(inputs)[0][task])


@pytest.mark.parametrize("attention", [True, False])
def test_one_view_and_one_task_are_enough(attention):
    model = build(views={"only": 5}, tasks={"only": 2}, bags=False, attention=attention)
    outputs, info = model({"only": random(4, 5)})
    assert outputs["only"].shape == (4, 2)
    assert info["influence"].tolist() == [[1.0]]
    (outputs["only"].sum() + model.regularisation(info)).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_gradients_reach_every_parameter_that_is_used():
    model, inputs = build(), batch()
    outputs, info = model(inputs)
    loss = sum(output.square().mean() for output in outputs.values()) + sum(info["regularisers"].values())
    loss.backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert silent == []


def test_a_module_of_the_users_encodes_a_view():
    class Patches(nn.Module):
        out_features = 6

        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

        def forward(self, x):
            return self.net(x.view(-1, 3, 4, 4))

    words = nn.EmbeddingBag(10, 7)
    model = build(views={"image": Patches(), "text": (words, 7)}, bags={"image"})
    inputs = {"image": ragged(width=48), "text": torch.randint(10, (4, 3))}
    outputs, _ = model(inputs)
    outputs["grade"].sum().backward()
    assert words.weight.grad.abs().sum() > 0
    same(model({**inputs, "image": inputs["image"].padded()}), (outputs,))
    with pytest.raises(ValueError, match="'text' must give"):
        build(views={"text": (nn.EmbeddingBag(10, 5), 7)}, bags=False)({"text": torch.randint(10, (4, 3))})


def test_the_balancer_takes_its_features_and_heads_keep_their_own_gradient():
    model, inputs = build(), batch()
    twin = copy.deepcopy(model)
    outputs, info = model(inputs)
    losses = {task: output.square().mean() for task, output in outputs.items()}
    model.regularisation(info).backward(retain_graph=True)
    step = motet.Balancer("sum", route="features").backward(losses, features=info["features"])
    assert step.tasks == tuple(TASKS)
    outputs, info = twin(inputs)
    (sum(output.square().mean() for output in outputs.values()) + twin.regularisation(info)).backward()
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert_close(one.grad, other.grad, rtol=0, atol=1e-9)


@pytest.mark.parametrize("route", ["exact", "last-layer", "features"])
def test_a_method_balances_it_on_the_routes(route):
    model, inputs = build(), batch()
    outputs, info = model(inputs)
    losses = {task: output.square().mean() for task, output in outputs.items()}
    step = motet.Balancer("fair-grad", route=route).backward(losses, features=info["features"])
    assert step.weights.isfinite().all()
    assert model.encoders[0].project[0].weight.grad.abs().sum() > 0


def test_grouped_updates_and_muon_train_it():
    model, inputs = build(), batch()
    optimizer = motet.optim.muon_for(model, lr=1e-2, heads=model.heads, inputs=model.encoders)
    routed = {route.name: route for route in optimizer.routes}
    assert routed["heads.0.weight"].optimizer == routed["branching.logits"].optimizer == "adamw"
    assert routed["attention.content.weight"].optimizer == "muon"
    updates = motet.GroupedUpdates(
        list(TASKS), optimizer, warmup=0, grouping=[["grade", "forward"], ["stage.of.tumour"]]
    )

    def closure():
        return {task: (output - 1).square().mean() for task, output in model(inputs)[0].items()}

    before = sum(closure().values()).item()
    for _ in range(5):
        updates.step(closure)
    assert sum(closure().values()).item() < before


def test_compiled_it_is_the_same_for_vectors():
    model = build(views={"a": 5, "b": 3}, bags=False, fuse="concat")
    inputs = {"a": random(4, 5), "b": random(4, 3).index_fill(0, torch.tensor([2]), torch.nan)}
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    found, expected = compiled(inputs), model(inputs)
    same(found, expected)
    same_penalties(found, expected)


def test_autocast_is_close_and_keeps_penalties_in_full_precision():
    model, bag = build().float(), ragged()
    inputs = {"rna.seq": random(4, 5).float(), "slide": Bag(bag.x.float(), offsets=bag.offsets)}
    expected = model(inputs)
    with torch.autocast("cpu", torch.bfloat16):
        outputs, info = model(inputs)
    for task, output in expected[0].items():
        assert_close(outputs[task].float(), output, rtol=0, atol=0.1)
    assert all(value.dtype == torch.float32 for value in info["regularisers"].values())


def test_dropout_is_for_training_only():
    model, inputs = build(dropout=0.5), batch()
    same(model.eval()(inputs), model(inputs))
    torch.manual_seed(0)
    assert (model.train()(inputs)[1]["features"] == 0).double().mean() > 0.2


def test_the_penalties_add_up_with_the_documented_coefficients_and_warm_up():
    model, inputs = build(), batch()
    info = model(inputs)[1]
    p = info["regularisers"]
    pooled = {kind: (p[f"pooling.slide.{kind}"] + p[f"pooling.keys.{kind}"]) / 2
              for kind in ("attention_entropy", "smoothness")}  # fmt: skip
    expected = (
        0.01 * (p["attention.concentration"] + p["branching.divergence"] + p["branching.consistency"])
        + 0.1 * (p["attention.consistency"] + p["attention.dispersion"])
        + 0.01 * sum(pooled.values())
    )
    assert_close(model.regularisation(info), expected)
    assert_close(model.regularisation(info, 3, 100), 0.3 * expected)
    assert_close(model.regularisation(info, 10, 100), expected)
    assert model.regularisation(info, 0, 100) == 0
    model.coefficients["attention.dispersion"] = 0.0
    assert_close(model.regularisation(info), expected - 0.1 * p["attention.dispersion"])
    for step, total in ((1, None), (None, 10), (-1, 10), (0, 0)):
        with pytest.raises(ValueError, match="step"):
            model.regularisation(info, step, total)


def test_a_copy_and_a_loaded_state_are_the_same():
    model, inputs = build(), batch()
    other = build(seed=7)
    other.load_state_dict(model.state_dict())
    for twin in (other, copy.deepcopy(model)):
        for task, output in twin(inputs)[0].items():
            assert torch.equal(output, model(inputs)[0][task])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slides": random(4, 4)}, "'slides', which is no view: did you mean 'slide'"),
        ({"rna.seq": random(4, 6)}, r"'rna.seq' must be \(B, 5\), not \(4, 6\)"),
        ({"slide": ragged(width=3)}, "'slide' must have instances of width 4, not 3"),
        ({"rna.seq": random(4, 2, 5)}, "'rna.seq' is a vector .* was given bags"),
        ({"rna.seq": ragged(width=5)}, "'rna.seq' is a vector .* a Bag"),
        ({"slide": random(4, 4)}, "'slide' is a bag .* give a Bag"),
        ({"slide": [random(2, 4)] * 4}, "'slide' is a bag .* not a list"),
        ({"rna.seq": random(3, 5)}, "different numbers of samples .*rna.seq 3, slide 4"),
        ({"rna.seq": torch.ones(4, 5, dtype=torch.int64)}, "'rna.seq' must hold floating-point"),
        ({"rna.seq": None, "slide": None, "keys": None}, "no view is there"),
    ],
)
def test_inputs_that_do_not_fit_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        build()({**batch(), **change})


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ({"slde": torch.ones(4, dtype=torch.bool)}, "view_mask holds 'slde'"),
        ({"slide": torch.ones(4)}, "view_mask of 'slide' must be bool"),
        ({"slide": torch.ones(3, dtype=torch.bool)}, r"must be bool \(4,\)"),
        ({"slide": [True] * 4}, "view_mask of 'slide' must be a tensor, not a list"),
        (torch.ones(4, 3, dtype=torch.bool), "view_mask must be a dict of views"),
    ],
)
def test_masks_that_do_not_fit_are_named(mask, message):
    with pytest.raises(ValueError, match=message):
        build()(batch(), mask)


def test_aligned_views_must_have_the_same_instances():
    model, inputs = build(bags=True, wiring="aligned"), aligned_batch()
    with pytest.raises(ValueError, match="'rna.seq' and 'slide' have different numbers of instances"):
        model({**inputs, "slide": ragged(SIZES[::-1])})
    padded = inputs["slide"].padded()
    with pytest.raises(ValueError, match="different numbers of instances"):
        model({"keys": padded, "slide": Bag(padded.x, padded.mask.flip(0))})


def test_aligned_views_may_be_padded_to_different_lengths():
    model, inputs = build(bags=True, wiring="aligned"), aligned_batch()
    slide = inputs["slide"].padded()
    longer = Bag(
        torch.cat([slide.x, random(len(slide), 3, slide.x.shape[-1])], 1),
        torch.nn.functional.pad(slide.mask, (0, 3)),
    )
    others = {name: bag.padded() for name, bag in inputs.items() if name != "slide"}
    same(model({**others, "slide": longer})[:1], (model(inputs)[0],))


def test_aligned_views_may_hold_places_and_edges_in_different_bags():
    model, inputs = build(bags=True, wiring="aligned"), aligned_batch()
    (first, one), (second, two), *_ = inputs.items()
    edges = torch.tensor([[0], [1]])
    points = random(len(one.x), 2)
    apart = {first: replace(one, coordinates=points), second: replace(two, edges=edges)}
    _, info = model({**inputs, **apart})
    assert info["instances"][first]["graph"]["edges"].tolist() == [[0], [1]]


@pytest.mark.parametrize("wiring", ["ragged", "aligned"])
@pytest.mark.parametrize("form", ["flat", "padded"])
def test_an_instance_with_some_nan_is_named_with_its_view_and_place(wiring, form):
    bag = Bag.of([random(2, 4), random(0, 4), random(3, 4)])
    bag.x[2] = torch.nan  # The first instance of the third bag is missing, which is fine.
    bag.x[4, 1] = torch.nan
    model = build(views={"a": 4, "slide": 4}, bags=True, wiring=wiring, pooling="mean")
    other = getattr(Bag.of([random(2, 4), random(0, 4), random(3, 4)]), form)()
    with pytest.raises(ValueError, match="view 'slide' has NaN or infinite values in instance 2 of bag 2"):
        model({"a": other, "slide": getattr(bag, form)()})


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_row_with_some_nan_is_named_with_its_view(bad):
    inputs = batch()
    inputs["rna.seq"][1, 2] = bad
    with pytest.raises(ValueError, match=r"view 'rna.seq' has NaN or infinite values in row 1"):
        build()(inputs)


def test_a_view_in_another_precision_than_the_model_is_named():
    model, inputs = build().float(), {"slide": batch()["slide"]}
    with pytest.raises(
        ValueError, match=r"view 'slide' is in float64 and the model in float32: give x.to\(torch.float32\)"
    ):
        model(inputs)
    assert model({"slide": inputs["slide"].to(torch.float32)})[0]["grade"].dtype == torch.float32


@pytest.mark.parametrize("pooling", ["graph", "mean", "max", "attention", "transformer"])
def test_the_whole_model_moves_to_half_precision(pooling):
    model = build(pooling=pooling).bfloat16()
    inputs = {name: value.to(torch.bfloat16) for name, value in batch().items()}
    outputs, info = model(inputs)
    assert {output.dtype for output in outputs.values()} == {torch.bfloat16}
    (sum(output.float().square().mean() for output in outputs.values()) + model.regularisation(info)).backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())


def test_a_tensor_is_no_dict_of_views():
    with pytest.raises(ValueError, match="inputs must be a dict of views"):
        build()(random(4, 5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": {}}, "views must be a dict"),
        ({"tasks": {}}, "tasks must be a dict"),
        ({"tasks": ["a"]}, "tasks must be a dict"),
        ({"tasks": {"a": 0}}, "task 'a' must have at least 1 output"),
        ({"tasks": {"a": None}}, "task 'a' must have at least 1 output"),
        ({"tasks": {3: 1}}, "tasks have names"),
        ({"views": {"a": 0}}, "view 'a' must be a width"),
        ({"views": {"a": "wide"}}, "view 'a' must be a width"),
        ({"views": {"a": nn.ReLU()}}, "module of view 'a' does not tell its width"),
        ({"bags": {"b"}}, "bags holds 'b'"),
        ({"bags": "slide"}, "write {'slide'}"),
        ({"wiring": "straight"}, "wiring must be one of ragged, aligned"),
        ({"pooling": "median"}, "pooling must be one of graph"),
        ({"fuse": "sum"}, "fuse must be one of mean"),
        ({"wiring": "aligned", "bags": {"a"}, "views": {"a": 3, "b": 3}}, "all views are bags"),
        ({"branching": False, "hierarchy": [["x"]]}, "branching=False leaves that out"),
        ({"dropout": 1.0}, "dropout is a probability"),
        ({"dim": 0}, "dim must be"),
        ({"heads": 3}, "heads must divide"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        UMDA(**({"views": {"a": 3, "slide": 4}, "tasks": {"x": 1}} | options))
