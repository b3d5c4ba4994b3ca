"""Group updates: what moves, how often, in which order, and what survives."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW

import motet
from motet import GroupedUpdates
from motet.step import NonFiniteError
from tests.grouping.models import TASKS, Heads, batch

PAIRS = [["a", "b"], ["c", "d"]]


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_each_group_takes_a_forward_backward_and_step_of_its_own() -> None:
    model, hand = Heads(), Heads()
    updates = GroupedUpdates(TASKS, AdamW(model.parameters(), lr=1e-2, weight_decay=0.0), grouping=PAIRS)
    optimizer = AdamW(hand.parameters(), lr=1e-2, weight_decay=0.0)
    for number in range(5):
        x, y = batch(number)
        step = updates.step(model.closure(x, y))
        for group in step.groups:
            optimizer.zero_grad()
            losses = hand.losses(x, y)
            torch.stack([losses[task] for task in group]).sum().backward()
            optimizer.step()
        assert sorted(step.groups) == [("a", "b"), ("c", "d")]
        assert step.passes == 2
    assert same(state_of(model), state_of(hand))


def test_heads_of_other_groups_do_not_move() -> None:
    model = Heads()
    optimizer = AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    updates = GroupedUpdates(TASKS, optimizer, grouping=[["a", "b"], ["c", "d"]])
    for number in range(3):  # Now there is momentum that could move them.
        updates.step(model.closure(*batch(number)))
    x, y = batch(9)
    seen: list[tuple[str, dict[str, torch.Tensor]]] = []

    def note() -> None:
        moving = "a" if model.heads["a"].weight.grad is not None else "c"
        seen.append((moving, state_of(model)))

    updates.before_step = note
    updates.step(model.closure(x, y))
    (first, start), (second, middle) = seen
    end = state_of(model)
    assert {first, second} == {"a", "c"}
    for task in ("a", "b") if first == "c" else ("c", "d"):
        assert torch.equal(start[f"heads.{task}.weight"], middle[f"heads.{task}.weight"])
    for task in ("a", "b") if second == "c" else ("c", "d"):
        assert torch.equal(middle[f"heads.{task}.weight"], end[f"heads.{task}.weight"])


def test_idle_heads_drift_as_in_the_released_code_where_asked() -> None:
    model = Heads()
    updates = GroupedUpdates(TASKS, Adam(model.parameters(), lr=1e-2), grouping=PAIRS, idle="drift", seed=1)
    updates.step(model.closure(*batch(0)))
    moved: list[bool] = []
    before = state_of(model)

    def note() -> None:
        now = state_of(model)
        if moved or not same(before, now):  # After the first group of the batch.
            moved.append(all(not torch.equal(before[f"heads.{t}.weight"], now[f"heads.{t}.weight"]) for t in TASKS))

    updates.before_step = note
    updates.step(model.closure(*batch(1)))
    assert moved == [True]


def test_one_group_trains_exactly_as_the_plain_sum() -> None:
    model, plain = Heads(middle=nn.Dropout(0.5)), Heads(middle=nn.Dropout(0.5))
    optimizer = AdamW(plain.parameters(), lr=1e-2, weight_decay=0.1)
    ours = AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    updates = GroupedUpdates(TASKS, ours, grouping="all", regroup_every=3)
    for number in range(4):
        torch.manual_seed(number)
        step = updates.step(model.closure(*batch(number)))
        torch.manual_seed(number)
        optimizer.zero_grad()
        torch.autograd.backward(list(plain.losses(*batch(number)).values()))
        optimizer.step()
        assert step.passes == (2 if number == 2 else 1)  # The second one without gradients, to measure.
    assert same(state_of(model), state_of(plain))


def test_one_group_costs_one_pass_where_nothing_is_measured() -> None:
    model = Heads()
    updates = GroupedUpdates(TASKS, SGD(model.parameters(), lr=0.1), grouping="all", measure=None)
    assert updates.step(model.closure(*batch())).passes == 1


@pytest.mark.parametrize("optimizer", [AdamW, Adam, SGD])
def test_weight_decay_acts_once_a_batch(optimizer: Any) -> None:
    """With gradients of zero what is left is decay: once for the trunk and once for every head."""
    model = Heads()
    before = state_of(model)
    options = {"foreach": False}
    updates = GroupedUpdates(TASKS, optimizer(model.parameters(), lr=0.1, weight_decay=0.5, **options), measure=None,
                             grouping="singletons")  # fmt: skip
    updates.step(lambda: {task: (loss * 0) for task, loss in model.losses(*batch()).items()})
    plain = copy.deepcopy(model)
    plain.load_state_dict(before)
    once = optimizer(plain.parameters(), lr=0.1, weight_decay=0.5, **options)
    torch.autograd.backward([loss * 0 for loss in plain.losses(*batch()).values()])
    once.step()
    if optimizer is Adam:  # Coupled decay enters the moments, which move the trunk in later steps too.
        for task in TASKS:
            assert torch.equal(model.heads[task].weight, plain.heads[task].weight)
        return
    assert all(torch.allclose(model.state_dict()[name], value) for name, value in plain.state_dict().items())


def test_weight_decay_in_every_step_where_asked() -> None:
    model = Heads()
    before = state_of(model)
    optimizer = AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    updates = GroupedUpdates(TASKS, optimizer, grouping="singletons", measure=None, weight_decay="group")
    updates.step(lambda: {task: (loss * 0) for task, loss in model.losses(*batch()).items()})
    torch.testing.assert_close(model.trunk[0].weight, before["trunk.0.weight"] * 0.95**4)
    torch.testing.assert_close(model.heads["a"].weight, before["heads.a.weight"] * 0.95)


def test_the_optimizers_own_weight_decay_is_as_before_after_a_step() -> None:
    model = Heads()
    optimizer = AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    GroupedUpdates(TASKS, optimizer, measure=None, grouping="singletons").step(model.closure(*batch()))
    assert optimizer.param_groups[0]["weight_decay"] == 0.5


def test_an_optimizer_whose_decay_is_unknown_is_refused_for_decay_once_a_batch() -> None:
    class Strange(torch.optim.Optimizer):
        def __init__(self, params: Any) -> None:
            super().__init__(params, {"lr": 0.1, "weight_decay": 0.1})

    with pytest.raises(ValueError, match="weight_decay='batch' does not know how Strange decays"):
        GroupedUpdates(TASKS, Strange(Heads().parameters()))


def test_a_scheduler_steps_once_a_batch() -> None:
    model = Heads()
    optimizer = SGD(model.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    updates = GroupedUpdates(TASKS, optimizer, grouping="singletons")
    for number in range(3):
        updates.step(model.closure(*batch(number)))
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.125


def test_running_statistics_move_once_a_batch() -> None:
    model, plain = Heads(middle=nn.BatchNorm1d(8)), Heads(middle=nn.BatchNorm1d(8))
    updates = GroupedUpdates(TASKS, SGD(model.parameters(), lr=0.0), grouping="singletons")
    for number in range(3):
        updates.step(model.closure(*batch(number)))
        plain.losses(*batch(number))
    assert same(dict(model.named_buffers()), dict(plain.named_buffers()))
    assert model.trunk[1].num_batches_tracked == 3


@pytest.mark.parametrize("given", [True, False])
def test_frozen_statistics_never_move(given: bool) -> None:
    model = Heads(middle=nn.BatchNorm1d(8))
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    updates = GroupedUpdates(TASKS, SGD(model.parameters(), lr=0.1), statistics="frozen", grouping="singletons",
                             model=model if given else None)  # fmt: skip
    for number in range(3):
        updates.step(model.closure(*batch(number)))
    assert same(before, dict(model.named_buffers()))


def test_statistics_move_with_every_group_where_asked() -> None:
    model = Heads(middle=nn.BatchNorm1d(8))
    GroupedUpdates(TASKS, SGD(model.parameters(), lr=0.1), statistics="group").step(model.closure(*batch()))
    assert model.trunk[1].num_batches_tracked == 4


def test_modules_keep_their_own_buffers() -> None:
    model = Heads(middle=nn.BatchNorm1d(8))
    held = model.trunk[1].running_mean
    GroupedUpdates(TASKS, SGD(model.parameters(), lr=0.1), model=model).step(model.closure(*batch()))
    assert model.trunk[1].running_mean is held


def test_a_step_that_moves_nothing_has_no_affinity_whatever_the_masks() -> None:
    model = Heads(middle=nn.Dropout(0.5))
    updates = GroupedUpdates(TASKS, SGD(model.parameters(), lr=0.0))
    for number in range(5):
        assert updates.step(model.closure(*batch(number))).measured
    assert updates.affinity.counts.sum() > 0
    assert not updates.affinity.matrix.any()


def test_without_replay_masks_look_like_affinity() -> None:
    model = Heads(middle=nn.Dropout(0.5))
    updates = GroupedUpdates(TASKS, SGD(model.parameters(), lr=0.0), replay=False)
    updates.step(model.closure(*batch()))
    assert updates.affinity.matrix.abs().max() > 0.01


@pytest.mark.parametrize("measure", ["losses", "jvp", "features"])
def test_measuring_does_not_change_training(measure: str) -> None:
    def trained(measure: str | None) -> dict[str, torch.Tensor]:
        model = Heads(middle=nn.Sequential(nn.BatchNorm1d(8), nn.Dropout(0.3)))
        updates = GroupedUpdates(TASKS, AdamW(model.parameters(), lr=1e-2), grouping=PAIRS, measure=measure)  # type: ignore[arg-type]

        def closure(number: int) -> Any:
            def run() -> Any:
                x, y = batch(number)
                z = model.trunk(x)
                losses = {t: (h(z)[:, 0] - y[:, k]).pow(2).mean() for k, (t, h) in enumerate(model.heads.items())}
                return losses, z

            return run

        torch.manual_seed(3)
        for number in range(4):
            assert updates.step(closure(number)).measured == (measure is not None)
        return state_of(model)

    assert same(trained(measure), trained(None))


def test_jvp_measures_the_real_displacement_of_every_group() -> None:
    """On quadratics in a short step both ways of measuring agree, and the last group is measured too."""
    torch.set_default_dtype(torch.float64)
    try:
        model = Heads()
        x, y = batch()
        updates = GroupedUpdates(TASKS, SGD(model.parameters(), lr=1e-4), grouping=PAIRS, measure="jvp", decay=0.5)
        start = state_of(model)
        step = updates.step(model.closure(x.double(), y.double()))
    finally:
        torch.set_default_dtype(torch.float32)
    assert (updates.affinity.counts > 0).all()
    hand = Heads().double()
    hand.load_state_dict(start)
    optimizer = SGD(hand.parameters(), lr=1e-4)
    for group in step.groups:
        before = hand.losses(x.double(), y.double())
        optimizer.zero_grad()
        torch.autograd.backward([before[task] for task in group])
        optimizer.step()
        after = hand.losses(x.double(), y.double())
        for source in group:
            for target in TASKS:
                rel = 1 - float(after[target].detach() / before[target].detach())
                found = float(updates.affinity.matrix[TASKS.index(source), TASKS.index(target)])
                assert found == pytest.approx(rel / 2, rel=5e-3, abs=1e-9)


def test_twenty_steps_are_ten_saved_and_ten_more() -> None:
    def fresh() -> tuple[Heads, AdamW, GroupedUpdates]:
        model = Heads(middle=nn.Sequential(nn.BatchNorm1d(8), nn.Dropout(0.3)))
        optimizer = AdamW(model.parameters(), lr=1e-2)
        updates = GroupedUpdates(TASKS, optimizer, method="fair-grad", shared=model.trunk, warmup=3, regroup_every=2,
                                 explore=0.3, decay=0.05, order="shuffle")  # fmt: skip
        return model, optimizer, updates

    def run(parts: tuple[Heads, AdamW, GroupedUpdates], numbers: range) -> list[Any]:
        model, _, updates = parts
        found = []
        for number in numbers:
            torch.manual_seed(number)
            found.append(updates.step(model.closure(*batch(number))).groups)
        return found

    whole = fresh()
    order = run(whole, range(20))
    half = fresh()
    first = run(half, range(10))
    states = [copy.deepcopy(part.state_dict()) for part in half]
    later = fresh()
    run(later, range(30, 33))  # What is loaded replaces what was there.
    for part, state in zip(later, states, strict=True):
        part.load_state_dict(state)
    assert first + run(later, range(10, 20)) == order
    assert same(state_of(whole[0]), state_of(later[0]))
    assert torch.equal(whole[2].affinity.matrix, later[2].affinity.matrix)
    assert len({tuple(sorted(groups)) for groups in order}) > 1


def test_absent_tasks_keep_head_and_affinity() -> None:
    model = Heads()
    updates = GroupedUpdates(TASKS, AdamW(model.parameters(), lr=1e-2), grouping=[["a"], ["b", "c"], ["d"]])
    for number in range(3):
        updates.step(model.closure(*batch(number)))
    head, counts = state_of(model.heads["a"]), updates.affinity.counts.clone()
    step = updates.step(lambda: {**model.losses(*batch(9)), "a": None, "b": None})
    assert sorted(step.groups) == [("c",), ("d",)]
    assert step.losses.tasks == ("c", "d")
    assert step.passes == 2
    assert same(head, state_of(model.heads["a"]))
    assert torch.equal(counts[0], updates.affinity.counts[0])
    assert torch.equal(counts[:, 0], updates.affinity.counts[:, 0])


def test_a_batch_without_any_task_moves_nothing() -> None:
    model = Heads()
    updates = GroupedUpdates(TASKS, AdamW(model.parameters(), lr=1e-2))
    updates.step(model.closure(*batch()))
    before = state_of(model)
    step = updates.step(lambda: dict.fromkeys(TASKS))
    assert step.groups == ()
    assert not step.measured
    assert same(before, state_of(model))


def test_a_loss_that_is_not_finite_stops_the_batch_before_anything_moves() -> None:
    model = Heads()
    updates = GroupedUpdates(TASKS, AdamW(model.parameters(), lr=1e-2))
    before = state_of(model)

    def closure() -> dict[str, torch.Tensor]:
        losses = model.losses(*batch())
        return losses | {"c": losses["c"] * torch.nan}

    with pytest.raises(NonFiniteError, match="'c' is not finite; nothing was updated") as error:
        updates.step(closure)
    assert error.value.tasks == ("c",)
    assert same(before, state_of(model))
    assert updates.batches == 0


def test_a_loss_that_is_not_finite_is_skipped_where_asked() -> None:
    model = Heads()
    updates = GroupedUpdates(TASKS, AdamW(model.parameters(), lr=1e-2), nonfinite="skip", grouping=PAIRS)
    head = state_of(model.heads["c"])
    for number in range(3):
        step = updates.step(lambda n=number: (losses := model.losses(*batch(n))) | {"c": losses["c"] * torch.inf})
        assert step.skipped == ("c",)
        assert sorted(step.groups) == [("a", "b"), ("d",)]
    assert same(head, state_of(model.heads["c"]))
    assert all(p.isfinite().all() for p in model.parameters())
    assert updates.affinity.matrix.isfinite().all()
    assert not updates.affinity.counts[:, 2].any()


def test_negative_losses_have_affinity() -> None:
    model = Heads()
    updates = GroupedUpdates(TASKS, SGD(model.parameters(), lr=0.01))
    for number in range(5):
        updates.step(lambda n=number: {task: loss - 100 for task, loss in model.losses(*batch(n)).items()})
    assert (updates.affinity.matrix.diagonal() > 0).all()


@pytest.mark.parametrize("count", [1, 2])
def test_few_tasks(count: int) -> None:
    tasks = TASKS[:count]
    model = Heads(tasks)
    updates = GroupedUpdates(tasks, SGD(model.parameters(), lr=0.05), warmup=3, regroup_every=1)
    for number in range(8):
        step = updates.step(model.closure(*batch(number)))
        assert sorted(task for group in step.groups for task in group) == list(tasks)
    assert updates.affinity.matrix.shape == (count, count)


def test_methods_combine_the_tasks_of_a_group() -> None:
    model, hand = Heads(), Heads()
    updates = GroupedUpdates(TASKS, SGD(model.parameters(), lr=0.1), method="mgda", shared=model.trunk, grouping=PAIRS)
    step = updates.step(model.closure(*batch()))
    optimizer = SGD(hand.parameters(), lr=0.1)
    balancer = motet.Balancer("mgda")
    for group, update in zip(step.groups, step.updates, strict=True):
        optimizer.zero_grad()
        losses = hand.losses(*batch())
        expected = balancer.backward({task: losses[task] for task in group}, shared=hand.trunk)
        optimizer.step()
        assert update.tasks == group
        torch.testing.assert_close(update.weights, expected.weights)
    for a, b in zip(model.parameters(), hand.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_methods_that_learn_from_the_step_are_told_of_every_group() -> None:
    model = Heads()
    method = motet.methods.FAMO()
    updates = GroupedUpdates(TASKS, SGD(model.parameters(), lr=0.1), method=method, grouping=PAIRS, measure=None)
    before = copy.deepcopy(method.state_dict())
    step = updates.step(model.closure(*batch()))
    assert step.passes == 3
    after = method.state_dict()
    changed = [name for name, value in after.items() if name not in before or not torch.equal(value, before[name])]
    assert changed


def test_micro_batches_give_the_gradient_of_the_whole_batch() -> None:
    whole, parts = Heads(), Heads()
    options: dict[str, Any] = {"grouping": PAIRS, "seed": 4, "decay": 0.1}
    one = GroupedUpdates(TASKS, SGD(whole.parameters(), lr=0.1), **options)
    two = GroupedUpdates(TASKS, SGD(parts.parameters(), lr=0.1), **options)
    for number in range(3):
        x, y = batch(number)
        first = one.step(whole.closure(x, y))
        second = two.step([parts.closure(x[:8], y[:8]), parts.closure(x[8:], y[8:])])
        assert (first.groups, first.passes) == (second.groups, second.passes)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(one.affinity.matrix, two.affinity.matrix, rtol=1e-4, atol=1e-6)


def test_one_closure_may_stand_for_several_micro_batches() -> None:
    model, numbers = Heads(), iter(range(8))
    updates = GroupedUpdates(TASKS, SGD(model.parameters(), lr=0.1), grouping=PAIRS)
    step = updates.step([lambda: model.losses(*batch(next(numbers) % 2))] * 2)
    assert step.passes == 2
    assert len(step.groups) == 2


def test_a_scaler_changes_nothing_where_nothing_overflows() -> None:
    plain, scaled = Heads(), Heads()
    one = GroupedUpdates(TASKS, AdamW(plain.parameters(), lr=1e-2), grouping=PAIRS)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    two = GroupedUpdates(TASKS, AdamW(scaled.parameters(), lr=1e-2), grouping=PAIRS, scaler=scaler)
    for number in range(3):
        one.step(plain.closure(*batch(number)))
        two.step(scaled.closure(*batch(number)))
    for a, b in zip(plain.parameters(), scaled.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_step_that_the_scaler_refuses_is_not_measured() -> None:
    model = Heads()
    scaler = torch.amp.GradScaler("cpu", init_scale=1e38, growth_interval=10_000)
    updates = GroupedUpdates(TASKS, AdamW(model.parameters(), lr=1e-2, weight_decay=0), grouping=PAIRS, scaler=scaler)
    before = state_of(model)
    step = updates.step(lambda: {task: 1e3 * loss for task, loss in model.losses(*batch()).items()})
    assert same(before, state_of(model))
    assert not step.measured
    assert not updates.affinity.counts.any()


def test_gradients_can_be_clipped_before_each_step() -> None:
    model = Heads()
    norms = []

    def clip() -> None:
        norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), 1e-3)))

    before = state_of(model)
    updates = GroupedUpdates(TASKS, SGD(model.parameters(), lr=1.0), grouping=PAIRS, before_step=clip)
    updates.step(model.closure(*batch()))
    assert len(norms) == 2
    assert min(norms) > 1e-3
    moved = torch.cat([(p - before[name]).flatten() for name, p in model.named_parameters()]).norm()
    assert moved <= 2.1e-3


def test_several_optimizers_step_together() -> None:
    model, plain = Heads(), Heads()
    both = [SGD(model.trunk.parameters(), lr=0.1), AdamW(model.heads.parameters(), lr=1e-2)]
    updates = GroupedUpdates(TASKS, both, grouping="all", measure=None)
    optimizers = [SGD(plain.trunk.parameters(), lr=0.1), AdamW(plain.heads.parameters(), lr=1e-2)]
    updates.step(model.closure(*batch()))
    torch.autograd.backward(list(plain.losses(*batch()).values()))
    for optimizer in optimizers:
        optimizer.step()
    assert same(state_of(model), state_of(plain))


def test_harmful_groups_come_first_in_the_order_of_theorem_5() -> None:
    model = Heads()
    updates = GroupedUpdates(TASKS, SGD(model.parameters(), lr=0.1), grouping=PAIRS, order="theorem-5", decay=0.5)
    hurt = {"a": 1.0, "b": 1.0, "c": 1.5, "d": 1.5}  # a and b hurt c and d.
    updates.affinity.update(["a", "b"], dict.fromkeys(TASKS, 1.0), hurt)
    assert updates.step(model.closure(*batch())).groups[0] == ("a", "b")


def test_every_group_is_measured_in_a_fixed_order() -> None:
    model = Heads()
    updates = GroupedUpdates(TASKS, SGD(model.parameters(), lr=0.1), grouping=PAIRS, order="theorem-5")
    step = updates.step(model.closure(*batch()))
    assert step.passes == 3
    assert (updates.affinity.counts.diagonal() > 0).all()


def test_measuring_and_regrouping_happen_every_so_many_batches() -> None:
    model = Heads()
    optimizer = SGD(model.parameters(), lr=0.1)
    updates = GroupedUpdates(
        TASKS, optimizer, grouping="random", max_groups=2, warmup=2, regroup_every=3, measure_every=2
    )
    steps = [updates.step(model.closure(*batch(number))) for number in range(9)]
    assert [step.regrouped for step in steps] == [False, False, True, False, False, True, False, False, True]
    assert [step.measured for step in steps] == [True, False, True, False, True, False, True, False, True]


def test_the_released_preset_runs_a_single_group_twice() -> None:
    model = Heads(("a",))
    updates = GroupedUpdates.released(("a",), Adam(model.parameters(), lr=1e-3))
    assert updates.step(model.closure(*batch())).groups == (("a",), ("a",))


def test_memory_of_the_map_does_not_grow_with_steps() -> None:
    model = Heads()
    updates = GroupedUpdates(TASKS, SGD(model.parameters(), lr=0.01), estimator="regression")

    def size() -> int:
        def count(value: Any) -> int:
            if isinstance(value, torch.Tensor):
                return value.numel()
            if isinstance(value, dict):
                return sum(map(count, value.values()))
            return sum(map(count, value)) if isinstance(value, list | tuple) else 1

        return count(updates.state_dict())

    updates.step(model.closure(*batch()))
    before = size()
    for number in range(30):
        updates.step(model.closure(*batch(number)))
    assert size() <= before + 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measure": "loss"}, "measure must be 'losses' or 'jvp'"),
        ({"order": "random"}, "order must be 'shuffle' or 'theorem-5'"),
        ({"weight_decay": 0.1}, "weight_decay must be 'batch' or 'group'"),
        ({"warmup": -1}, "warmup must be a whole number of batches of at least 0"),
        ({"regroup_every": 0}, "regroup_every must be"),
        ({"explore": 2}, "explore is a share"),
        ({"grouping": "correlations"}, "correlation"),
        ({"grouping": [["a", "b"], ["c"]]}, "d"),
        ({"grouping": [["a", "x"]]}, "names the task 'x'"),
        ({"grouping": "correlation", "measure": None}, "by affinity"),
        ({"measure": "jvp", "attribution": "released"}, "measure='losses'"),
        ({"measure": "features", "estimator": "regression"}, "estimator='pairwise'"),
        ({"method": "fair-gard"}, "fair-grad"),
        ({"method": "mo-do"}, "second batch"),
        ({"decay": 0}, "decay"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        GroupedUpdates(TASKS, SGD(Heads().parameters(), lr=0.1), **options)


@pytest.mark.parametrize(
    ("closure", "error", "message"),
    [
        (lambda: None, TypeError, "returned None"),
        (lambda: {"a": 1.0}, TypeError, "must be a tensor"),
        (lambda: {"depth": torch.ones((), requires_grad=True)}, ValueError, "no task 'depth'"),
        (lambda: {"a": torch.ones(())}, ValueError, "no loss depends on any parameter"),
        (dict, ValueError, "empty"),
        (lambda: {"a": torch.ones(3, requires_grad=True)}, ValueError, "shape"),
        ([], TypeError, "takes a function"),
        ({"a": torch.ones(())}, TypeError, "takes a function"),
    ],
)
def test_closures_that_give_something_else_are_refused(closure: Any, error: type[Exception], message: str) -> None:
    updates = GroupedUpdates(TASKS, SGD(Heads().parameters(), lr=0.1))
    with pytest.raises(error, match=message):
        updates.step(closure)
    assert updates.batches == 0


@pytest.mark.parametrize("optimizer", [None, "adam", [], [1], nn.Linear(1, 1)])
def test_what_is_no_optimizer_is_refused(optimizer: Any) -> None:
    with pytest.raises(TypeError, match=r"optimizer must be a torch\.optim\.Optimizer"):
        GroupedUpdates(TASKS, optimizer)


def test_a_state_of_other_tasks_is_refused_and_changes_nothing() -> None:
    other = GroupedUpdates(("x", "y"), SGD(Heads(("x", "y")).parameters(), lr=0.1)).state_dict()
    updates = GroupedUpdates(TASKS, SGD(Heads().parameters(), lr=0.1))
    with pytest.raises(ValueError, match="of the tasks"):
        updates.load_state_dict(other)
    with pytest.raises(ValueError, match="lacks affinity"):
        updates.load_state_dict({"tasks": list(TASKS), "schedule": {}, "balancer": None})
    assert updates.batches == 0
