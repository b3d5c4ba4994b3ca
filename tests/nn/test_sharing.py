"""What every sharing architecture promises, on any trunk."""

import copy
import re

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import motet
from motet.nn.sharing import (
    CGC,
    LTB,
    MTAN,
    PLE,
    AdaShare,
    CrossStitch,
    DSelectK,
    HardSharing,
    MMoE,
    SharedModel,
    parameters_per_task,
)
from motet.optim import muon_for

TASKS = ("depth", "a.b", "keys")


def vectors(inputs=6, outputs=8):
    return nn.Sequential(nn.Linear(inputs, outputs), nn.Tanh())


def images(inputs=3, outputs=8):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())


def sequences(inputs=8, outputs=8):
    assert inputs == outputs
    return nn.TransformerEncoderLayer(inputs, 2, 16, dropout=0.0, batch_first=True)


TRUNKS = {"mlp": (vectors, 6, (5, 6)), "conv": (images, 3, (5, 3, 6, 6)), "transformer": (sequences, 8, (5, 4, 8))}

ARCHITECTURES = {
    "hard": lambda make, first, tasks: HardSharing(nn.Sequential(make(first), make(8)), tasks),
    "cross-stitch": lambda make, first, tasks: CrossStitch([make(first), make(8)], tasks),
    "mmoe": lambda make, first, tasks: MMoE(lambda: make(first), tasks, 4),
    "cgc": lambda make, first, tasks: CGC(lambda: make(first), tasks, 2, 1),
    "ple": lambda make, first, tasks: PLE([make(first), make(8)], tasks, 1, 2),
    "ple-3": lambda make, first, tasks: PLE([make(first), lambda: make(8), make(8)], tasks, 2, 1),
    "dselect-k": lambda make, first, tasks: DSelectK(make(first), tasks, 5, 2),
    "dselect-k-static": lambda make, first, tasks: DSelectK(make(first), tasks, 4, 2, static=True),
    "ltb": lambda make, first, tasks: LTB([make(first), make(8)], tasks),
    "adashare": lambda make, first, tasks: AdaShare([make(first), make(8), make(8)], tasks, fixed=[0]),
}


def built(name, trunk="mlp", tasks=TASKS, seed=0):
    make, first, shape = TRUNKS[trunk]
    torch.manual_seed(seed)
    return ARCHITECTURES[name](make, first, tasks), torch.randn(shape)


def mtan(tasks=TASKS):
    torch.manual_seed(0)
    return MTAN([images(), nn.Sequential(images(8), nn.MaxPool2d(2), images(8, 10))], tasks), torch.randn(5, 3, 6, 6)


CASES = [(name, trunk) for name in ARCHITECTURES for trunk in TRUNKS]
every_case = pytest.mark.parametrize(("name", "trunk"), [*CASES, ("mtan", "conv")])
every_architecture = pytest.mark.parametrize("name", [*ARCHITECTURES, "mtan"])


def get(name, trunk="mlp", tasks=TASKS):
    return mtan(tasks) if name == "mtan" else built(name, trunk, tasks)


def scatter(sharing):
    """Values that no two parameters have in common, and policies and branches that differ between tasks."""
    with torch.no_grad():
        for parameter in sharing.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return sharing


@every_case
def test_every_task_gets_features_and_a_gradient_reaches_all_parameters(name, trunk):
    sharing, x = get(name, trunk)
    features, info = sharing(x)
    assert tuple(features) == sharing.tasks == TASKS
    channel = 1 if trunk == "conv" else -1
    assert all(z.shape[channel] == sharing.out_features and len(z) == len(x) for z in features.values())
    assert all(scalar.shape == () for scalar in info["regularisers"].values())
    sum((z * torch.randn_like(z)).sum() for z in features.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in sharing.parameters())


@every_case
def test_shared_parameters_serve_two_tasks_and_own_ones_only_theirs(name, trunk):
    sharing, x = get(name, trunk)
    features, _ = sharing(x)
    users = {id(parameter): set() for parameter in sharing.parameters()}
    parameters = list(sharing.parameters())
    for task, z in features.items():
        found = torch.autograd.grad(z.sum(), parameters, retain_graph=True, allow_unused=True)
        for parameter, gradient in zip(parameters, found, strict=True):
            if gradient is not None:
                users[id(parameter)].add(task)
    for task in TASKS:
        assert all(users[id(parameter)] == {task} for parameter in sharing.task_parameters(task))
    assert all(len(users[id(parameter)]) > 1 for parameter in sharing.shared_parameters())
    split = [*sharing.shared_parameters(), *(p for task in TASKS for p in sharing.task_parameters(task))]
    assert sorted(map(id, split)) == sorted(users)


@every_architecture
def test_an_absent_task_moves_neither_its_head_nor_what_is_its_own(name):
    sharing, x = get(name)
    model = SharedModel(sharing, {task: nn.LazyLinear(1) for task in TASKS})
    _, outputs = model(x)
    losses = {task: outputs[task].square().mean() for task in TASKS} | {"a.b": None}
    motet.Balancer("fair-grad", route="exact").backward(losses, shared=sharing.shared_parameters())
    own = [*sharing.task_parameters("a.b"), *model.heads[1].parameters()]
    assert all(parameter.grad is None for parameter in own)
    others = [p for task in ("depth", "keys") for p in sharing.task_parameters(task)]
    assert all(parameter.grad is not None for parameter in others)


# In AdaShare nothing lies between what is shared and what is not; MTAN's f is used by all tasks above the features.
@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "adashare"])
def test_the_features_are_where_the_shared_part_ends(name):
    sharing, x = get(name)
    model = scatter(SharedModel(sharing, {task: nn.Linear(8, 1) for task in TASKS}))
    gradients = []
    for shared in (True, False):
        torch.manual_seed(1)
        features, outputs = model(x)
        losses = {task: (outputs[task] - i).square().mean() for i, task in enumerate(TASKS)}
        where = {"shared": sharing.shared_parameters()} if shared else {"features": features}
        model.zero_grad()
        step = motet.Balancer("upgrad", route="exact").backward(losses, **where)
        gradients.append([parameter.grad for parameter in model.parameters()])
        assert step.cost.route == "exact"
    assert_close(*gradients)


@every_architecture
@pytest.mark.parametrize("route", ["last-layer", "features"])
def test_routes_at_the_features_give_the_plain_sum_under_equal_weights(name, route):
    sharing, x = get(name)
    model = SharedModel(sharing, {task: nn.LazyLinear(1) for task in TASKS})
    torch.manual_seed(1)
    features, outputs = model(x)
    losses = {task: (outputs[task] - 1).square().mean() for task in TASKS}
    parameters = list(model.parameters())
    expected = torch.autograd.grad(sum(losses.values()), parameters, retain_graph=True, allow_unused=True)
    motet.Balancer("sum", route=route).backward(losses, features=features)
    for parameter, gradient in zip(parameters, expected, strict=True):
        assert_close(parameter.grad, gradient)


def permuted(name, state, order):
    """The state of an architecture whose k-th task is the old one's number ``order[k]``."""
    new = {order.index(old): old for old in range(len(order))}
    own = {
        "cross-stitch": r"(columns\.|stitches\.\d+\.)(\d+)",
        "ltb": r"(logits\.1\.)(\d+)",
        "adashare": r"(logits\.)(\d+)",
        "mtan": r"(attention\.)(\d+)",
    }.get(name, r"((?:^|\.)(?:gates|own)\.)(\d+)")
    moved = {}
    for key in state:
        value = state[re.sub(own, lambda match: f"{match[1]}{new[int(match[2])]}", key)]
        if name == "cross-stitch" and "stitches" in key:
            value = value[list(order)]
        if name.startswith("ple") and "common" in key:  # Rows: the tasks' own experts, then the shared ones.
            size = 2 if name == "ple" else 1
            rows = [size * task + i for task in order for i in range(size)]
            value = value[[*rows, *range(size * len(order), len(value))]]
        moved[key] = value
    return moved


@every_architecture
def test_the_order_of_the_tasks_does_not_matter(name):
    order = (2, 0, 1)
    sharing, x = get(name)
    scatter(sharing).eval()
    other, _ = get(name, tasks=tuple(TASKS[k] for k in order))
    other.load_state_dict(permuted(name, sharing.state_dict(), order))
    (features, info), (shuffled, moved) = sharing(x), other.eval()(x)
    assert_close({task: shuffled[task] for task in TASKS}, features)
    assert_close(moved["regularisers"], info["regularisers"])


@every_case
def test_state_dict_and_deepcopy_keep_the_function(name, trunk):
    sharing, x = get(name, trunk)
    scatter(sharing).eval()
    twin, _ = get(name, trunk)
    twin.load_state_dict(sharing.state_dict())
    assert_close(twin.eval()(x)[0], sharing(x)[0], rtol=0, atol=0)
    assert_close(copy.deepcopy(sharing)(x)[0], sharing(x)[0], rtol=0, atol=0)


@every_architecture
def test_a_deepcopy_moves_alone(name):
    sharing, x = get(name)
    before = sharing.eval()(x)[0]
    scatter(copy.deepcopy(sharing))
    assert_close(sharing(x)[0], before, rtol=0, atol=0)


@every_architecture
def test_eval_mode_is_deterministic(name):
    sharing, x = get(name)
    scatter(sharing).eval()
    assert_close(sharing(x)[0], sharing(x)[0], rtol=0, atol=0)


@every_architecture
def test_the_same_seed_draws_the_same(name):
    sharing, x = get(name)
    runs = []
    for _ in range(2):
        torch.manual_seed(3)
        runs.append(copy.deepcopy(sharing)(x)[0])
    assert_close(*runs, rtol=0, atol=0)


@every_architecture
def test_one_task_is_enough(name):
    sharing, x = get(name, tasks=["only"])
    features, info = sharing(x)
    assert list(features) == ["only"]
    assert all(scalar.isfinite() for scalar in info["regularisers"].values())
    assert sharing.shared_parameters()


@every_architecture
def test_parameters_are_counted_once(name):
    sharing, _ = get(name)
    model = SharedModel(sharing, {task: nn.Linear(8, 2) for task in TASKS})
    counts = parameters_per_task(model)
    assert tuple(counts) == ("", *TASKS)
    assert sum(counts.values()) == sum(parameter.numel() for parameter in model.parameters())
    assert all(counts[task] - parameters_per_task(sharing)[task] == 18 for task in TASKS)


@every_architecture
def test_double_precision_and_autocast(name):
    sharing, x = get(name)
    features, info = copy.deepcopy(sharing).double()(x.double())
    assert all(z.dtype == torch.float64 for z in features.values())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features, info = sharing(x)
    assert all(z.isfinite().all() for z in features.values())
    gates = info.get("gates", [])
    assert all(gate.dtype == torch.float32 for gate in (gates if isinstance(gates, list) else [gates]))


@pytest.mark.parametrize("name", ["mmoe", "dselect-k", "ltb"])
def test_training_compiles_to_one_graph(name):
    sharing, x = get(name)
    twin = copy.deepcopy(sharing)
    torch.manual_seed(5)
    expected = sharing(x)[0]
    torch.manual_seed(5)
    # Of torch.compile only the capture: this is about breaks in the graph, not about kernels.
    assert_close(torch.compile(twin, fullgraph=True, backend="eager")(x)[0], expected)


def test_heads_go_to_adamw_and_experts_to_muon():
    sharing, x = get("mmoe")
    model = SharedModel(sharing, {task: nn.Linear(8, 2) for task in TASKS})
    optimizer = muon_for(model, lr=1e-3, heads=[model.heads, sharing.gates], inputs=[])
    where = {route.name: route.optimizer for route in optimizer.routes}
    assert where["trunk.experts.2.0.weight"] == "muon"
    assert where["trunk.gates.0.weight"] == where["heads.1.weight"] == "adamw"
    motet.Balancer("sum").backward({t: y.square().mean() for t, y in model(x)[1].items()})
    optimizer.step()


def test_a_model_has_a_head_for_every_task():
    with pytest.raises(ValueError, match=r"a head for each of depth, a\.b, keys, not for depth"):
        SharedModel(get("hard")[0], {"depth": nn.Linear(8, 1)})


def test_heads_may_come_in_any_order():
    sharing, x = get("hard")
    heads = {task: nn.Linear(8, width + 1) for width, task in enumerate(TASKS)}
    _, outputs = SharedModel(sharing, dict(reversed(heads.items())))(x)
    assert {task: output.shape[1] for task, output in outputs.items()} == {"depth": 1, "a.b": 2, "keys": 3}


def test_the_regularisers_of_a_model_are_in_its_explanation():
    sharing, x = get("dselect-k")
    model = SharedModel(sharing, {task: nn.Linear(8, 1) for task in TASKS})
    outputs, info = model.explain(x)
    assert_close(outputs, model(x)[1])
    assert info["regularisers"]["entropy"] > 0


@pytest.mark.parametrize(
    ("tasks", "error", "match"),
    [
        ([], ValueError, "empty"),
        (["a", "a"], ValueError, "'a' twice"),
        ("ab", TypeError, r"tasks=\['ab'\]"),
        ([1], TypeError, "string"),
    ],
)
def test_task_names_are_checked(tasks, error, match):
    with pytest.raises(error, match=match):
        HardSharing(nn.Linear(2, 2), tasks)


def test_an_unknown_task_has_no_parameters():
    with pytest.raises(ValueError, match="no task 'd' here: depth"):
        get("mmoe")[0].task_parameters("d")


def test_only_sharing_models_are_counted():
    with pytest.raises(TypeError, match="not of a Linear"):
        parameters_per_task(nn.Linear(2, 2))
