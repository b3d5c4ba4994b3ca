"""Faults that would be silent: shared memory, cached assumptions, forgotten choices, and mistakes in what is passed."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import motet
from motet.methods import EMA, Every, LogLosses, Preference
from tests.test_balancer import TASKS, Fixed, Net, Ones, grads, make


def separate(batch: int = 12, tasks: int = 3) -> tuple[Tensor, dict[str, Tensor], Tensor, nn.Module]:
    """Every sample belongs to one task, in turn."""
    torch.manual_seed(0)
    model, x = Net(), torch.randn(batch, 4)
    z = model.trunk(x)
    owner = torch.arange(batch) % tasks
    losses = {t: (head(z)[owner == k] - k).pow(2).mean() for k, (t, head) in enumerate(model.heads.items())}
    return z, losses, owner, model


@pytest.mark.parametrize("route", ["probe", "exact", "last-layer", "features"])
@pytest.mark.parametrize("method", ["upgrad", "constant"])
def test_gradients_of_two_parameters_never_share_memory(route, method):
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(4, 6, batch_first=True)
            self.extra = nn.Parameter(torch.zeros(6, 6))
            self.more = nn.Parameter(torch.zeros(6, 6))

        def forward(self, x: Tensor) -> Tensor:
            return self.lstm(x)[0][:, -1] @ (self.extra + self.more)

    def run(times: int) -> dict[str, Tensor]:
        torch.manual_seed(0)
        trunk, heads, x = Last(), nn.ModuleList(nn.Linear(6, 1) for _ in range(2)), torch.randn(5, 3, 4)
        for _ in range(times):
            balancer = motet.Balancer(method, route=route)
            z = trunk(x)
            balancer.backward({str(k): (head(z) - k).pow(2).mean() for k, head in enumerate(heads)}, features=z)
        return {name: p.grad for name, p in trunk.named_parameters()}

    once, twice = run(1), run(2)
    for name, gradient in once.items():
        assert_close(twice[name], 2 * gradient, msg=name)
        gradient.mul_(0.5)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda: Preference(Every(5, Fixed(1.0, 2.0, 3.0)), [1.0, 2.0, 3.0]),
        lambda: Every(5, Preference("mgda", [1.0, 2.0, 3.0])),
        lambda: EMA(Every(5, Preference(LogLosses("mgda"), [1.0, 2.0, 3.0]))),
        lambda: Preference("constant", [1.0, 2.0, 3.0]),
    ],
)
def test_an_absent_task_is_no_fault_in_steps_whose_weights_are_known(wrap):
    model, x = make()
    balancer = motet.Balancer(wrap(), route="exact", tasks=TASKS)
    for step in range(3):
        z, losses = model.losses(x)
        balancer.backward(losses | ({"edges": None} if step else {}), features=z)
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_a_gradient_that_is_not_finite_in_the_first_probed_step_is_its_tasks_fault():
    model, x = make()
    balancer = motet.Balancer(Ones(), route="probe")

    def losses(bad: bool) -> tuple[Tensor, dict[str, Tensor]]:
        z, found = model.losses(x)
        if bad:
            found["edges"] = found["edges"] + (z * 0).abs().sqrt().sum()
        return z, found

    z, found = losses(bad=True)
    with pytest.raises(motet.NonFiniteError, match="edges"):
        balancer.backward(found, features=z, probe=lambda: losses(bad=True)[1])
    z, found = losses(bad=False)
    step = balancer.backward(found, features=z, probe=lambda: losses(bad=False)[1])
    assert step.cost.products == 1


@pytest.mark.parametrize(
    ("closure", "error", "message"),
    [
        (lambda losses: {"depht": losses["depth"]}, ValueError, "none of the tasks depth, normals, edges"),
        (lambda _: {}, ValueError, "none of the tasks"),
        (lambda losses: tuple(losses.values()), ValueError, "must return a dict"),
        (lambda losses: dict.fromkeys(losses, 1.0), ValueError, "'depth' must be a scalar tensor"),
        (lambda losses: {task: loss * torch.rand(()).add(1) for task, loss in losses.items()}, None, None),
    ],
)
def test_a_mistake_in_the_probes_closure_is_named(closure, error, message):
    model, x = make()
    z, losses = model.losses(x)

    def probe() -> object:
        return closure(model.losses(x)[1])

    balancer = motet.Balancer("mgda", route="probe")
    if error is None:  # Random numbers are the same in every evaluation, so that this is no mistake.
        balancer.backward(losses, features=z, probe=probe)
        return
    with pytest.raises(error, match=message):
        balancer.backward(losses, features=z, probe=probe)
    assert all(p.grad is None for p in model.parameters())


def test_a_closure_that_takes_a_new_batch_each_time_is_named():
    model, x = make()
    z, losses = model.losses(x)
    batches = iter(torch.randn(50, 16, 4).double())
    with pytest.raises(ValueError, match="gives other losses each time"):
        motet.Balancer("mgda", route="probe").backward(losses, features=z, probe=lambda: model.losses(next(batches))[1])


@pytest.mark.parametrize("kind", ["tensor", "int32", "uint8", "list", "names", "inferred"])
def test_an_assignment_may_be_written_in_several_ways(kind):
    z, losses, owner, model = separate()
    given = {
        "tensor": owner,
        "int32": owner.int(),
        "uint8": owner.byte(),
        "list": owner.tolist(),
        "names": [TASKS[k] for k in owner.tolist()],
        "inferred": None,
    }[kind]
    step = motet.Balancer("upgrad", route="disjoint").backward(losses, features=z, assignment=given)
    found = grads(model)
    z, losses, owner, model = separate()
    exact = motet.Balancer("upgrad", route="exact").backward(losses, features=z)
    assert_close(step.gram, exact.gram, rtol=1e-4, atol=1e-7)
    for name, expected in grads(model).items():
        assert_close(found[name], expected, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda o: torch.where(o == 2, 3, o), ValueError, "sample 2 to task number 3, and there are 3 losses"),
        (lambda o: torch.where(o == 2, -2, o), ValueError, "sample 2 to task number -2"),
        (lambda o: o.float(), TypeError, "one whole number a sample, not torch.float32"),
        (lambda o: o[:, None], TypeError, "shape"),
        (lambda o: [["depth", "normals", "edge"][k] for k in o.tolist()], ValueError, "did you mean 'edges'"),
        (lambda _: "depth", TypeError, "not one name"),
        (lambda o: o.roll(1), ValueError, "sample 0"),
    ],
)
def test_a_wrong_assignment_is_refused_with_the_sample(change, error, message):
    z, losses, owner, model = separate()
    with pytest.raises(error, match=message):
        motet.Balancer("upgrad", route="disjoint").backward(losses, features=z, assignment=change(owner))
    assert all(p.grad is None for p in model.parameters())


def test_the_route_that_auto_chose_is_kept_over_a_resume():
    def wide(rows: int) -> tuple[Tensor, dict[str, Tensor]]:
        torch.manual_seed(0)
        trunk = nn.Sequential(nn.Linear(8, 512), nn.ReLU(), nn.Linear(512, 512))
        z = trunk(torch.randn(rows, 8))
        heads = [nn.Linear(512, 1) for _ in range(5)]
        return z, {str(k): (head(z) - k).pow(2).mean() for k, head in enumerate(heads)}

    def route(rows: int, state: dict | None = None) -> tuple[str, dict]:
        balancer = motet.Balancer("upgrad", budget=2.8)
        if state is not None:
            balancer.load_state_dict(state)
        z, losses = wide(rows)
        return balancer.backward(losses, features=z).cost.route, balancer.state_dict()

    large, state = route(2048)
    small, _ = route(2)
    assert large != small  # or this would show nothing
    assert route(2, state)[0] == large


def test_a_state_that_does_not_fit_changes_nothing():
    balancer = motet.Balancer("famo")
    balancer.backward({"a": nn.Parameter(torch.ones(())) * 1.0})
    before = balancer.state_dict()
    with pytest.raises(ValueError, match="no state of products"):
        balancer.load_state_dict({**before, "method": {}, "products": {}})
    assert balancer.state_dict()["method"].keys() == before["method"].keys()


def test_a_parameter_that_only_a_skipped_task_uses_is_left_alone():
    torch.manual_seed(0)
    one, two = nn.Linear(3, 4), nn.Linear(3, 4)
    heads = nn.ModuleList(nn.Linear(4, 1) for _ in range(3))
    x = torch.randn(6, 3)
    taps = [one(x), two(x)]
    losses = {str(k): head(taps[0]).pow(2).mean() for k, head in enumerate(heads[:2])}
    losses["2"] = heads[2](taps[1]).pow(2).mean() + (taps[1] * 0).abs().sqrt().sum()
    motet.Balancer(Ones(), route="exact", nonfinite="skip").backward(losses, features=taps)
    assert two.weight.grad is None
    assert heads[2].weight.grad is None
    assert one.weight.grad is not None


@pytest.mark.parametrize("route", ["exact", "last-layer", "features", "probe"])
@pytest.mark.parametrize("where", ["trunk", "head"])
def test_sparse_gradients_of_embeddings_work(route, where):
    torch.manual_seed(0)
    words = torch.randint(10, (6,))
    trunk = nn.Embedding(10, 4, sparse=where == "trunk")
    own = nn.Embedding(10, 4, sparse=where == "head")
    z = trunk(words)
    losses = {"a": (z * own(words)).sum(1).sub(1).pow(2).mean(), "b": z.pow(2).mean()}
    motet.Balancer(Ones(), route=route).backward(losses, features=z)
    sparse, dense = trunk.weight.grad.to_dense(), own.weight.grad.to_dense()
    trunk.weight.grad = own.weight.grad = None
    z = trunk(words)
    ((z * own(words)).sum(1).sub(1).pow(2).mean() + z.pow(2).mean()).backward()
    assert_close(sparse, trunk.weight.grad.to_dense())
    assert_close(dense, own.weight.grad.to_dense())


def test_several_features_give_the_heads_graph_back():
    torch.manual_seed(0)
    one, two, head = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(8, 1)
    low = one(torch.randn(5, 3))
    high = two(low)
    out = head(torch.cat([low, high], 1))
    motet.Balancer(Ones(), route="features").backward({"a": out.pow(2).mean()}, features=[low, high])
    with pytest.raises(RuntimeError, match="already been freed"):
        _ = out.grad_fn._saved_mat1


def test_a_batch_without_any_label_is_no_error_once_there_were_some():
    model, x = make()
    balancer = motet.Balancer("sum")
    with pytest.raises(ValueError, match="no_grad"):
        balancer.backward({"depth": torch.tensor(0.0)})
    balancer.backward(model.losses(x)[1])
    assert balancer.backward({"depth": torch.tensor(0.0)}).tasks == ()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"iterations": 2.5}, ValueError, "whole number of products"),
        ({"iterations": 3, "route": "exact"}, ValueError, "products of the probe route"),
        ({"audit_every": 2.5}, ValueError, "whole number of steps"),
        ({"audit_every": 5, "route": "exact"}, ValueError, "itself exact"),
        ({"budget": "2"}, TypeError, "budget must be a number"),
    ],
)
def test_options_of_the_wrong_kind_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        motet.Balancer("upgrad", **options)


def test_a_mistyped_task_of_the_second_batch_is_named():
    model, x = make()
    z, losses = model.losses(x)
    with pytest.raises(ValueError, match="did you mean 'edges'"):
        motet.Balancer("auto-lambda").backward(losses, features=z, validation={"edge": losses["edges"]})


def test_blocks_have_names():
    model, x = make()
    step = motet.Balancer("upgrad", granularity="module").backward(model.losses(x)[1], shared=model.trunk)
    assert step.blocks == ("0", "2")
    assert len(step.block_weights) == 2


def test_features_that_are_detached_are_said_to_be():
    heads = [torch.nn.Linear(4, 1) for _ in range(2)]
    z = torch.randn(8, 4)
    losses = {name: head(z).square().mean() for name, head in zip("ab", heads, strict=True)}
    with pytest.raises(ValueError, match="require no gradient: is the trunk frozen, or were they detached"):
        motet.Balancer("upgrad").backward(losses, features=z)


@pytest.mark.parametrize("text", ["ema+fair-grad", "fair-grad:alpha=2", "fair-grad@exact", "prefer=[2,1]+mgda"])
def test_an_arm_of_a_study_is_no_method_and_its_form_in_code_is_said(text):
    with pytest.raises(ValueError, match="written as an arm of a study; in code it is made of objects"):
        motet.Balancer(text)
