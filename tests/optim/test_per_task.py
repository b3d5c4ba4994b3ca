"""AdaTask: moments of each task's own."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import Parameter
from torch.testing import assert_close

import motet
from motet.optim.muon import APTMuon
from motet.optim.per_task import AdaTask


def stepped(p, optimizer, rows):
    """One step with these tasks' gradients (K, numbers) of one parameter."""
    p.grad = rows.sum(0).view_as(p).clone()
    optimizer.task_gradients(rows, [p])
    optimizer.step()


def noise(t, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(t), dtype=torch.float64)


def test_two_steps_by_hand():
    p = Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = AdaTask([p], lr=0.1, betas=(0.5, 0.75), eps=0.0, weight_decay=0.2)
    stepped(p, optimizer, torch.tensor([[2.0], [-300.0]], dtype=torch.float64))
    # The first step of each task is ±lr, whatever its scale: they cancel, and decay is left.
    assert_close(p.data, torch.tensor([0.98], dtype=torch.float64))
    stepped(p, optimizer, torch.tensor([[4.0], [0.5]], dtype=torch.float64))
    first = (0.5 * 0.5 * 2 + 0.5 * 4) / 0.75 / ((0.75 * 0.25 * 4 + 0.25 * 16) / 0.4375) ** 0.5
    second = (0.5 * 0.5 * -300 + 0.5 * 0.5) / 0.75 / ((0.75 * 0.25 * 9e4 + 0.25 * 0.25) / 0.4375) ** 0.5
    assert_close(p.data, torch.tensor([0.98 * 0.98 - 0.1 * (first + second)], dtype=torch.float64))


def test_one_task_is_adamw_and_so_are_parameters_without_tasks():
    shared, head = Parameter(noise(0, 3, 2)), Parameter(noise(1, 4))
    theirs = [Parameter(p.detach().clone()) for p in (shared, head)]
    ours = AdaTask([shared, head], lr=0.05, weight_decay=0.1)
    adamw = torch.optim.AdamW(theirs, lr=0.05, weight_decay=0.1)
    for t in range(10):
        row = noise(10 + t, 1, 6)
        shared.grad, head.grad = row.view(3, 2).clone(), noise(50 + t, 4)
        theirs[0].grad, theirs[1].grad = shared.grad.clone(), head.grad.clone()
        ours.task_gradients(row, [shared])
        ours.step()
        adamw.step()
    for p, q in zip((shared, head), theirs, strict=True):
        assert_close(p, q, rtol=1e-9, atol=1e-12)


def test_no_tasks_scale_matters():
    results = []
    for scale in (1.0, 1e4):
        p = Parameter(noise(0, 5))
        optimizer = AdaTask([p], lr=0.05, eps=0.0)
        for t in range(6):
            stepped(p, optimizer, noise(t, 2, 5) * torch.tensor([[scale], [1.0]], dtype=torch.float64))
        results.append(p.detach().clone())
    assert_close(*results, rtol=1e-9, atol=1e-12)


def test_an_absent_task_keeps_its_moments_and_moves_nothing():
    p = Parameter(noise(0, 4))
    optimizer = AdaTask([p], lr=0.05, weight_decay=0.0)
    stepped(p, optimizer, noise(1, 2, 4))
    before, moments = p.detach().clone(), copy.deepcopy(optimizer.state[p])
    rows = noise(2, 2, 4)
    rows[1] = 0
    stepped(p, optimizer, rows)
    after = optimizer.state[p]
    assert after["step"].tolist() == [2, 1]
    for name in ("exp_avg", "exp_avg_sq"):
        assert torch.equal(after[name][1], moments[name][1])
        assert not torch.equal(after[name][0], moments[name][0])
    alone = Parameter(before.clone())
    other = AdaTask([alone], lr=0.05, weight_decay=0.0)
    other.state[alone] = {name: value[:1].clone() for name, value in moments.items()}
    stepped(alone, other, rows[:1])
    assert_close(p, alone)


def test_a_saved_state_goes_on_bit_for_bit():
    results = []
    for resumed in (False, True):
        p = Parameter(noise(0, 4).float())
        optimizer = AdaTask([p], lr=0.05)
        for t in range(8):
            if resumed and t == 4:
                state, optimizer = copy.deepcopy(optimizer.state_dict()), AdaTask([p], lr=0.3)
                optimizer.load_state_dict(state)
            stepped(p, optimizer, noise(t, 3, 4).float())
        results.append(p.detach().clone())
    assert torch.equal(*results)


def test_a_step_without_the_tasks_gradients_is_refused():
    p = Parameter(torch.ones(2))
    optimizer = AdaTask([p])
    optimizer.step()  # Nothing has a gradient: nothing to do.
    stepped(p, optimizer, torch.ones(2, 2))
    with pytest.raises(RuntimeError, match="on_gradients=optimizer.task_gradients"):
        optimizer.step()


@pytest.mark.parametrize("options", [{"lr": -1}, {"betas": (0.9, 1.0)}, {"eps": -1}, {"weight_decay": -1}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        AdaTask([Parameter(torch.ones(2))], **options)


def test_gradients_that_do_not_fit_are_refused():
    p = Parameter(torch.ones(2))
    optimizer = AdaTask([p])
    with pytest.raises(ValueError, match=r"must be \(K, 2\)"):
        optimizer.task_gradients(torch.ones(2, 3), [p])
    stepped(p, optimizer, torch.ones(2, 2))
    with pytest.raises(ValueError, match="it had 2 tasks, and is given 3"):
        stepped(p, optimizer, torch.ones(3, 2))


def two_tasks(make, skip=(), clip=None, scaler=None, steps=6):
    """Training by a Balancer; a scaler's factor changes on the way."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"trunk": nn.Linear(3, 4), "a": nn.Linear(4, 1), "b": nn.Linear(4, 1)}).double()
    optimizer = make(model)
    balancer = motet.Balancer("sum", tasks=["a", "b"], nonfinite="skip", on_gradients=optimizer.task_gradients)
    for t in range(steps):
        optimizer.zero_grad(set_to_none=t % 2 == 0)
        z = model["trunk"](noise(t, 8, 3))
        losses = {"a": (model["a"](z) - 1).square().mean(), "b": 3 * (model["b"](z) + 1).square().mean()}
        if t in skip:
            losses = {task: loss * torch.nan for task, loss in losses.items()}
        elif scaler is not None:
            losses = {task: scaler.scale(loss) for task, loss in losses.items()}
        balancer.backward(losses, features=z)
        if t not in skip and scaler is not None:
            scaler.unscale_(optimizer)
        if clip is not None:
            clip(model)
        if t in skip or scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update(2.0 ** (t + 3))
    return [p.detach().clone() for p in model.parameters()]


def ada_task(model):
    return AdaTask(model.parameters(), lr=0.05, eps=1e-3)


def heavy_muon(model):
    trunk = [model["trunk"].weight]
    return APTMuon(trunk, lr=0.05, preserve=0.5, variant="L5", ns_dtype="float32", eps=0.0)


@pytest.mark.parametrize("make", [ada_task, heavy_muon])
def test_a_gradient_scalers_factor_does_not_reach_the_tasks_moments(make):
    plain = two_tasks(make)
    scaled = two_tasks(make, scaler=torch.amp.GradScaler("cpu", init_scale=1024.0))
    for p, q in zip(plain, scaled, strict=True):
        assert_close(p, q, rtol=1e-6, atol=1e-9)


def test_clipping_by_the_norm_clips_the_tasks_gradients_too():
    def clip(model):
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1e-3)

    def small(model):
        return AdaTask(model.parameters(), lr=0.05, eps=1.0)  # Steps in proportion to the gradients.

    start = two_tasks(small, steps=0)
    clipped, free = (
        max(float((p - q).abs().max()) for p, q in zip(start, two_tasks(small, clip=how), strict=True))
        for how in (clip, None)
    )
    assert clipped < 0.01 * free


@pytest.mark.parametrize("make", [ada_task, heavy_muon])
def test_what_is_no_one_factor_is_refused_once_and_said(make):
    def clip(model):
        torch.nn.utils.clip_grad_value_(model.parameters(), 0.1)

    with pytest.raises(RuntimeError, match="changed by more than one factor"):
        two_tasks(make, clip=clip)


def test_a_batch_without_any_task_moves_nothing():
    assert all(
        torch.equal(p, q) for p, q in zip(two_tasks(ada_task, skip=(4, 5)), two_tasks(ada_task, steps=4), strict=True)
    )
    p = Parameter(torch.ones(2))
    optimizer = AdaTask([p])
    p.grad = torch.zeros(2)
    optimizer.step()
    assert torch.equal(p, torch.ones(2))
    assert not optimizer.state


def test_group_updates_which_hand_no_tasks_over_are_told_what_to_use():
    trunk, heads = nn.Linear(3, 4), nn.ModuleDict({task: nn.Linear(4, 1) for task in "ab"})
    optimizer = AdaTask([*trunk.parameters(), *heads.parameters()])
    updates = motet.GroupedUpdates(["a", "b"], optimizer)
    with pytest.raises(RuntimeError, match="GroupedUpdates has no such hook, .* give it AdamW"):
        updates.step(lambda: {task: head(trunk(torch.ones(5, 3))).square().mean() for task, head in heads.items()})
