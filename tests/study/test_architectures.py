"""Arms with another model: one label each, trained from one seed, refused where they can't be, and shown afterwards."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from motet.nn import UMDA, Bag
from motet.problems.base import Data, Problem, Split
from motet.problems.views import Views
from motet.study import caveats
from motet.study.architectures import DESCRIPTIONS, HARD, OPTIONS, architecture_of
from motet.study.arms import parse, parse_all
from motet.study.networks import ViewGate, shared_of, split
from motet.study.store import read_runs
from motet.study.study import Study
from motet.study.training import train
from tests.study.runs import study as made_up
from tests.study.tiny import TASKS, TINY, load

REFERENCE = dict.fromkeys(("dose", "ill", "grade"), 0.5)
SHORT = replace(TINY.training, depth=2, epochs=1)
EACH = [
    "mmoe(experts=2)+sum",
    "cgc+sum",
    "ple+fair-grad",
    "cross-stitch+sum",
    "dselect-k(experts=3,entropy=0.01)+sum",
    "umda+self-guided",
    "muon+umda(attention=False,branching=False)+sum",
]


def with_views(seed):
    """The tiny problem's columns as a vector with missing rows, and as a bag of 0 to 4 instances at coordinates."""
    data = load(seed)
    generator = torch.Generator().manual_seed(seed)

    def part(given):
        rows = len(given)
        sizes = torch.arange(rows) % 5
        offsets = torch.cat([torch.zeros(1, dtype=torch.long), sizes.cumsum(0)])
        x = given.inputs[:, 3:].repeat_interleave(sizes, 0) + 0.1 * torch.randn(
            int(sizes.sum()), 3, generator=generator
        )
        vector = given.inputs[:, :3].clone()
        vector[::6] = torch.nan
        points = torch.rand(len(x), 2, generator=generator)
        return Split(Views({"blood": vector, "slide": Bag(x, None, offsets, points)}), given.targets)

    return Data(TASKS, part(data.train), part(data.validation), part(data.test))


VIEWS = Problem("tiny-views", "three made-up outcomes in two views", "generated", with_views, training=SHORT)


def trained(label, problem=TINY, training=SHORT):
    return train(problem, problem.load(0), parse(label), 0, training, REFERENCE)


def same(one, other):
    return all(torch.equal(value, other.parameters[name]) for name, value in one.parameters.items())


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("MMoE+sum", "mmoe+sum"),
        ("mmoe(experts=8)+FairGrad", "mmoe+fair-grad"),
        ("mmoe(width=16,experts=4)+sum", "mmoe(experts=4,width=16)+sum"),
        ("Cross_Stitch(alpha=.50)+sum", "cross-stitch(alpha=0.5)+sum"),
        ("DSelectK(static=true)+sum", "dselect-k(static=True)+sum"),
        ("umda(branching=false)+self-guided", "umda(branching=False)+self-guided"),
        ("umda(branching=True,pooling=graph)+sum", "umda+sum"),
        ("muon(lr=0.01)+ple+ema+mgda@exact", "muon(lr=0.01)+ple+ema=0.9+mgda@exact"),
        ("ple+muon(lr=0.01)+sum", "muon(lr=0.01)+ple+sum"),
        ("adamw+cgc(own=0)+sum", "cgc(own=0)+sum"),
        ("hard+sum", "sum"),
        ("hard(width=64)+sum", "hard(width=64)+sum"),
        ("mmoe+groups:decay=0.1", "mmoe+groups:decay=0.1"),
        ("umda+sum:steps=2", "umda+sum:steps=2"),
    ],
)
def test_one_way_of_training_has_one_label_that_reads_back_as_itself(text, label):
    assert parse(text).label == label
    assert parse(label) == parse(text)
    assert architecture_of(label) == parse(text).architecture


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("mmoe", "mmoe is an architecture: write what it trains behind it, as in mmoe\\+sum"),
        ("mmo(experts=2)+sum", "no architecture 'mmo': did you mean 'mmoe'"),
        ("mmo+sum", "did you mean 'mmoe'"),
        ("mmoe(num_experts=2)+sum", "mmoe has no option 'num_experts': did you mean 'experts'"),
        ("mmoe(tasks=2)+sum", "mmoe has no option 'tasks': there are experts, width"),
        ("mmoe(experts=0)+sum", "experts must be a whole number of at least 1, not 0"),
        ("mmoe(experts=2.5)+sum", "experts must be a whole number"),
        ("mmoe:experts=2+sum", r"an architecture's options stand in brackets: write mmoe\(experts=2\)\+sum"),
        ("mmoe(experts=2+sum", "the bracket of mmoe is not closed"),
        ("dselect-k(experts=2,k=3)+sum", "k is the number of experts a task may choose, from 1 to 2, not 3"),
        ("cross-stitch(alpha=2)+sum", "alpha is a task's own share"),
        ("umda(branching=maybe)+sum", "branching must be true or false, not 'maybe'"),
        ("umda(pooling=means)+sum", "pooling is not 'means': did you mean 'mean'"),
        ("umda(heads=3,width=16)+sum", "heads must divide dim = 16, and 3 does not"),
        ("ema+mmoe+sum", "an architecture stands before all wrappers: move 'mmoe'"),
        ("mmoe+stl", "always has the problem's own trunk.*compare mmoe\\+sum with sum"),
        ("mmoe+groups:random", "with another architecture a control takes a number"),
        ("umda+groups", "penalties.*write umda\\(penalties=false\\)"),
        ("ada-task+umda+sum", "penalties of umda are no task's"),
        ("ada-task+mmoe+mgda", "write ada-task\\+mmoe\\+sum"),
        ("mtan+sum", "MTAN is no arm, since its masks need a trunk of convolutional stages"),
        ("AdaShare+sum", "falls by a schedule, and it is trained in two phases"),
        ("ltb+sum", "use motet.nn.LTB in a loop of your own"),
    ],
)
def test_what_can_not_be_trained_is_refused_with_the_arm_and_the_reason(text, says):
    with pytest.raises(ValueError, match=says) as caught:
        parse(text)
    assert text in str(caught.value)


def test_every_architecture_is_described_and_can_be_written():
    assert list(DESCRIPTIONS) == list(OPTIONS)
    assert [parse(f"{name}+sum").architecture.name for name in OPTIONS] == list(OPTIONS)
    assert [arm.label for arm in parse_all(["hard+sum", "mmoe+sum", "mmoe(experts=8)+sum"])] == [
        "stl",
        "sum",
        "mmoe+sum",
    ]


@pytest.mark.parametrize("label", EACH)
@pytest.mark.parametrize("problem", [TINY, VIEWS], ids=["table", "views"])
def test_every_architecture_trains_and_again_to_the_same_numbers(label, problem):
    found, again = trained(label, problem), trained(label, problem)
    assert found.run.arm == label
    assert all(value == value for value in found.run.test.values())
    assert same(found, again)
    assert found.run.test == again.run.test
    assert found.run.shown == again.run.shown


def test_one_expert_trains_as_hard_sharing_does():
    plain, one = trained("sum"), trained("mmoe(experts=1)+sum")
    for name, value in plain.parameters.items():
        torch.testing.assert_close(one.parameters[name.replace("trunk.", "trunk.experts.0.")], value)


def test_the_width_of_an_arm_is_that_of_a_study_with_it():
    wide = trained("hard(width=16)+sum")
    assert same(wide, trained("sum", training=replace(SHORT, width=16)))
    assert wide.run.cost.parameters > trained("sum").run.cost.parameters


def test_columns_are_cut_before_each_layer_with_weights():
    trunk = TINY.model(TINY.load(0), 0, SHORT).trunk
    x = torch.randn(4, 6)
    stages = split(trunk)
    assert [[type(layer).__name__ for layer in stage] for stage in stages] == [
        ["Flatten", "Linear", "ReLU", "Dropout"],
        ["Linear", "ReLU", "Dropout"],
    ]
    torch.testing.assert_close(nn.Sequential(*stages).eval()(x), trunk.eval()(x))


def test_a_view_encoder_is_cut_before_its_common_layer():
    data = VIEWS.load(0)
    trunk = VIEWS.model(data, 0, SHORT).trunk.eval()
    before = trunk(data.test.inputs)
    encoder, common = split(trunk)
    torch.testing.assert_close(common(encoder(data.test.inputs)), before)


def test_gates_see_vectors_and_the_mean_of_bags_and_zeros_for_what_is_missing():
    views = VIEWS.load(0).test.inputs
    gate = ViewGate(views.widths)
    seen = gate(views)
    assert seen.shape == (48, gate.out_features)
    assert torch.equal(seen[0], torch.zeros(6))  # Row 0 has neither.
    bag = views.views["slide"]
    torch.testing.assert_close(seen[3, 3:], bag.x[bag.offsets[3] : bag.offsets[4]].mean(0))


def test_the_penalties_train_and_can_be_left_out():
    assert not same(trained("umda+sum"), trained("umda(penalties=false)+sum"))
    assert not same(trained("dselect-k(entropy=1)+sum"), trained("dselect-k+sum"))


def test_penalties_reach_the_gradient_with_their_coefficients_and_warm_up():
    data = VIEWS.load(0)
    arm = parse("umda+sum")
    model = arm.model(VIEWS, data, 0, SHORT)
    _, info = model.explain(data.train.inputs)
    half, full = (float(arm.architecture.penalty(model, info, step, 100).detach()) for step in (5, 50))
    assert half == pytest.approx(full / 2)
    assert full == pytest.approx(float(UMDA.regularisation(model.umda, info).detach()))
    assert arm.architecture.penalty(model, info, 0, 100) == 0


def test_shared_parameters_leave_out_gates_own_experts_and_branches():
    data = TINY.load(0)
    ple = parse("ple+sum").model(TINY, data, 0, SHORT)
    assert {id(p) for p in shared_of(ple)} == {id(p) for p in ple.trunk.shared_parameters()}
    umda = parse("umda+sum").model(TINY, data, 0, SHORT)
    known = {id(p) for p in shared_of(umda)}
    assert known.isdisjoint(map(id, [*umda.heads.parameters(), *umda.umda.branching.parameters()]))
    assert known >= {id(p) for p in umda.umda.encoders.parameters()}


def test_gates_and_first_layers_go_to_adamw_and_experts_hidden_matrices_to_muon():
    data = TINY.load(0)
    for label in ("muon+mmoe(experts=2)+sum", "muon+ple+sum", "muon+cross-stitch+sum"):
        arm = parse(label)
        optimizer = arm.optimizer.make(arm.model(TINY, data, 0, SHORT), SHORT)
        muons = [route.name for route in optimizer.routes if route.optimizer == "muon"]
        assert muons
        assert all(route.shape == (8, 8) for route in optimizer.routes if route.optimizer == "muon")
        assert not any("gates" in name or "common" in name or "heads" in name for name in muons)


def test_images_have_no_gates_and_the_error_says_what_works_there():
    def images(seed):
        data = load(seed)
        parts = (
            Split(torch.randn(len(part), 1, 4, 4), part.targets) for part in (data.train, data.validation, data.test)
        )
        return Data(TASKS, *parts)

    def trunk(inputs, training):
        return nn.Sequential(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), nn.Flatten(), nn.Linear(8, training.width))

    problem = replace(TINY, name="tiny-images", load=images, trunk=trunk)
    with pytest.raises(ValueError, match=r"arm 'mmoe\+sum': mmoe has gates .* of tiny-images are \(1, 4, 4\)"):
        trained("mmoe+sum", problem)
    for label in ("cross-stitch+sum", "dselect-k(static=true)+sum", "umda+sum"):
        assert trained(label, problem).run.test


def test_a_study_refuses_a_model_that_does_not_fit_before_it_trains_anything(tmp_path):
    study = Study(TINY, ["umda(heads=3)+sum"], seeds=1, out=tmp_path / "runs", training=SHORT)
    with pytest.raises(ValueError, match=r"arm 'umda\(heads=3\)\+sum': heads must divide dim = 8"):
        study.run()
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("width", "heads"), [(8, 4), (6, 3), (10, 2), (7, 1)])
def test_umda_has_as_many_attention_heads_as_fit_where_none_are_written(width, heads):
    model = parse("umda+sum").model(TINY, TINY.load(0), 0, replace(SHORT, width=width))
    assert model.umda.attention.heads == heads


def test_a_study_keeps_what_a_model_tells_and_goes_on_without_training_it_again(tmp_path):
    arms = ["umda+sum", "cgc+sum"]
    Study(VIEWS, arms[:1], seeds=1, out=tmp_path / "runs").run()
    [before] = [run for run in read_runs(tmp_path / "runs") if run.arm == "umda+sum"]
    study = Study(VIEWS, arms, seeds=1, out=tmp_path / "runs", resume=True).run()
    runs = {run.arm: run for run in study.runs()}
    assert runs["umda+sum"] == before
    shown = before.shown
    assert shown.attention.views == ["blood", "slide"]
    assert shown.attention.present == pytest.approx([40 / 48, 38 / 48])
    assert all(sum(row) == pytest.approx(1) for row in shown.attention.attention)
    assert all(sum(row) == pytest.approx(1) for row in shown.influence.matrix)
    assert [bag.view for bag in shown.bags] == ["slide"] * len(shown.bags)
    assert all(bag.located and sum(bag.weights) == pytest.approx(1) and bag.edges for bag in shown.bags)
    assert runs["cgc+sum"].shown.gates[0].experts == ["own", "shared"]
    assert runs["sum"].shown is None
    study.report(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for heading in (
        "What each task takes",
        "Attention between views",
        "Influence of tasks on tasks",
        "Attention in bags",
    ):
        assert f"<h3>{heading}</h3>" in page
    assert "umda+sum and cgc+sum have another model than stl and sum" in " ".join(study.verdict().reasons)
    assert "umda+sum minimises penalties of the model" in " ".join(study.verdict().reasons)


def test_only_models_of_another_size_are_said_to_be():
    runs = made_up({"sum": 1.0, "mmoe+sum": 1.0}, 1)

    def sized(count):
        return [
            replace(run, cost=replace(run.cost, parameters=count if run.arm == "mmoe+sum" else 1000)) for run in runs
        ]

    assert not any("Parameters differ" in text for text in caveats.of_architectures(sized(1090)))
    [said] = [text for text in caveats.of_architectures(sized(1200)) if "Parameters differ" in text]
    assert "mmoe+sum has 1.2× as many" in said
    assert caveats.of_architectures(made_up({"sum": 1.0, "muon+mgda": 1.0}, 1)) == []
    assert architecture_of("something(else)+sum") == HARD
