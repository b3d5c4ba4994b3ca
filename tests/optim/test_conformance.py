"""What every optimizer of torch can do, for all of ours."""

import copy
import io
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.testing import assert_close

from motet.optim import APTSGD, APTAdamW, APTMuon, Hybrid, momentum_report
from motet.optim.per_task import AdaTask

MATRIX, VECTOR = (4, 3), (5,)


def adapting(kind: str) -> Callable[..., torch.optim.Optimizer]:
    def make(params: Any, lr: Any = 0.05, **options: Any) -> torch.optim.Optimizer:
        if kind == "hybrid":
            groups = [params] if isinstance(params, dict) else list(params)
            if not groups or not isinstance(groups[0], dict):
                groups = [{"params": groups}]
            made = []
            for group in groups:
                found = list(group["params"])
                kinds = {"muon": lambda p: named(p).ndim > 1, "adamw": lambda p: named(p).ndim < 2}
                made += [
                    {**group, "params": part, "optimizer": kind}
                    for kind, mine in kinds.items()
                    if (part := [p for p in found if mine(p)])
                ]
            return Hybrid(
                made, {"lr": lr, "beta_min": 0.3, "weight_decay": 0.01}, {"lr": lr, "beta_min": 0.3} | options
            )
        classes = {"adamw": APTAdamW, "sgd": APTSGD, "muon": APTMuon}
        return (
            AdaTask(params, lr=lr, **options) if kind == "task" else classes[kind](params, lr, beta_min=0.3, **options)
        )

    return make


def named(p: Any) -> Tensor:
    return p[1] if isinstance(p, tuple) else p


KINDS = ("adamw", "sgd", "muon", "hybrid", "task")
every = pytest.mark.parametrize("kind", KINDS)


def parameters(kind: str, dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    shapes = (MATRIX, (3, 4), MATRIX) if kind == "muon" else (MATRIX, VECTOR, (3, 4), VECTOR)
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]


def held(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def give(params: list[Any], t: int, optimizer: torch.optim.Optimizer, missing: tuple[int, ...] = ()) -> None:
    """The same gradients for the same step, of two tasks for AdaTask."""
    rows = []
    for j, p in enumerate(params):
        generator = torch.Generator().manual_seed(100 * t + j)
        row = torch.randn(2, *p.shape, generator=generator).to(p)
        p.grad = None if j in missing else row.sum(0)
        rows.append(row.flatten(1))
    if isinstance(optimizer, AdaTask):
        optimizer.task_gradients(torch.cat(rows, 1), params)


def train(params: list[Any], optimizer: torch.optim.Optimizer, steps: range, missing: tuple[int, ...] = ()) -> None:
    for t in steps:
        give(params, t, optimizer, missing)
        optimizer.step()


def clones(params: list[Any]) -> list[Tensor]:
    return [p.detach().clone() for p in params]


def same(one: list[Any], two: list[Any]) -> bool:
    return all(torch.equal(p, q) for p, q in zip(one, two, strict=True))


@every
def test_a_closure_is_called_once_with_gradients_on_and_its_loss_returned(kind):
    params, calls = parameters(kind), []
    optimizer = adapting(kind)(params)

    def closure() -> Tensor:
        assert torch.is_grad_enabled()
        optimizer.zero_grad()
        loss = torch.stack([p.square().sum() for p in params]).sum()
        loss.backward()
        if isinstance(optimizer, AdaTask):
            optimizer.task_gradients(torch.cat([p.grad.flatten() for p in params])[None], params)
        calls.append(loss)
        return loss

    before = clones(params)
    with torch.no_grad():
        assert optimizer.step(closure) is calls[0]
    assert len(calls) == 1
    assert not any(torch.equal(p, q) for p, q in zip(params, before, strict=True))


@every
@pytest.mark.parametrize("way", ["state_dict", "file", "other dtype", "deepcopy", "pickle"])
def test_it_goes_on_from_a_saved_state_as_if_it_had_not_stopped(kind, way):
    whole, first = parameters(kind), parameters(kind)
    train(whole, adapting(kind)(whole), range(8))
    optimizer = adapting(kind)(first)
    train(first, optimizer, range(4))
    second = [nn.Parameter(p.detach().clone()) for p in first]
    if way in ("deepcopy", "pickle"):
        if way == "deepcopy":
            again = copy.deepcopy(optimizer)
        else:
            file = io.BytesIO()
            torch.save(optimizer, file)
            file.seek(0)
            again = torch.load(file, weights_only=False)
        second = held(again) if kind != "hybrid" else in_order(first, optimizer, again)
    else:
        state = optimizer.state_dict()
        if way == "file":
            file = io.BytesIO()
            torch.save(state, file)
            file.seek(0)
            state = torch.load(file, weights_only=True)
        if way == "other dtype":
            second = [nn.Parameter(p.double()) for p in second]
        again = adapting(kind)(second, lr=0.5)
        again.load_state_dict(state)
        for p in second:
            for name, value in again.state[p].items():
                wanted = torch.float32 if name == "step" else p.dtype
                assert value.dtype == wanted
    train(second, again, range(4, 8))
    if way == "other dtype":
        for p, q in zip(whole, second, strict=True):
            assert_close(p.double(), q, rtol=1e-2 if kind in ("muon", "hybrid") else 1e-4, atol=1e-2)
    else:
        assert same(whole, second)


def in_order(params: list[Any], optimizer: torch.optim.Optimizer, other: torch.optim.Optimizer) -> list[Any]:
    theirs = dict(zip(map(id, held(optimizer)), held(other), strict=True))
    return [theirs[id(p)] for p in params]


@every
def test_hooks_see_steps_and_states_and_may_replace_them(kind):
    params, seen = parameters(kind), []
    optimizer = adapting(kind)(params)
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    optimizer.register_state_dict_pre_hook(lambda *_: seen.append("saving"))
    optimizer.register_state_dict_post_hook(lambda _, state: {**state, "mine": 1})
    train(params, optimizer, range(1))
    state = optimizer.state_dict()
    assert state["mine"] == 1
    fresh = adapting(kind)(parameters(kind))
    fresh.register_load_state_dict_pre_hook(
        lambda _, given: {name: value for name, value in given.items() if name != "mine"}
    )
    fresh.register_load_state_dict_post_hook(lambda *_: seen.append("loaded"))
    fresh.load_state_dict(state)
    assert seen == ["before", "after", "saving", "loaded"]


@every
def test_a_group_joins_with_options_of_its_own(kind):
    params = parameters(kind)
    late = {"params": [nn.Parameter(torch.ones(MATRIX))], "lr": 0.0}
    if kind == "hybrid":
        late["optimizer"] = "muon"
    optimizer = adapting(kind)(params)
    train(params, optimizer, range(2))
    optimizer.add_param_group(late)
    train([*params, *late["params"]], optimizer, range(2, 4))
    assert torch.equal(late["params"][0], torch.ones(MATRIX))
    assert optimizer.state[late["params"][0]]
    with pytest.raises(ValueError, match="more than one parameter group"):
        optimizer.add_param_group({"params": [late["params"][0]]})
    count = len(optimizer.param_groups)
    with pytest.raises(ValueError, match="lr"):
        optimizer.add_param_group(late | {"params": [nn.Parameter(torch.ones(MATRIX))], "lr": -1.0})
    assert len(optimizer.param_groups) == count


@every
def test_a_learning_rate_in_a_tensor_is_that_number(kind):
    ours, theirs = parameters(kind), parameters(kind)
    lr = torch.tensor(0.05)
    one, two = adapting(kind)(ours, lr=lr), adapting(kind)(theirs, lr=0.05)
    train(ours, one, range(3))
    train(theirs, two, range(3))
    lr.fill_(0.01)
    for group in two.param_groups:
        group["lr"] = 0.01
    train(ours, one, range(3, 5))
    train(theirs, two, range(3, 5))
    for p, q in zip(ours, theirs, strict=True):
        assert_close(p, q, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
@pytest.mark.parametrize("kernel", [{}, {"foreach": True}])
def test_maximizing_is_minimizing_the_opposite(kind, kernel):
    ours, theirs = parameters(kind), parameters(kind)
    one, two = (
        adapting(kind)(params, weight_decay=0.0, maximize=up, **kernel)
        for params, up in ((ours, True), (theirs, False))
    )
    for t in range(4):
        give(ours, t, one)
        for p, q in zip(ours, theirs, strict=True):
            q.grad = -p.grad
        one.step()
        two.step()
    for p, q in zip(ours, theirs, strict=True):
        assert_close(p, q)


@every
def test_parameters_without_a_gradient_do_not_move_and_have_no_state(kind):
    params = parameters(kind)
    optimizer, before = adapting(kind)(params), clones(params)
    optimizer.step()
    assert same(params, before)
    train(params, optimizer, range(3), missing=(1,))
    assert torch.equal(params[1], before[1])
    assert "step" not in optimizer.state.get(params[1], {})
    assert not torch.equal(params[0], before[0])


@every
def test_zero_grad_drops_or_zeroes_gradients(kind):
    params = parameters(kind)
    optimizer = adapting(kind)(params)
    give(params, 0, optimizer)
    optimizer.zero_grad(set_to_none=False)
    assert all(not p.grad.any() for p in params)
    optimizer.zero_grad()
    assert all(p.grad is None for p in params)


@every
def test_names_are_kept_and_do_not_change_the_steps(kind):
    plain, with_names = parameters(kind), parameters(kind)
    train(plain, adapting(kind)(plain), range(3))
    optimizer = adapting(kind)([(f"p{j}", p) for j, p in enumerate(with_names)])
    train(with_names, optimizer, range(3))
    assert same(plain, with_names)
    kept = [name for group in optimizer.state_dict()["param_groups"] for name in group["param_names"]]
    assert sorted(kept) == [f"p{j}" for j in range(len(plain))]


@every
def test_the_order_of_parameters_is_no_matter(kind):
    ours, theirs = parameters(kind), parameters(kind)
    train(ours, adapting(kind)(ours), range(4))
    train(theirs, adapting(kind)(theirs[::-1]), range(4))
    for p, q in zip(ours, theirs, strict=True):
        assert_close(p, q, rtol=1e-5, atol=1e-2 if kind in ("muon", "hybrid") else 1e-6)


@every
def test_empty_tensors_and_groups_are_passed_over(kind):
    params = [*parameters(kind), nn.Parameter(torch.zeros(0, 3))]
    optimizer, alone = adapting(kind)(params), parameters(kind)
    optimizer.add_param_group({"params": []} | ({"optimizer": "adamw"} if kind == "hybrid" else {}))
    train(params, optimizer, range(3))
    train(alone, adapting(kind)(alone), range(3))
    assert same(params[:-1], alone)
    with pytest.raises(ValueError, match="empty parameter list"):
        adapting(kind)([])


@every
def test_gradients_are_never_changed(kind):
    params = parameters(kind)
    optimizer = adapting(kind)(params)
    for t in range(3):
        give(params, t, optimizer)
        before = [p.grad.clone() for p in params]
        optimizer.step()
        assert same([p.grad for p in params], before)


SCHEDULERS: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda t: 0.9**t),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda t: 0.9),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [2, 4]),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 5),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o), lr_scheduler.ExponentialLR(o, 0.9)], [2]
    ),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o), lr_scheduler.ExponentialLR(o, 0.9)]
    ),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=2),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=8),
    "SWALR": lambda o: torch.optim.swa_utils.SWALR(o, 0.01, anneal_epochs=3),
}


def test_no_scheduler_of_torch_is_left_out():
    left = {name for name in lr_scheduler.__all__ if name not in ("LRScheduler",)} - set(SCHEDULERS)
    assert not left


@every
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_scheduler_drives_it_as_it_drives_torchs(kind, scheduler):
    params, theirs = parameters(kind), parameters(kind)
    ours = adapting(kind)(params)
    reference = (torch.optim.SGD if kind == "sgd" else torch.optim.AdamW)(
        theirs, lr=0.05, **({"momentum": 0.9, "dampening": 0.9} if kind == "sgd" else {})
    )
    schedules = [SCHEDULERS[scheduler](each) for each in (ours, reference)]
    for t in range(7):
        train(params, ours, range(t, t + 1))
        train(theirs, reference, range(t, t + 1))
        expected = reference.param_groups[0]
        for group in ours.param_groups:
            assert group["lr"] == expected["lr"]
            if scheduler in ("CyclicLR", "OneCycleLR"):
                momentum = group["betas"][0] if "betas" in group else group["momentum"]
                assert momentum == (expected["betas"][0] if "betas" in expected else expected["momentum"])
        for schedule in schedules:
            schedule.step(*([1.0] if scheduler == "ReduceLROnPlateau" else []))
    assert all(p.isfinite().all() for p in params)


def test_a_cycled_momentum_of_a_hybrid_is_saved_and_acts_on_both_parts():
    params = parameters("hybrid")
    optimizer = adapting("hybrid")(params)
    scheduler = lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=8)
    train(params, optimizer, range(3))
    scheduler.step()
    again = adapting("hybrid")([nn.Parameter(p.detach().clone()) for p in params])
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for each in (optimizer, again):
        give(params, 3, each)
        for p, q in zip(held(each), held(optimizer), strict=True):
            p.grad = q.grad
        each.step()
        momenta = {group["betas"][0] if "betas" in group else group["momentum"] for group in each.param_groups}
        assert len(momenta) == 1
        assert 0.85 < momenta.pop() < 0.95
    assert same(held(optimizer), held(again))


def test_a_schedule_may_take_the_momentum_below_the_bound_of_adaptation():
    for rule in ("A1", "A7"):
        p = nn.Parameter(torch.ones(4))
        optimizer = APTAdamW([p], beta_min=0.8, rule=rule)
        for t, top in enumerate((0.9, 0.5, 0.5)):
            optimizer.param_groups[0]["betas"] = (top, 0.999)
            train([p], optimizer, range(t, t + 1))
        assert float(optimizer.param_groups[0]["beta"][0]) == 0.5


def test_a_second_moment_without_memory_forgets_a_gradient_that_was_much_longer():
    results = []
    for kernel in ({"foreach": True}, {"fused": None}):
        p = nn.Parameter(torch.ones(3))
        optimizer = APTAdamW([p], lr=0.1, betas=(0.9, 0.0), beta_min=0.5, weight_decay=0.0, **kernel)
        for size in (1e8, 1e-3, 1e-3):
            p.grad = torch.full((3,), size)
            optimizer.step()
            assert_close(optimizer.state[p]["exp_avg_sq"], torch.full((3,), size**2))
        results.append(p.detach().clone())
    assert_close(*results)


@pytest.mark.parametrize("kind", ["adamw", "hybrid"])
@pytest.mark.parametrize("whole", [int, lambda step: torch.tensor(int(step))], ids=["int", "tensor"])
def test_a_state_that_counts_steps_in_whole_numbers_goes_on(kind, whole):
    theirs, ours = parameters(kind), parameters(kind)
    plain = torch.optim.AdamW(theirs, lr=0.05)
    train(theirs, plain, range(3))
    state = copy.deepcopy(plain.state_dict())
    for own in state["state"].values():
        own["step"] = whole(own["step"])
    for p, q in zip(ours, theirs, strict=True):
        p.data.copy_(q.data)
    options = {"lr": 0.05, "beta_min": 0.9}
    optimizer = APTAdamW(ours, **options) if kind == "adamw" else Hybrid(ours, adamw=options)
    optimizer.load_state_dict(state)
    train(ours, optimizer, range(3, 6))
    train(theirs, plain, range(3, 6))
    for p, q in zip(ours, theirs, strict=True):
        assert_close(p, q, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("theirs", "make", "message"),
    [
        (lambda p: torch.optim.AdamW([p], amsgrad=True), lambda p: APTAdamW([p]), "amsgrad=True"),
        (lambda p: torch.optim.AdamW([p], amsgrad=True), lambda p: Hybrid([p]), "amsgrad=True"),
        (lambda p: torch.optim.Adam([p], weight_decay=0.1), lambda p: APTAdamW([p]), "weight decay of Adam"),
        (lambda p: torch.optim.SGD([p], momentum=0.9), lambda p: APTSGD([p]), "dampening=momentum"),
    ],
)
def test_a_state_whose_steps_it_cannot_make_is_refused_and_nothing_is_changed(theirs, make, message):
    p = nn.Parameter(torch.ones(3))
    other, ours = theirs(p), make(p)
    train([p], other, range(2))
    before = copy.deepcopy(ours.state_dict())
    with pytest.raises(ValueError, match=message):
        ours.load_state_dict(other.state_dict())
    assert ours.state_dict() == before


def test_a_state_of_adamw_leaves_the_matrices_of_a_hybrid_with_muon():
    params = parameters("hybrid")
    optimizer = adapting("hybrid")(params)
    plain = torch.optim.AdamW([{"params": group["params"]} for group in optimizer.param_groups])
    train(params, plain, range(2))
    optimizer.load_state_dict(plain.state_dict())
    assert [group["optimizer"] for group in optimizer.param_groups] == ["muon", "adamw"]
    train(params, optimizer, range(2, 4))
    assert "momentum_buffer" in optimizer.state[params[0]]


def test_a_report_on_momentum_says_why_there_is_none_of_a_momentum_a_task():
    with pytest.raises(TypeError, match="AdaTask keeps a momentum for each task"):
        momentum_report(AdaTask(parameters("task")))


@pytest.mark.parametrize("kind", ["adamw", "sgd", "muon", "hybrid"])
def test_a_gradient_that_is_not_finite_leaves_other_parameters_and_beta_alone(kind):
    params = parameters(kind)
    optimizer = adapting(kind)(params)
    for t in range(3):
        give(params, t, optimizer)
        if t == 1:
            params[0].grad[0, 0] = math.nan
        optimizer.step()
    assert all(p.isfinite().all() for p in params[1:])
    assert all(group["beta"].isfinite().all() for group in optimizer.param_groups)
