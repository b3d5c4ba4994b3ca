"""The Balancer's promises: on every route, for every kind of method, with holes and faults in the input."""

import copy
import logging

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils import checkpoint

import motet
from motet.methods import GramMethod, JacobianMethod, LossMethod, Method

ROUTES = ("exact", "last-layer", "features", "probe")
"""Those that any model can take; the disjoint one has a file of its own."""
TASKS = ("depth", "normals", "edges")


class Ones(GramMethod):
    """Equal weights, by way of the Gram matrix."""

    def weights(self, gram: Tensor) -> Tensor:
        return gram.new_ones(len(gram))


class Rows(JacobianMethod):
    """The plain sum, by way of the Jacobian."""

    def direction(self, jacobian: Tensor) -> Tensor:
        return jacobian.sum(0)


class Fixed(GramMethod):
    def __init__(self, *values: float) -> None:
        super().__init__()
        self.values = values

    def weights(self, gram: Tensor) -> Tensor:
        return gram.new_tensor(self.values[: len(gram)])


class Halves(LossMethod):
    def weights(self, losses: Tensor) -> Tensor:
        return torch.full_like(losses, 0.5)


class Counter(LossMethod):
    """Counts how often each task took part."""

    def weights(self, losses: Tensor) -> Tensor:
        seen = self.recall("seen", losses, fill=0.0)
        self.remember("seen", seen + 1)
        return torch.ones_like(losses)


class OnLogs(Ones):
    def loss_weights(self, losses: Tensor) -> Tensor:
        return 1 / losses


class Net(nn.Module):
    def __init__(self, trunk: nn.Module | None = None, width: int = 6) -> None:
        super().__init__()
        self.trunk = trunk or nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, width), nn.Tanh())
        self.heads = nn.ModuleDict({task: nn.Linear(width, 1) for task in TASKS})

    def losses(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor | None]]:
        z = self.trunk(x)
        return z, {task: (head(z) - i).pow(2).mean() for i, (task, head) in enumerate(self.heads.items())}


def make(seed: int = 0, **options) -> tuple[Net, Tensor]:
    torch.manual_seed(seed)
    return Net(**options).double(), torch.randn(16, 4, dtype=torch.double)


def grads(model: nn.Module) -> dict[str, Tensor | None]:
    return {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}


def plain(seed: int = 0, weights: tuple[float, ...] = (1.0, 1.0, 1.0), **options) -> dict[str, Tensor | None]:
    """Gradients of the weighted sum by an ordinary backward pass."""
    model, x = make(seed, **options)
    losses = model.losses(x)[1].values()
    sum(w * loss for w, loss in zip(weights, losses, strict=True)).backward()
    return grads(model)


@pytest.mark.parametrize(
    ("method", "route"),
    # A Jacobian method needs whole gradients, which the last-layer route refuses; that is tested below.
    [(m, r) for m in (motet.methods.Sum, Ones, Rows) for r in ROUTES if m is not Rows or r in ("exact", "features")],
)
def test_equal_weights_give_the_plain_sum_on_every_route(method, route):
    model, x = make()
    z, losses = model.losses(x)
    motet.Balancer(method(), route=route).backward(losses, features=z)
    for name, expected in plain().items():
        assert_close(grads(model)[name], expected, rtol=1e-6, atol=1e-12, msg=name)


def test_equal_weights_give_the_plain_sum_from_shared_parameters():
    model, x = make()
    motet.Balancer(Ones()).backward(model.losses(x)[1], shared=model.trunk.parameters())
    for name, expected in plain().items():
        assert_close(grads(model)[name], expected, rtol=1e-6, atol=1e-12, msg=name)


@pytest.mark.parametrize("route", ROUTES)
def test_heads_get_their_own_gradient_unscaled_under_a_gradient_method(route):
    model, x = make()
    z, losses = model.losses(x)
    motet.Balancer(Fixed(0.2, 3.0, 0.0), route=route).backward(losses, features=z)
    trunk, heads = plain(weights=(0.2, 3.0, 0.0)), plain()
    for name, found in grads(model).items():
        assert_close(found, heads[name] if name.startswith("heads") else trunk[name], msg=name)


@pytest.mark.parametrize("route", ["auto", *ROUTES])
def test_a_loss_weighting_scales_heads_and_trunk_alike(route):
    model, x = make()
    z, losses = model.losses(x)
    motet.Balancer(Halves(), route=route).backward(losses, features=z)
    for name, expected in plain(weights=(0.5, 0.5, 0.5)).items():
        assert_close(grads(model)[name], expected, msg=name)


@pytest.mark.parametrize("route", ROUTES)
def test_a_method_on_log_losses_sees_and_scales_the_gradients_of_the_logs(route):
    model, x = make()
    z, losses = model.losses(x)
    inverse = tuple(1 / float(loss.detach()) for loss in losses.values())
    step = motet.Balancer(OnLogs(), route=route).backward(losses, features=z)
    assert_close(step.weights + 0, torch.tensor(inverse, dtype=torch.double))
    for name, expected in plain(weights=inverse).items():
        assert_close(grads(model)[name], expected, msg=name)


def test_the_exact_gram_matrix_is_that_of_the_trunk_gradients():
    model, x = make()
    z, losses = model.losses(x)
    trunk = list(model.trunk.parameters())
    rows = [torch.autograd.grad(loss, trunk, retain_graph=True) for loss in losses.values()]
    jacobian = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])
    step = motet.Balancer("sum", route="exact").backward(losses, features=z)
    assert_close(step.gram, jacobian @ jacobian.T)
    norms = jacobian.norm(dim=1)
    assert_close(step.cosines, jacobian @ jacobian.T / norms[:, None] / norms)


def test_the_last_layer_gram_matrix_is_exact_for_that_layer():
    model, x = make()
    z, losses = model.losses(x)
    layer = list(model.trunk[2].parameters())
    rows = [torch.autograd.grad(loss, layer, retain_graph=True) for loss in losses.values()]
    jacobian = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])
    step = motet.Balancer("sum", route="last-layer").backward(losses, features=z)
    assert_close(step.gram, jacobian @ jacobian.T)


def test_the_features_gram_matrix_is_that_of_the_gradients_at_the_features():
    model, x = make()
    z, losses = model.losses(x)
    rows = torch.stack([torch.autograd.grad(loss, z, retain_graph=True)[0].flatten() for loss in losses.values()])
    step = motet.Balancer("sum", route="features").backward(losses, features=z)
    assert_close(step.gram, len(x) * rows @ rows.T)


@pytest.mark.parametrize("route", ["features", "last-layer", "exact"])
@pytest.mark.parametrize("method", ["fair-grad", "nash-mtl", "imtl", "upgrad"])
def test_a_batch_that_is_repeated_gives_the_same_update(route, method):
    """No weights grow with the batch size."""
    updates = []
    for times in (1, 8):
        model, x = make()
        z, losses = model.losses(x.repeat(times, 1))
        motet.Balancer(method, route=route).backward(losses, features=z, shared=model.trunk.parameters())
        updates.append(torch.cat([parameter.grad.flatten() for parameter in model.trunk.parameters()]))
    assert_close(updates[1], updates[0])


@pytest.mark.parametrize("route", ["auto", *ROUTES])
def test_an_absent_task_changes_nothing_of_its_own(route):
    model, x = make()
    z, losses = model.losses(x)
    balancer = motet.Balancer(Counter(), route=route)
    balancer.backward(losses, features=z)
    model.zero_grad()
    z, losses = model.losses(x)
    step = balancer.backward({**losses, "normals": None}, features=z)
    assert step.tasks == ("depth", "edges")
    assert balancer.state_dict()["method"]["seen"].tolist() == [2, 1, 2]
    assert all(p.grad is None for p in model.heads["normals"].parameters())
    for name, expected in plain(weights=(1.0, 0.0, 1.0)).items():
        if not name.startswith("heads.normals"):
            assert_close(grads(model)[name], expected, msg=name)


def test_a_batch_without_any_task_moves_nothing():
    model, _ = make()
    step = motet.Balancer("sum").backward(dict.fromkeys(TASKS))
    assert step.tasks == ()
    assert all(g is None for g in grads(model).values())


def test_a_constant_loss_counts_as_absent_and_says_so_once(caplog):
    model, x = make()
    balancer = motet.Balancer(Ones(), route="exact")
    with caplog.at_level(logging.WARNING, logger="motet"):
        for _ in range(2):
            z, losses = model.losses(x)
            losses["edges"] = torch.tensor(0.0)
            assert balancer.backward(losses, features=z).tasks == ("depth", "normals")
    assert caplog.text.count("'edges' is a constant") == 1


@pytest.mark.parametrize("route", ["auto", *ROUTES])
def test_a_loss_that_is_not_finite_is_named_and_touches_no_gradient(route):
    model, x = make()
    z, losses = model.losses(x)
    losses["normals"] = losses["normals"] * torch.nan
    with pytest.raises(motet.NonFiniteError, match="'normals'") as caught:
        motet.Balancer(Halves(), route=route).backward(losses, features=z)
    assert caught.value.tasks == ("normals",)
    assert all(g is None for g in grads(model).values())


@pytest.mark.parametrize("route", ROUTES)
def test_a_gradient_that_is_not_finite_is_named_and_touches_no_gradient(route):
    model, x = make()
    z, losses = model.losses(x)
    losses["edges"] = losses["edges"] + (z * 0).abs().sqrt().sum()  # value 0, gradient 0/0
    with pytest.raises(motet.NonFiniteError, match="gradient of task 'edges'"):
        motet.Balancer(Ones(), route=route).backward(losses, features=z)
    assert all(g is None for g in grads(model).values())


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_task_that_is_not_finite_can_be_skipped(route, where):
    model, x = make()
    z, losses = model.losses(x)
    losses["edges"] = losses["edges"] * torch.inf if where == "loss" else losses["edges"] + (z * 0).abs().sqrt().sum()
    step = motet.Balancer(Ones(), route=route, nonfinite="skip").backward(losses, features=z)
    assert step.skipped == ("edges",)
    assert step.tasks == ("depth", "normals")
    assert step.gram.shape == (2, 2)
    expected = plain(weights=(1.0, 1.0, 0.0))
    for name, found in grads(model).items():
        if name.startswith("heads.edges"):
            assert found is None
        else:
            assert_close(found, expected[name], msg=name)


@pytest.mark.parametrize("route", ROUTES)
def test_one_linear_layer_can_hold_all_heads(route):
    def losses_of(trunk: nn.Module, heads: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
        z = trunk(torch.linspace(-1, 1, 12).view(4, 3))
        return z, {str(k): (column - k).pow(2).mean() for k, column in enumerate(heads(z).unbind(1))}

    torch.manual_seed(0)
    trunk, heads = nn.Linear(3, 5), nn.Linear(5, 4)
    sum(losses_of(trunk, heads)[1].values()).backward()
    expected = [p.grad.clone() for p in (*trunk.parameters(), *heads.parameters())]
    trunk.zero_grad()
    heads.zero_grad()
    z, losses = losses_of(trunk, heads)
    motet.Balancer(Ones(), route=route).backward(losses, features=z)
    for parameter, gradient in zip((*trunk.parameters(), *heads.parameters()), expected, strict=True):
        assert_close(parameter.grad, gradient)


@pytest.mark.parametrize("route", ROUTES)
def test_frozen_and_unused_trunk_parameters_stay_untouched(route):
    model, x = make()
    model.trunk[0].weight.requires_grad_(False)
    model.trunk.register_parameter("unused", nn.Parameter(torch.ones(3)))
    z, losses = model.losses(x)
    motet.Balancer(Ones(), route=route).backward(losses, features=z, shared=model.trunk.parameters())
    assert model.trunk[0].weight.grad is None
    assert model.trunk.unused.grad is None
    assert_close(model.trunk[2].weight.grad, plain()["trunk.2.weight"])


@pytest.mark.parametrize("route", ROUTES)
def test_gradients_add_up_over_calls_as_those_of_backward_do(route):
    model, x = make()
    balancer = motet.Balancer(Ones(), route=route)
    for _ in range(2):
        z, losses = model.losses(x)
        balancer.backward(losses, features=z)
    for name, expected in plain().items():
        assert_close(grads(model)[name], 2 * expected, msg=name)


@pytest.mark.parametrize("route", ["last-layer", "features"])
def test_several_features_are_one_trunk(route):
    torch.manual_seed(0)
    left, right, head = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(8, 2)
    x = torch.randn(5, 3)

    def forward() -> tuple[list[Tensor], dict[str, Tensor]]:
        taps = [left(x), right(x).tanh()]
        out = head(torch.cat(taps, 1))
        return taps, {"a": out[:, 0].pow(2).mean(), "b": (out[:, 1] - 1).pow(2).mean()}

    parameters = [*left.parameters(), *right.parameters(), *head.parameters()]
    sum(forward()[1].values()).backward()
    expected = [p.grad.clone() for p in parameters]
    for p in parameters:
        p.grad = None
    taps, losses = forward()
    motet.Balancer(Ones(), route=route).backward(losses, features=taps)
    for parameter, gradient in zip(parameters, expected, strict=True):
        assert_close(parameter.grad, gradient)


@pytest.mark.parametrize("route", ROUTES)
def test_convolutions_and_normalisation_work_and_their_statistics_move_once(route):
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten())
    heads = nn.ModuleDict({task: nn.Linear(3 * 16, 1) for task in TASKS})
    z = trunk(torch.randn(4, 1, 6, 6))
    losses = {task: head(z).pow(2).mean() for task, head in heads.items()}
    motet.Balancer(Ones(), route=route).backward(losses, features=z)
    assert trunk[1].num_batches_tracked == 1
    assert all(p.grad is not None for p in trunk.parameters())


def test_the_last_layer_includes_its_matrix_behind_a_normalisation():
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5), nn.LayerNorm(5))
    found = motet.routes.last_layer([trunk(torch.randn(2, 3))])
    assert {id(p) for p in found} == {id(p) for p in (*trunk[2].parameters(), *trunk[3].parameters())}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(("dtype", "scale", "tolerance"), [(torch.bfloat16, 1e-4, 0.05), (torch.float16, 1.0, 0.01)])
@pytest.mark.parametrize("inputs", [3, 40])  # 40: more than rows, so that the exact route goes layer by layer
def test_half_precision_gives_the_weights_of_full_precision(route, dtype, scale, tolerance, inputs):
    def weights(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        trunk, heads = nn.Linear(inputs, 40).to(dtype), nn.Linear(40, 2).to(dtype)
        z = trunk(torch.randn(6, inputs).to(dtype))
        # Gradients can be so small that the weights of FairGrad lie beyond what half precision can hold.
        losses = {str(k): (column - k).pow(2).mean() * scale for k, column in enumerate(heads(z).unbind(1))}
        step = motet.Balancer("fair-grad", route=route).backward(losses, features=z)
        assert step.gram.dtype == torch.double
        assert trunk.weight.grad.dtype == dtype
        return step.weights / step.weights.sum(), trunk.weight.grad.float()

    (half, gradient), (full, expected) = weights(dtype), weights(torch.float32)
    assert_close(half, full, rtol=0, atol=tolerance)
    assert_close(gradient, expected, rtol=10 * tolerance, atol=tolerance * float(expected.abs().max()))


def test_a_weight_that_the_dtype_of_a_loss_cannot_hold_is_an_error_and_no_infinity():
    weight = torch.tensor([0.5], dtype=torch.float16, requires_grad=True)
    with pytest.raises(motet.NonFiniteError, match="SI gave weights of 'tiny' that are not finite in float16"):
        motet.Balancer("si").backward({"tiny": weight.pow(2).sum() * 1e-5})
    assert weight.grad is None


def test_twenty_steps_equal_ten_steps_save_load_ten_steps():
    def train(model: Net, balancer: motet.Balancer, x: Tensor, steps: int) -> None:
        for _ in range(steps):
            z, losses = model.losses(x)
            model.zero_grad()
            balancer.backward(losses, features=z)
            with torch.no_grad():
                for p in model.parameters():
                    p -= 0.05 * p.grad
            if balancer.wants_feedback:
                balancer.update({k: v.detach() for k, v in model.losses(x)[1].items()})

    # Their state matters within ten steps.
    short = {"dwa": {"window": 2}, "stch": {"warmup": 3}, "self-guided": {"warmup": 3}}
    made = {name: short.get(name, {}) for name in motet.methods.available()}
    for name, options in [*made.items(), ("db-mtl", {"beta": 0.9})]:

        def method(seed: int, name=name, options=options) -> Method:
            torch.manual_seed(seed)
            return motet.methods.get(name, **options)

        route = "features" if method(1).samples else "exact"
        model, x = make()
        train(model, motet.Balancer(method(1), route=route), x, 20)
        again, _ = make()
        first = motet.Balancer(method(1), route=route)
        train(again, first, x, 10)
        second = motet.Balancer(method(2), route=route)
        second.load_state_dict(first.state_dict())
        train(again, second, x, 10)
        for a, b in zip(model.parameters(), again.parameters(), strict=True):
            assert torch.equal(a, b), name


def test_weights_go_by_name_and_by_position():
    model, x = make()
    z, losses = model.losses(x)
    step = motet.Balancer(Fixed(0.1, 0.2, 0.3), route="exact").backward(losses, features=z)
    assert float(step.weights["normals"]) == pytest.approx(0.2)
    assert dict(step.weights).keys() == set(TASKS)
    assert_close(step.weights.sum(), torch.tensor(0.6, dtype=torch.double))
    with pytest.raises(KeyError, match="'norms'"):
        step.weights["norms"]
    assert "normals" in step.weights
    assert [float(value) for value in step.weights.values()] == pytest.approx([0.1, 0.2, 0.3])
    assert float(copy.deepcopy(step).weights["edges"]) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("method", "given", "budget", "expected"),
    [
        ("sum", "features", None, "none"),
        (Ones(), "features", None, "exact"),
        (Ones(), "features", 1.02, "features"),
        (Ones(), "features", 1.5, "last-layer"),
        (Ones(), "features", 3.0, "exact"),
        (Ones(), "shared", 1.1, "exact"),
        ("mgda", "shared", 1.1, "probe"),
        (Ones(), "shared", 3.0, "exact"),
        (Rows(), "features", 1.1, "features"),
        (Rows(), "features", None, "exact"),
    ],
)
def test_auto_takes_the_most_exact_route_within_the_budget_and_says_why(method, given, budget, expected, caplog):
    wide = nn.Sequential(nn.Linear(4, 2000), nn.ReLU(), nn.Linear(2000, 2000), nn.ReLU(), nn.Linear(2000, 500))
    model, x = make(trunk=wide, width=500)
    z, losses = model.losses(x)
    options = {"features": z} if given == "features" else {"shared": model.trunk.parameters()}
    with caplog.at_level(logging.INFO, logger="motet"):
        step = motet.Balancer(method, budget=budget).backward(losses, **options)
    assert step.cost.route == expected
    assert f"route '{expected}'" in caplog.text


def test_with_many_tasks_auto_takes_the_last_layer():
    torch.manual_seed(0)
    trunk, heads = nn.Linear(3, 4), nn.Linear(4, 12)
    z = trunk(torch.randn(6, 3))
    losses = {str(k): column.pow(2).mean() for k, column in enumerate(heads(z).unbind(1))}
    assert motet.Balancer(Ones()).backward(losses, features=z).cost.route == "last-layer"


class Stuck(Ones):
    def weights(self, gram: Tensor) -> Tensor:
        self.converged = torch.tensor(False)
        return super().weights(gram)


def test_a_solver_that_does_not_converge_is_reported_once_and_in_every_step(caplog):
    model, x = make()
    balancer = motet.Balancer(Stuck(), route="features")
    with caplog.at_level(logging.WARNING, logger="motet"):
        for _ in range(3):
            z, losses = model.losses(x)
            assert not balancer.backward(losses, features=z).converged
    assert caplog.text.count("iteration limit") == 1


class Broken(Ones):
    def weights(self, gram: Tensor) -> Tensor:
        return super().weights(gram) / 0


class Positive(Halves):
    lower_bound = 0.0


def call(change=lambda losses: losses, method: Method | str = "sum", features="z", shared=None, **options):
    """Run a step with something wrong; nothing may have been written."""
    model, x = make()
    z, losses = model.losses(x)
    taps = {"z": z, "detached": z.detach(), "other": model.trunk(x), "none": None}[features]
    try:
        motet.Balancer(method, **options).backward(change(losses), features=taps, shared=shared)
    finally:
        assert all(g is None for g in grads(model).values())


def test_bad_losses_are_refused_with_the_task_the_cause_and_the_fix():
    with pytest.raises(ValueError, match=r"'edges' has shape \(3,\).*mean"):
        call(lambda losses: {**losses, "edges": torch.ones(3, requires_grad=True)})
    with pytest.raises(TypeError, match="'edges' must be a tensor, not float"):
        call(lambda losses: {**losses, "edges": 1.0})
    with pytest.raises(TypeError, match="dict of task names"):
        call(lambda losses: list(losses.values()))
    with pytest.raises(ValueError, match="losses is empty"):
        call(lambda losses: {})
    with pytest.raises(ValueError, match="no_grad"):
        call(lambda losses: {task: loss.detach() for task, loss in losses.items()})
    with pytest.raises(ValueError, match=r"losses above 0; that of task 'edges' is -.*add a constant"):
        call(lambda losses: {**losses, "edges": -losses["edges"]}, method=Positive())
    with pytest.raises(ValueError, match="no task 'normal': did you mean 'normals'"):
        call(lambda losses: {"normal": losses["normals"]}, tasks=TASKS)


@pytest.mark.parametrize("route", ROUTES)
def test_bad_features_are_refused_with_the_task_the_cause_and_the_fix(route):
    with pytest.raises(ValueError, match="features require no gradient.*detached"):
        call(method=Ones(), route=route, features="detached")
    with pytest.raises(ValueError, match="trunk parameter of shape .* past the features.*shared="):
        call(
            lambda losses: {**losses, "edges": losses["edges"]},
            method=Ones(),
            route=route,
            features="other",
        )


@pytest.mark.parametrize("route", ROUTES)
def test_features_that_a_loss_does_not_use_are_refused_by_the_tasks_name(route):
    free = torch.ones((), dtype=torch.double, requires_grad=True)
    with pytest.raises(ValueError, match="loss of task 'edges' does not use the features.*detached copy"):
        call(lambda losses: {**losses, "edges": free * 2}, method=Ones(), route=route)
    with pytest.raises(ValueError, match="no loss uses the features"):
        call(lambda losses: dict.fromkeys(losses, free * 2), method=Ones(), route=route)


@pytest.mark.parametrize("route", ROUTES)
def test_a_parameter_in_both_trunk_and_head_is_refused(route):
    model, x = make()
    z, losses = model.losses(x)
    losses["normals"] = losses["normals"] + model.trunk[0].weight.pow(2).sum()
    with pytest.raises(ValueError, match=r"'normals' reaches a trunk parameter of shape \(5, 4\).*both trunk and head"):
        motet.Balancer(Ones(), route=route).backward(losses, features=z)
    assert all(g is None for g in grads(model).values())


def test_with_the_shared_parameters_named_the_exact_route_takes_a_skip_connection():
    model, x = make()
    z, losses = model.losses(x)
    losses["normals"] = losses["normals"] + model.trunk[0].weight.pow(2).sum()
    motet.Balancer(Ones(), route="exact").backward(losses, features=z, shared=model.trunk.parameters())
    expected = plain()["trunk.0.weight"] + 2 * model.trunk[0].weight.detach()
    assert_close(model.trunk[0].weight.grad, expected)


def test_missing_or_wrong_arguments_are_refused_with_the_fix():
    with pytest.raises(ValueError, match="Ones: the method needs the tasks' gradients: pass features=z.*shared="):
        call(method=Ones(), features="none")
    with pytest.raises(ValueError, match="last-layer route needs features=z"):
        call(method=Ones(), features="none", route="last-layer", shared=[torch.ones(1, requires_grad=True)])
    with pytest.raises(ValueError, match="no shared parameter requires a gradient"):
        call(method=Ones(), features="none", shared=[torch.ones(1)])
    with pytest.raises(ValueError, match="did you mean 'features'"):
        motet.Balancer("sum", route="feature")
    with pytest.raises(ValueError, match="there is no method 'summ': did you mean 'sum'"):
        motet.Balancer("summ")
    with pytest.raises(TypeError, match="not int"):
        motet.Balancer(3)
    with pytest.raises(ValueError, match="budget .* at least 1, not 0.5"):
        motet.Balancer("sum", budget=0.5)
    with pytest.raises(ValueError, match="Rows needs whole gradients.*route='exact'"):
        motet.Balancer(Rows(), route="last-layer")
    with pytest.raises(ValueError, match="nonfinite"):
        motet.Balancer("sum", nonfinite="ignore")
    with pytest.raises(motet.NonFiniteError, match="Broken gave weights of .* not finite"):
        call(method=Broken(), route="exact")


def test_state_of_other_tasks_is_refused_where_the_tasks_were_named():
    state = motet.Balancer("sum", tasks=["a", "b"]).state_dict()
    with pytest.raises(ValueError, match="state is of the tasks"):
        motet.Balancer("sum", tasks=["a", "c"]).load_state_dict(state)


@pytest.mark.parametrize("route", ROUTES)
def test_under_several_processes_a_route_that_would_bypass_their_averaging_is_refused(route, monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(RuntimeError, match=f"{route} route does not average gradients over processes"):
        call(method=Ones(), route=route)


def nested() -> tuple[list[Tensor], dict[str, Tensor], nn.Module]:
    torch.manual_seed(0)
    body = nn.ModuleList([nn.Linear(4, 5), nn.Linear(5, 5)])
    low = body[0](torch.randn(8, 4)).tanh()
    high = body[1](low)
    return [low, high], {"coarse": high.pow(2).mean(), "fine": (low - 1).pow(2).mean()}, body


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("given", ["features", "twice", "shared"])
def test_features_computed_from_one_another_give_the_plain_sum(route, given):
    taps, losses, body = nested()
    if given == "shared":
        if route in ("last-layer", "features"):
            return
        motet.Balancer(Ones(), route=route).backward(losses, shared=body)
    else:
        motet.Balancer(Ones(), route=route).backward(losses, features=taps if given == "features" else taps + taps[:1])
    found = grads(body)
    _, losses, body = nested()
    sum(losses.values()).backward()
    for name, expected in grads(body).items():
        assert_close(found[name], expected)


def test_a_shared_parameter_counts_once_however_often_it_is_listed():
    model, x = make()
    motet.Balancer(Ones()).backward(model.losses(x)[1], shared=[*model.trunk.parameters(), model.trunk[0].weight])
    assert_close(model.trunk[0].weight.grad, plain()["trunk.0.weight"])


class FirstRow(JacobianMethod):
    def direction(self, jacobian: Tensor) -> Tensor:
        return jacobian[0]


def test_a_gradient_is_never_the_memory_of_a_later_step():
    model, x = make()
    balancer = motet.Balancer(FirstRow(), route="exact")
    losses = model.losses(x)[1]
    balancer.backward(losses, shared=model.trunk)
    before = grads(model)["trunk.0.weight"]
    kept = model.trunk[0].weight.grad
    model.zero_grad()
    balancer.backward(model.losses(3 * x)[1], shared=model.trunk)
    assert torch.equal(kept, before)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("nonfinite", ["raise", "skip"])
def test_a_head_gradient_that_is_not_finite_never_reaches_the_head(route, nonfinite):
    model, x = make()
    z, losses = model.losses(x)
    losses["edges"] = losses["edges"] + (model.heads["edges"].bias * 0).abs().sqrt().sum()
    balancer = motet.Balancer(Ones(), route=route, nonfinite=nonfinite)
    if nonfinite == "raise":
        with pytest.raises(motet.NonFiniteError, match="gradient of task 'edges'"):
            balancer.backward(losses, features=z)
        assert all(g is None for g in grads(model).values())
    else:
        assert balancer.backward(losses, features=z).skipped == ("edges",)
        assert model.heads["edges"].bias.grad is None


def test_a_step_that_fails_leaves_no_trace_of_its_tasks():
    model, x = make()
    balancer = motet.Balancer("sum")
    with pytest.raises(TypeError):
        balancer.backward({**model.losses(x)[1], "typo": 1.0})
    assert balancer.tasks == ()


def test_moving_the_features_is_noticed_by_a_balancer_that_was_used_before():
    torch.manual_seed(0)
    first, second, head = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 1)
    balancer = motet.Balancer(Ones(), route="features")

    def losses(z: Tensor) -> dict[str, Tensor]:
        return {"a": head(z).pow(2).mean(), "b": head(z).mean() + second.weight.pow(2).sum()}

    low = first(torch.randn(8, 4))
    balancer.backward(losses(low), features=low)
    high = second(first(torch.randn(8, 4)))
    with pytest.raises(ValueError, match="'b' reaches a trunk parameter"):
        balancer.backward(losses(high), features=high)


def test_state_that_does_not_fit_is_refused_and_changes_nothing():
    uw, famo = motet.Balancer("uw"), motet.Balancer("famo")
    uw.backward(make()[0].losses(torch.ones(3, 4).double())[1])
    with pytest.raises(ValueError, match="state is of the method UW"):
        famo.load_state_dict(uw.state_dict())
    with pytest.raises(ValueError, match="lacks kind, method"):
        famo.load_state_dict({"tasks": ["q"]})
    lost = motet.Balancer("rlw").state_dict()
    del lost["method"]["generator"]
    with pytest.raises(ValueError, match="random generator"):
        motet.Balancer("rlw").load_state_dict(lost)
    assert famo.tasks == ()


def test_state_of_other_options_is_refused_at_the_next_step():
    model, x = make()
    short, long = (motet.Balancer(motet.methods.DWA(window=window)) for window in (3, 5))
    short.backward(model.losses(x)[1])
    long.load_state_dict(short.state_dict())
    with pytest.raises(ValueError, match="saved with other options"):
        long.backward(model.losses(x)[1])


def test_a_method_that_averages_gradients_over_steps_never_takes_the_features_route():
    method = motet.methods.DBMTL(beta=0.9)
    with pytest.raises(ValueError, match="averages gradients over steps.*route='exact'"):
        motet.Balancer(method, route="features")
    model, x = make()
    z, losses = model.losses(x)
    assert motet.Balancer(method, budget=1.1).backward(losses, features=z).cost.route == "exact"


def test_a_compiled_trunk_takes_the_features_route_and_names_it_where_another_is_asked_for():
    torch.manual_seed(0)
    trunk, heads = nn.Linear(4, 5), nn.Linear(5, 8)
    compiled = torch.compile(trunk, backend="aot_eager")

    def forward() -> tuple[Tensor, dict[str, Tensor]]:
        z = compiled(torch.linspace(-1, 1, 24).view(6, 4))
        return z, {str(k): (c - k).pow(2).mean() for k, c in enumerate(heads(z).unbind(1))}

    z, losses = forward()
    assert motet.Balancer(Ones()).backward(losses, features=z).cost.route == "features"
    z, losses = forward()
    with pytest.raises(ValueError, match="trunk is compiled.*route='features'"):
        motet.Balancer(Ones(), route="last-layer").backward(losses, features=z)


def test_reentrant_checkpointing_is_refused_with_the_fix():
    model, x = make()
    z = checkpoint.checkpoint(model.trunk, x.requires_grad_(), use_reentrant=True)
    losses = {task: head(z).pow(2).mean() for task, head in model.heads.items()}
    with pytest.raises(ValueError, match="use_reentrant=False"):
        motet.Balancer(Ones(), route="exact").backward(losses, features=z)


@pytest.mark.parametrize("route", ROUTES)
def test_checkpointing_that_is_not_reentrant_works(route):
    model, x = make()
    z = checkpoint.checkpoint(model.trunk, x, use_reentrant=False)
    losses = {task: (head(z) - i).pow(2).mean() for i, (task, head) in enumerate(model.heads.items())}
    motet.Balancer(Ones(), route=route).backward(losses, features=z)
    assert_close(model.trunk[0].weight.grad, plain()["trunk.0.weight"])


def test_sparse_embeddings_have_a_place_in_the_trunk():
    torch.manual_seed(0)
    trunk, heads = nn.EmbeddingBag(10, 4, sparse=True), nn.Linear(4, 2)
    words = torch.tensor([[1, 2], [3, 4]])

    def losses() -> dict[str, Tensor]:
        return {str(k): column.pow(2).mean() for k, column in enumerate(heads(trunk(words)).unbind(1))}

    sum(losses().values()).backward()
    expected = trunk.weight.grad.to_dense()
    trunk.weight.grad = None
    motet.Balancer(Ones()).backward(losses(), shared=trunk)
    assert_close(trunk.weight.grad, expected)


def test_a_frozen_trunk_is_no_matter_to_a_method_that_weights_losses():
    model, x = make()
    model.trunk.requires_grad_(False)
    z, losses = model.losses(x)
    motet.Balancer("sum").backward(losses, features=z)
    assert model.heads["depth"].weight.grad is not None


@pytest.mark.parametrize("width", [6, 60])  # 60: the exact route goes layer by layer
def test_a_head_among_the_shared_parameters_is_warned_of_once(caplog, width):
    model, x = make(trunk=nn.Sequential(nn.Linear(4, width), nn.Tanh()), width=width)
    balancer = motet.Balancer(Ones(), route="exact")
    with caplog.at_level(logging.WARNING, logger="motet"):
        for _ in range(2):
            balancer.backward(model.losses(x)[1], shared=model.parameters())
    assert caplog.text.count("only one task uses") == 1


def test_losses_of_any_size_in_float64_are_finite():
    weight = torch.tensor([1.0], dtype=torch.double, requires_grad=True)
    motet.Balancer("si").backward({"huge": weight.sum() * 1e200, "tiny": weight.sum() * 1e-200})
    assert_close(weight.grad, torch.tensor([2.0], dtype=torch.double))


def test_feedback_is_checked_as_losses_are():
    model, x = make()
    balancer = motet.Balancer("famo")
    losses = model.losses(x)[1]
    balancer.backward(losses)
    with pytest.raises(ValueError, match="no task 'dept'"):
        balancer.update({"dept": torch.tensor(1.0)})
    with pytest.raises(TypeError, match="'depth' must be a tensor"):
        balancer.update({"depth": 1.0})
    with pytest.raises(ValueError, match="losses above 0; that of task 'depth' is 0"):
        balancer.update({"depth": torch.tensor(0.0)})


def test_a_budget_that_cannot_be_kept_is_a_warning(caplog):
    model, x = make()
    with caplog.at_level(logging.WARNING, logger="motet"):
        motet.Balancer(Ones(), budget=1.1).backward(model.losses(x)[1], shared=model.trunk)
    assert "over the budget of 1.1" in caplog.text


def test_what_is_no_list_of_tasks_features_or_parameters_is_refused():
    model, x = make()
    z, losses = model.losses(x)
    with pytest.raises(TypeError, match=r"write tasks=\['depth'\]"):
        motet.Balancer("sum", tasks="depth")
    with pytest.raises(ValueError, match="named twice"):
        motet.Balancer("sum", tasks=["a", "a"])
    with pytest.raises(TypeError, match="name must be a string, not 1"):
        motet.Balancer("sum").backward({1: losses["depth"]})
    with pytest.raises(TypeError, match=r"write Ones\(\)"):
        motet.Balancer(Ones)
    with pytest.raises(TypeError, match="features must be a tensor"):
        motet.Balancer(Ones()).backward(losses, features=["z"])
    with pytest.raises(TypeError, match="goes to features="):
        motet.Balancer(Ones()).backward(losses, shared=z)
    with pytest.raises(ValueError, match="computed from others"):
        motet.Balancer(Ones()).backward(losses, shared=[z])
    with pytest.raises(ValueError, match="lies below the features"):
        motet.Balancer(Ones(), route="last-layer").backward(losses, features=z, shared=model.heads)
