"""The affinity map against its definition, an independent simulation of the rules, and what callers get wrong."""

import copy
import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from motet.grouping import Affinity

TASKS = ("depth", "edges", "normals", "parts", "saliency", "semseg")
KINDS = [("paper", "pairwise"), ("released", "pairwise"), ("paper", "regression")]
BETA = 0.01


def named(values):
    return {task: (None if math.isnan(value) else value) for task, value in zip(TASKS, values, strict=False)}


def batches(count, seed, absent=0.0, low=0.2):
    """Random partitions and the losses before, between and after their updates, as lists of plain floats."""
    rng = random.Random(seed)
    for _ in range(count):
        labels = [rng.randrange(rng.randint(1, 6)) for _ in TASKS]
        groups = [[k for k in range(6) if labels[k] == label] for label in dict.fromkeys(labels)]
        rng.shuffle(groups)
        gone = [rng.random() < absent for _ in TASKS]
        losses = [[math.nan if gone[k] else rng.uniform(low, 1.0) for k in range(6)] for _ in range(len(groups) + 1)]
        yield groups, losses


def measure(affinity, data):
    for groups, losses in data:
        for group, before, after in zip(groups, losses, losses[1:], strict=False):
            affinity.update([TASKS[k] for k in group], named(before), named(after))
    return affinity


class Simulated:
    """The rules of the paper, pair by pair in plain Python."""

    def __init__(self, tasks):
        self.matrix = [[0.0] * tasks for _ in range(tasks)]
        self.counts = [[0] * tasks for _ in range(tasks)]

    def update(self, group, prev, now):
        share = [(1 - now[t] / prev[t]) / len(group) if prev[t] > 0 else None for t in range(len(prev))]
        for s in group:
            for t in range(len(prev)):
                if prev[t] <= 0 or (t in group and prev[s] <= 0):
                    continue
                if t not in group:
                    value = share[t]
                elif t == s:
                    if share[t] < 0:
                        continue
                    value = share[t]
                elif share[t] * share[s] >= 0:
                    value = share[t]
                else:
                    value = -max(share[t], share[s])
                self.matrix[s][t] = (1 - BETA) * self.matrix[s][t] + BETA * value
                self.counts[s][t] += 1


@pytest.mark.parametrize("low", [0.2, -0.3])
@pytest.mark.parametrize("named_following", [True, False])
def test_released_attribution_follows_a_line_by_line_simulation(low, named_following):
    affinity, simulated = Affinity(TASKS, BETA, attribution="released"), Simulated(6)
    for groups, losses in batches(200, seed=0, low=low):
        order = groups * 2 if len(groups) == 1 else groups
        forwards = [*losses, losses[0]][: len(order)]
        prev = None
        for now, group in zip(forwards, order, strict=True):
            if prev is not None:
                simulated.update(group, prev, now)
            prev = now
        for m, group in enumerate(order):
            if m + 1 < len(order):
                following = [TASKS[k] for k in order[m + 1]] if named_following else None
                before, after = named(forwards[m]), named(forwards[m + 1])
                affinity.update([TASKS[k] for k in group], before, after, following=following)
            elif not named_following:  # What the last group did waits, and the next batch lets it go.
                affinity.update([TASKS[k] for k in group], named(forwards[m]), named(losses[-1]))
    assert_close(affinity.matrix, torch.tensor(simulated.matrix, dtype=torch.float64), rtol=0, atol=1e-12)
    assert affinity.counts.tolist() == simulated.counts


def test_paper_attribution_is_the_same_rule_on_the_group_itself_without_the_zero_start():
    affinity, simulated = Affinity(TASKS, BETA), Simulated(6)
    data = list(batches(200, seed=1, low=0.5))  # A loss can't more than double, so that nothing is clipped.
    measure(affinity, data)
    for groups, losses in data:
        for group, prev, now in zip(groups, losses, losses[1:], strict=False):
            simulated.update(group, prev, now)
    counts = torch.tensor(simulated.counts)
    expected = torch.tensor(simulated.matrix, dtype=torch.float64) / (1 - (1 - BETA) ** counts.double())
    assert_close(affinity.matrix, expected, rtol=0, atol=1e-12)
    assert_close(affinity.counts, counts)
    assert affinity.updates == sum(len(groups) for groups, _ in data)


def test_one_task_s_row_is_the_definition_on_quadratics():
    # L_k = ½ (θ-c_k)ᵀ H_k (θ-c_k) + ½ (h_k - 1)² + 1, so L - L' = η g_k·g_i - ½ η² g_iᵀ H_k g_i and the head's part.
    generator = torch.Generator().manual_seed(0)
    theta, centres = torch.randn(5, generator=generator).double(), torch.randn(4, 5, generator=generator).double()
    roots = torch.randn(4, 5, 5, generator=generator).double()
    hessians, heads, lr = roots @ roots.mT, torch.zeros(4).double(), 0.01

    def losses(theta, heads):
        apart = theta - centres
        return 0.5 * torch.einsum("ki,kij,kj->k", apart, hessians, apart) + 0.5 * (heads - 1) ** 2 + 1

    gradients = torch.einsum("kij,kj->ki", hessians, theta - centres)
    before, affinity = losses(theta, heads), Affinity(TASKS[:4])
    for task in range(4):
        moved = torch.where(torch.arange(4) == task, heads - lr * (heads - 1), heads)
        after = losses(theta - lr * gradients[task], moved)
        affinity.update([TASKS[task]], named(before.tolist()), named(after.tolist()))
    gain = lr * gradients @ gradients.T
    gain -= lr**2 / 2 * torch.einsum("si,kij,sj->sk", gradients, hessians, gradients)
    gain += torch.eye(4) * (0.5 - 0.5 * (1 - lr) ** 2)
    measured = gain / before
    assert (measured.diagonal() > 0).all()
    assert_close(affinity.matrix, measured)


@given(st.lists(st.floats(1e-6, 1e6), min_size=6, max_size=6))
@pytest.mark.parametrize(("attribution", "estimator"), KINDS)
def test_losses_times_positive_factors_leave_the_map(attribution, estimator, factors):
    data = list(batches(20, seed=2, absent=0.1))
    scaled = [
        (groups, [[c * value for c, value in zip(factors, row, strict=True)] for row in rows]) for groups, rows in data
    ]
    ours, theirs = (measure(Affinity(TASKS, BETA, attribution, estimator), d) for d in (scaled, data))
    assert_close(ours.matrix, theirs.matrix, rtol=1e-6, atol=1e-9)
    assert_close(ours.counts, theirs.counts)


@given(st.permutations(range(6)))
@pytest.mark.parametrize(("attribution", "estimator"), KINDS)
def test_permuting_the_tasks_permutes_the_map(attribution, estimator, order):
    data = list(batches(20, seed=3, absent=0.1))
    theirs = measure(Affinity(TASKS, BETA, attribution, estimator), data)
    ours = measure(Affinity([TASKS[k] for k in order], BETA, attribution, estimator), data)
    for name in ("matrix", "counts", "standard_errors"):
        assert_close(getattr(ours, name), getattr(theirs, name)[order][:, order])


def test_negative_and_zero_losses_improve_by_falling():
    affinity = Affinity(["likelihood", "distance"])
    affinity.update(["likelihood"], {"likelihood": -2.0, "distance": 1.0}, {"likelihood": -2.5, "distance": 1.0})
    assert_close(affinity.matrix[0], torch.tensor([0.25, 0.0]).double())
    # From zero, a fall by 0.01 is measured against a tenth of the mean size: (2 + 0)/2 / 10.
    before, after = {"likelihood": 0.0, "distance": 1.0}, {"likelihood": -0.01, "distance": 1.0}
    affinity.update(["distance"], before, after)
    assert_close(affinity.matrix[1], torch.tensor([0.1, 0.0]).double())


def test_a_loss_near_zero_gives_no_huge_ratio_and_none_at_all_without_a_scale():
    affinity = Affinity(["a"])
    affinity.update(["a"], {"a": 0.0}, {"a": 0.5})
    assert affinity.updates == 0
    affinity.update(["a"], {"a": 1.0}, {"a": 1.0})
    assert affinity.relative({"a": 1e-12}, {"a": 1e9}).tolist() == [-1.0]
    assert affinity.relative({"a": 1e9}, {"a": 1e-12}).tolist() == [1.0]


def test_relative_takes_vectors_as_well_and_changes_nothing():
    affinity = Affinity(["a", "b"])
    state = affinity.state_dict()
    values = affinity.relative(torch.tensor([2.0, math.nan]), torch.tensor([1.0, 1.0]))
    assert_close(values, torch.tensor([0.5, math.nan]).double(), equal_nan=True)
    assert_close(affinity.state_dict()["level"], state["level"])
    with pytest.raises(TypeError, match="both dicts or both vectors"):
        affinity.relative({"a": 1.0}, torch.tensor([1.0, 1.0]))


@pytest.mark.parametrize(("attribution", "estimator"), KINDS)
@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_an_absent_or_infinite_loss_changes_nothing_of_its_task(attribution, estimator, value):
    affinity = Affinity(["a", "b", "c"], 0.1, attribution, estimator)
    for group in (["a"], ["b"], ["c"], ["a", "c"]):
        affinity.update(group, dict.fromkeys("abc", 1.0), {"a": 0.9, "b": 0.8, "c": 0.7}, following=group)
    matrix, counts = affinity.matrix, affinity.counts
    before, after = {"a": 1.0, "b": 1.0, "c": value}, {"a": 0.5, "b": 0.5, "c": value}
    affinity.update(["a", "c"], before, after, following=["a", "c"])
    if estimator == "pairwise":  # Least squares may learn from a alone what c has done in a group with it.
        assert_close(affinity.matrix[2], matrix[2])
    assert_close(affinity.matrix[:, 2], matrix[:, 2])
    assert_close(affinity.counts[2], counts[2])
    assert_close(affinity.counts[:, 2], counts[:, 2])
    assert affinity.counts[0, 1] == counts[0, 1] + 1
    # The absent one takes no share: all of the effect is a's.
    alone = Affinity(["a", "b"], 0.1, attribution, estimator)
    alone.update(["a"], {"a": 1.0, "b": 1.0}, {"a": 0.5, "b": 0.5}, following=["a"])
    mixed = Affinity(["a", "b", "c"], 0.1, attribution, estimator)
    mixed.update(["a", "c"], before, after, following=["a", "c"])
    assert_close(mixed.matrix[:2, :2], alone.matrix)
    assert affinity.matrix.isfinite().all()


@pytest.mark.parametrize(("attribution", "estimator"), KINDS)
def test_a_loss_that_explodes_after_the_update_is_dropped(attribution, estimator):
    affinity = Affinity(["a", "b"], 0.1, attribution, estimator)
    affinity.update(["a"], {"a": 1.0, "b": 1.0}, {"a": 0.9, "b": math.inf}, following=["a"])
    assert affinity.counts.tolist() == [[1, 0], [0, 0]]
    assert affinity.matrix[0, 1] == 0
    affinity.update(["a"], {"a": math.nan, "b": 1.0}, {"a": 0.9, "b": 0.5}, following=["a"])
    assert affinity.counts.tolist() == [[1, 0], [0, 0]]  # Nobody who was there was updated.


def test_what_was_never_measured_is_zero_with_an_infinite_error():
    for attribution, estimator in KINDS:
        affinity = Affinity(["a", "b"], attribution=attribution, estimator=estimator)
        assert affinity.matrix.tolist() == [[0, 0], [0, 0]]
        assert affinity.standard_errors.isinf().all()
        assert affinity.counts.tolist() == [[0, 0], [0, 0]]


def test_one_task_has_a_map_of_one_entry():
    for attribution, estimator in KINDS:
        affinity = Affinity(["a"], 0.5, attribution, estimator)
        for _ in range(2):
            affinity.update(["a"], {"a": 1.0}, {"a": 0.75}, following=["a"])
        expected = 0.25 * (0.75 if attribution == "released" else 1.0)
        assert affinity.matrix.item() == pytest.approx(expected)


def test_pairs_measured_directly_are_averaged_entry_by_entry():
    affinity = Affinity(["a", "b"], 0.5)
    affinity.update_pairs(torch.tensor([[0.2, math.nan], [-0.4, math.inf]]))
    affinity.update_pairs(torch.tensor([[0.1, 0.3], [math.nan, math.nan]]))
    assert_close(affinity.matrix, torch.tensor([[0.2 / 1.5, 0.3], [-0.4, 0.0]]).double())
    assert affinity.counts.tolist() == [[2, 1], [1, 0]]
    affinity.update_pairs(torch.full((2, 2), math.nan))
    assert affinity.updates == 2


@pytest.mark.parametrize(("attribution", "estimator"), KINDS)
@pytest.mark.parametrize("at", [5, 40])
def test_a_loaded_state_goes_on_bit_for_bit(attribution, estimator, at):
    data = list(batches(80, seed=4, absent=0.1, low=-0.1))
    whole = measure(Affinity(TASKS, BETA, attribution, estimator), data)
    first = measure(Affinity(TASKS, BETA, attribution, estimator), data[:at])
    assert first.matrix.isfinite().all()  # To read is not to change.
    state = copy.deepcopy(first.state_dict())
    second = Affinity(TASKS, BETA, attribution, estimator)
    second.load_state_dict(state)
    measure(second, data[at:])
    for name in ("matrix", "counts", "standard_errors"):
        assert torch.equal(getattr(second, name), getattr(whole, name))
    assert second.updates == whole.updates
    measure(first, data[at:])
    assert torch.equal(first.matrix, whole.matrix)


def test_a_damaged_number_of_pending_measurements_is_refused():
    affinity = Affinity(["a", "b"], estimator="regression")
    state = affinity.state_dict() | {"pending": torch.tensor(64), "level": torch.ones(2).double()}
    with pytest.raises(ValueError, match="pending in the state must be from 0 to 63, not 64"):
        affinity.load_state_dict(state)
    assert affinity.state_dict()["level"].tolist() == [0.0, 0.0]


def test_a_change_that_waits_for_its_group_is_saved_with_the_rest():
    losses = [{"a": 1.0, "b": 1.0}, {"a": 0.9, "b": 0.8}, {"a": 0.9, "b": 0.7}]
    first, second = (Affinity(["a", "b"], 0.5, attribution="released") for _ in range(2))
    first.update(["a"], losses[0], losses[1])
    second.load_state_dict(first.state_dict())
    assert second.updates == 0
    second.update(["b"], losses[1], losses[2])
    assert_close(second.matrix, torch.tensor([[0.0, 0.0], [0.05, 0.1]]).double())


@pytest.mark.parametrize(("attribution", "estimator"), KINDS)
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("tasks", ["a", "c"], "tasks"),
        ("decay", 0.2, "decay 0.2"),
        ("estimator", "other", "estimator other"),
        ("updates", -1, "whole number"),
        ("counts", torch.zeros(2, 2), "counts .*int64"),
        ("level", torch.zeros(3, dtype=torch.float64), "level .*float64"),
        ("level", torch.full((2,), math.nan, dtype=torch.float64), "level .* finite"),
        ("after", None, "after"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(attribution, estimator, name, value, message):
    affinity = Affinity(["a", "b"], 0.1, attribution, estimator)
    affinity.update(["a"], {"a": 1.0, "b": 2.0}, {"a": 0.9, "b": 1.0}, following=["a"])
    before = affinity.state_dict()
    other = Affinity(["a", "b"], 0.1, attribution, estimator).state_dict() | {name: value}
    with pytest.raises(ValueError, match=message):
        affinity.load_state_dict(other)
    for key, kept in affinity.state_dict().items():
        assert_close(kept, before[key], equal_nan=True) if isinstance(kept, torch.Tensor) else None
    with pytest.raises(ValueError, match="lacks level, updates"):
        affinity.load_state_dict({key: other[key] for key in other if key not in ("level", "updates")})


def test_what_is_handed_out_is_a_copy():
    affinity = Affinity(["a", "b"])
    affinity.update(["a"], {"a": 1.0, "b": 1.0}, {"a": 0.5, "b": 0.5})
    for name in ("matrix", "counts", "standard_errors"):
        getattr(affinity, name).fill_(7)
        assert (getattr(affinity, name) != 7).all()
    for value in affinity.state_dict().values():
        if isinstance(value, torch.Tensor):
            value.fill_(7)
    assert affinity.matrix[0].tolist() == [0.5, 0.5]


def test_losses_of_any_dtype_with_a_graph_are_read_and_left_alone():
    weight = torch.ones((), requires_grad=True)
    before = {"a": 2 * weight, "b": (4 * weight).half().reshape(1), "c": 3}
    affinity = Affinity(["a", "b", "c"])
    affinity.update(("a",), before, {"a": torch.tensor(1.0), "b": 3.0, "c": torch.tensor(3)})
    assert affinity.matrix[0].tolist() == [0.5, 0.25, 0.0]
    assert before["a"].requires_grad


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tasks": []}, ValueError, "at least one"),
        ({"tasks": "ab"}, TypeError, "list of names"),
        ({"tasks": ["a", "a"]}, ValueError, "twice"),
        ({"decay": 0.0}, ValueError, r"decay.*\(0, 1\)"),
        ({"decay": 1.0}, ValueError, r"decay.*\(0, 1\)"),
        ({"decay": math.nan}, ValueError, r"decay.*\(0, 1\)"),
        ({"decay": "1e-3"}, ValueError, r"decay.*\(0, 1\)"),
        ({"attribution": "code"}, ValueError, "attribution must be one of paper, released"),
        ({"estimator": "rls"}, ValueError, "estimator must be one of pairwise, regression"),
        ({"attribution": "released", "estimator": "regression"}, ValueError, "goes with estimator='pairwise'"),
    ],
)
def test_options_out_of_range_are_named(options, error, message):
    with pytest.raises(error, match=message):
        Affinity(**({"tasks": ["a", "b"]} | options))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"group": ["dept"]}, ValueError, "group names the unknown task 'dept': did you mean 'depth'"),
        ({"group": "depth"}, TypeError, r"group=\['depth'\]"),
        ({"group": []}, ValueError, "group is empty"),
        ({"group": ["depth", "depth"]}, ValueError, "group names a task twice"),
        ({"following": ["x"]}, ValueError, "following names the unknown task 'x': it knows depth, edges"),
        ({"before": {"edge": 1.0}}, ValueError, "before names the unknown task 'edge': did you mean 'edges'"),
        ({"after": [1.0, 2.0]}, TypeError, "after must be a dict"),
        ({"after": {"depth": "1"}}, TypeError, "after has a str as the loss of 'depth'"),
        ({"after": {"depth": True}}, TypeError, "after has a bool"),
        ({"before": {"depth": torch.ones(2)}}, ValueError, r"before has a loss of shape \(2,\) for 'depth'"),
    ],
)
def test_bad_measurements_are_named_and_change_nothing(given, error, message):
    affinity = Affinity(["depth", "edges"])
    losses = {"depth": 1.0, "edges": 1.0}
    with pytest.raises(error, match=message):
        affinity.update(**({"group": ["depth"], "before": losses, "after": losses} | given))
    assert affinity.updates == 0
    assert affinity.state_dict()["seen"].tolist() == [0, 0]


def test_bad_pairs_are_refused():
    with pytest.raises(ValueError, match=r"values must be \(2, 2\)"):
        Affinity(["a", "b"]).update_pairs(torch.ones(2, 3))
    with pytest.raises(ValueError, match="learns from groups"):
        Affinity(["a", "b"], estimator="regression").update_pairs(torch.ones(2, 2))
