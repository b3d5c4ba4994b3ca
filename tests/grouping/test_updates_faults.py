"""Group updates among the things that training loops do: each was once silently wrong."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW
from torch.utils.checkpoint import checkpoint

from motet import GroupedUpdates
from tests.grouping.models import TASKS, Heads, batch


class Counter(nn.Module):
    """Counts its passes in a buffer that is replaced and not changed in place."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.passes = self.passes + 1
        return x


def test_autocast_around_the_step_sees_the_new_weights() -> None:
    model = Heads()
    updates = GroupedUpdates(TASKS, SGD(model.parameters(), lr=0.1))
    with torch.autocast("cpu", torch.bfloat16):
        updates.step(model.closure(*batch()))
    assert updates.affinity.matrix.diagonal().count_nonzero() == 3  # All groups but the last.


def test_a_step_under_no_grad_trains_all_the_same() -> None:
    model = Heads()
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        step = GroupedUpdates(TASKS, SGD(model.parameters(), lr=0.1)).step(model.closure(*batch()))
    assert len(step.groups) == 4
    assert not torch.equal(before["trunk.0.weight"], model.trunk[0].weight)


@pytest.mark.parametrize("optimizer", [AdamW, SGD])
def test_a_step_that_the_scaler_leaves_out_decays_nothing(optimizer: Any) -> None:
    model = Heads()
    scaler = torch.amp.GradScaler("cpu", init_scale=1e38)
    updates = GroupedUpdates(TASKS, optimizer(model.parameters(), lr=0.1, weight_decay=0.5), scaler=scaler)
    before = copy.deepcopy(model.state_dict())
    updates.step(lambda: {task: 1e3 * loss for task, loss in model.losses(*batch()).items()})
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_gradients_are_unscaled_before_they_are_clipped() -> None:
    model, norms = Heads(), []
    plain = Heads()
    torch.stack(list(plain.losses(*batch()).values())).sum().backward()
    expected = nn.utils.get_total_norm([p.grad for p in plain.parameters() if p.grad is not None])

    def clip() -> None:
        norms.append(nn.utils.clip_grad_norm_(model.parameters(), 1.0))

    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    updates = GroupedUpdates(TASKS, SGD(model.parameters(), lr=0.1), grouping="all", scaler=scaler, before_step=clip)
    updates.step(model.closure(*batch()))
    torch.testing.assert_close(norms[0], expected)


@pytest.mark.parametrize("statistics", ["once", "frozen"])
@pytest.mark.parametrize("given", [True, False])
def test_buffers_that_are_replaced_are_guarded_too(statistics: Any, given: bool) -> None:
    model = Heads(middle=Counter())
    updates = GroupedUpdates(
        TASKS, SGD(model.parameters(), lr=0.1), statistics=statistics, model=model if given else None
    )
    for number in range(3):
        updates.step(model.closure(*batch(number)))
    assert float(model.trunk[1].passes) == (3 if statistics == "once" else 0)


def test_modules_that_are_first_called_in_a_later_batch_are_guarded() -> None:
    model = Heads()
    model.heads["c"] = nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 1))
    updates = GroupedUpdates(TASKS, SGD(model.parameters(), lr=0.1))

    def closure(with_c: bool) -> Any:
        def run() -> dict[str, torch.Tensor | None]:
            x, y = batch()
            z = model.trunk(x)
            return {
                task: None if task == "c" and not with_c else (head(z)[:, 0] - y[:, k]).pow(2).mean()
                for k, (task, head) in enumerate(model.heads.items())
            }

        return run

    updates.step(closure(False))
    for _ in range(2):
        updates.step(closure(True))
    assert int(model.heads["c"][0].num_batches_tracked) == 2


def test_micro_batches_have_masks_and_statistics_of_their_own() -> None:
    drawn: list[float] = []
    model = Heads(middle=nn.BatchNorm1d(8))
    updates = GroupedUpdates(TASKS, SGD(model.parameters(), lr=0.0), grouping=[["a", "b"], ["c", "d"]])

    def closure(number: int) -> Any:
        def run() -> dict[str, torch.Tensor]:
            drawn.append(float(torch.rand(())))
            return model.losses(*batch(number))

        return run

    updates.step([closure(0), closure(1)])
    assert drawn[0] != drawn[1]
    assert drawn[:2] == drawn[2:]
    assert int(model.trunk[1].num_batches_tracked) == 2


def test_numpy_and_python_draw_the_same_in_every_pass() -> None:
    import random

    model = Heads()
    drawn: list[tuple[float, float]] = []

    def closure() -> dict[str, torch.Tensor]:
        drawn.append((random.random(), float(np.random.random())))  # noqa: NPY002 - what closures do
        return model.losses(*batch())

    updates = GroupedUpdates(TASKS, SGD(model.parameters(), lr=0.1))
    updates.step(closure)
    updates.step(closure)
    assert len(set(drawn[:4])) == len(set(drawn[4:])) == 1
    assert drawn[0] != drawn[4]


def test_checkpointed_modules_move_their_statistics_as_in_a_plain_step() -> None:
    def trained(groups: int) -> int:
        model = Heads(middle=nn.BatchNorm1d(8))

        def closure() -> dict[str, torch.Tensor]:
            x, y = batch()
            z = checkpoint(model.trunk, x, use_reentrant=False)
            return {t: (h(z)[:, 0] - y[:, k]).pow(2).mean() for k, (t, h) in enumerate(model.heads.items())}

        grouping = "all" if groups == 1 else "singletons"
        GroupedUpdates(TASKS, SGD(model.parameters(), lr=0.1), grouping=grouping, measure=None).step(closure)
        return int(model.trunk[1].num_batches_tracked)

    assert trained(4) == trained(1) == 2


def test_measuring_leaves_statistics_alone_that_move_with_every_group() -> None:
    model = Heads(middle=nn.BatchNorm1d(8))
    options: dict[str, Any] = {"grouping": "all", "statistics": "group", "regroup_every": 1}
    updates = GroupedUpdates(TASKS, SGD(model.parameters(), lr=0.1), **options)
    assert updates.step(model.closure(*batch())).passes == 2
    assert int(model.trunk[1].num_batches_tracked) == 1


def test_a_copy_of_model_and_updates_guards_the_copy() -> None:
    model = Heads(middle=nn.BatchNorm1d(8))
    updates = GroupedUpdates(TASKS, SGD(model.parameters(), lr=0.1))
    updates.step(model.closure(*batch()))
    twin, copied = copy.deepcopy((model, updates))
    copied.step(twin.closure(*batch()))
    assert int(twin.trunk[1].num_batches_tracked) == 2
    assert int(model.trunk[1].num_batches_tracked) == 1


def test_a_compiled_model_is_guarded() -> None:
    model = Heads(middle=nn.BatchNorm1d(8))
    compiled = torch.compile(model.trunk, backend="eager")

    def closure() -> dict[str, torch.Tensor]:
        x, y = batch()
        z = compiled(x)
        return {t: (h(z)[:, 0] - y[:, k]).pow(2).mean() for k, (t, h) in enumerate(model.heads.items())}

    updates = GroupedUpdates(TASKS, SGD(model.parameters(), lr=0.1), model=model)
    for _ in range(2):
        updates.step(closure)
    assert int(model.trunk[1].num_batches_tracked) == 2
    torch.compiler.reset()


def test_a_state_of_another_grouping_is_refused_and_nothing_is_changed() -> None:
    learned = GroupedUpdates(TASKS, SGD(Heads().parameters(), lr=0.1))
    fixed = GroupedUpdates(TASKS, SGD(Heads().parameters(), lr=0.1), grouping=[["a", "b"], ["c", "d"]])
    with pytest.raises(ValueError, match="grouping='correlation'"):
        fixed.load_state_dict(learned.state_dict())
    assert fixed.partition == (("a", "b"), ("c", "d"))
    broken = learned.state_dict()
    broken["schedule"]["partition"] = [[0], [1, 2]]
    with pytest.raises(ValueError, match="each task exactly once"):
        learned.load_state_dict(broken)


def test_a_state_whose_affinity_does_not_fit_leaves_the_method_as_it_was() -> None:
    def fresh(decay: float) -> tuple[Heads, GroupedUpdates]:
        model = Heads()
        optimizer = SGD(model.parameters(), lr=0.1)
        return model, GroupedUpdates(TASKS, optimizer, method="famo", decay=decay, shared=model.trunk)

    model, updates = fresh(0.1)
    updates.step(model.closure(*batch()))
    _, other = fresh(0.2)
    before = copy.deepcopy(other.state_dict()["balancer"])
    with pytest.raises(ValueError, match="decay"):
        other.load_state_dict(updates.state_dict())
    assert str(other.state_dict()["balancer"]) == str(before)


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
def test_an_interrupted_batch_does_not_count(error: type[BaseException]) -> None:
    model = Heads()
    updates = GroupedUpdates(TASKS, SGD(model.parameters(), lr=0.1))
    updates.step(model.closure(*batch()))
    state = updates.state_dict()["schedule"]

    def closure() -> Any:
        raise error("stop")

    with pytest.raises(error):
        updates.step(closure)
    again = updates.state_dict()["schedule"]
    assert again["batches"] == state["batches"] == 1
    assert torch.equal(again["generator"], state["generator"])


def test_features_are_not_measured_at_a_learning_rate_of_zero() -> None:
    model = Heads()

    def closure() -> Any:
        x, y = batch()
        z = model.trunk(x)
        return {t: (h(z)[:, 0] - y[:, k]).pow(2).mean() for k, (t, h) in enumerate(model.heads.items())}, [z]

    optimizer = SGD(model.parameters(), lr=0.0)
    updates = GroupedUpdates(TASKS, optimizer, measure="features")
    assert not updates.step(closure).measured
    optimizer.param_groups[0]["lr"] = 0.1
    assert updates.step(closure).measured


def test_max_groups_bounds_every_batch() -> None:
    model = Heads()
    updates = GroupedUpdates(
        TASKS, SGD(model.parameters(), lr=0.1), max_groups=2, warmup=4, explore=0.5, estimator="regression"
    )
    steps = [updates.step(model.closure(*batch(number))) for number in range(12)]
    assert max(len(step.groups) for step in steps) == 2
    assert len({tuple(sorted(step.groups)) for step in steps[:4]}) > 1


def test_exploring_parts_tasks_that_are_all_together() -> None:
    model = Heads()
    options: dict[str, Any] = {"warmup": 0, "explore": 1.0, "significance": 0.0}
    updates = GroupedUpdates(TASKS, SGD(model.parameters(), lr=0.1), **options)
    updates.affinity.update_pairs(torch.ones(4, 4, dtype=torch.float64))
    sizes = {len(updates.step(model.closure(*batch(number))).groups) for number in range(12)}
    assert updates.partition == (TASKS,)
    assert 2 in sizes


def test_a_closure_that_calls_backward_is_told_so() -> None:
    model = Heads()

    def closure() -> dict[str, torch.Tensor]:
        losses = model.losses(*batch())
        torch.stack(list(losses.values())).sum().backward(retain_graph=True)
        return losses

    with pytest.raises(ValueError, match="the closure has called backward"):
        GroupedUpdates(TASKS, SGD(model.parameters(), lr=0.1)).step(closure)


def test_optimizers_that_evaluate_by_themselves_are_refused() -> None:
    with pytest.raises(TypeError, match="LBFGS"):
        GroupedUpdates(TASKS, torch.optim.LBFGS(Heads().parameters()))


def test_options_of_another_grouping_are_refused() -> None:
    with pytest.raises(ValueError, match="significance and hysteresis are of grouping='correlation'"):
        GroupedUpdates(TASKS, SGD(Heads().parameters(), lr=0.1), grouping="all", significance=2.0)


def test_half_way_derivatives_are_exact_on_quadratics() -> None:
    """The effect of a long step on a quadratic loss, which gradients at either end would miss."""
    theta = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    curve = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)

    def closure() -> dict[str, torch.Tensor]:
        return {"a": theta @ curve @ theta + 1, "b": (theta - 1).pow(2).sum()}

    before = {task: float(loss.detach()) for task, loss in closure().items()}
    updates = GroupedUpdates(["a", "b"], SGD([theta], lr=0.2), grouping="all", measure="jvp", decay=0.5)
    updates.step(closure)
    after = {task: float(loss.detach()) for task, loss in closure().items()}
    share = {task: (1 - after[task] / before[task]) / 2 for task in before}
    assert float(updates.affinity.matrix[0, 0]) == pytest.approx(share["a"], rel=1e-12)
    assert share["a"] > 0
    assert share["b"] > 0
    assert float(updates.affinity.matrix[0, 1]) == pytest.approx(share["b"], rel=1e-12)
