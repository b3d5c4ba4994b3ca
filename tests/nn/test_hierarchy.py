"""Hierarchies of tasks and of labels against trees counted by hand and a search over them."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from motet.nn.hierarchy import log_prior, task_distances
from motet.nn.label_hierarchy import label_hierarchy_loss


@st.composite
def forests(draw):
    """A parent or None for each of a few names, without circles."""
    size = draw(st.integers(1, 8))
    names = [f"t{number}" for number in range(size)]
    parents = {name: draw(st.sampled_from([None, *names[:number]])) for number, name in enumerate(names)}
    shuffled = draw(st.permutations(names))
    return {name: parents[name] for name in shuffled}


def shortest_paths(parents):
    """Floyd and Warshall over the edges, with a root above all that has no parent."""
    names = [*parents, "the root"]
    far = {pair: 0 if pair[0] == pair[1] else math.inf for pair in product(names, names)}
    for child, parent in parents.items():
        far[child, parent or "the root"] = far[parent or "the root", child] = 1
    for between, one, other in product(names, names, names):
        far[one, other] = min(far[one, other], far[one, between] + far[between, other])
    return torch.tensor([[far[one, other] for other in parents] for one in parents], dtype=torch.float64)


@given(forests())
def test_distances_are_the_shortest_paths_through_the_tree(parents):
    if any(parents.values()):
        assert_close(task_distances(list(parents), parents), shortest_paths(parents))


@given(forests())
def test_a_nested_dict_says_the_same_as_each_childs_parent(parents):
    def below(node):
        return {child: below(child) for child, parent in parents.items() if parent == node}

    assert_close(task_distances(list(parents), below(None)), shortest_paths(parents))


def test_groups_may_be_named_or_not_and_nested():
    tasks = ["a", "b", "c", "d"]
    expected = torch.tensor([[0, 2, 4, 3], [2, 0, 4, 3], [4, 4, 0, 3], [3, 3, 3, 0]], dtype=torch.float64)
    assert_close(task_distances(tasks, [["a", "b"], ["c"], "d"]), expected)
    assert_close(task_distances(tasks, {"left": ["a", "b"], "right": {"c": None}, "d": {}}), expected)
    assert_close(task_distances(tasks, {"a": "left", "b": "left", "c": "right", "d": None}), expected)
    assert task_distances(["a", "b"], [[["a"]], ["b"]])[0, 1] == 5


def test_groups_of_one_name_in_two_places_are_two_groups():
    assert task_distances(["a", "b"], {"x": {"left": ["a"]}, "y": {"left": ["b"]}})[0, 1] == 6


@pytest.mark.parametrize(
    ("hierarchy", "message"),
    [
        ([["a"], ["b"]], "leaves out 'c'"),
        ([["a", "b", "c"], ["a"]], "'a' twice"),
        ([["a", "b", "c", "colour"]], "ends in 'colour', which is no task"),
        ({"a": "b", "b": "c", "c": "a"}, "circle"),
        ({"a": "a", "b": None, "c": None}, "circle"),
        ({"a": "b", "b": 3, "c": None}, "parent or None"),
        ({"a": 3}, "holds 3"),
        ([["a", "b", "c"], [7]], "holds 7"),
        ("abc", "dict or a list"),
    ],
)
def test_a_hierarchy_that_does_not_fit_says_why(hierarchy, message):
    with pytest.raises(ValueError, match=message):
        task_distances(["a", "b", "c"], hierarchy)


@given(forests(), st.floats(1e-3, 1e3))
def test_the_prior_falls_with_distance_and_sums_to_one(parents, kappa):
    log = log_prior(list(parents), {"everything": parents} if not any(parents.values()) else parents, kappa)
    assert log.isfinite().all()
    assert_close(log.exp().sum(1), torch.ones(len(parents), dtype=torch.float64))
    if any(parents.values()):
        expected = (-shortest_paths(parents) / kappa).exp()
        assert_close(log.exp(), expected / expected.sum(1, keepdim=True), rtol=1e-9, atol=1e-300)


def test_without_a_hierarchy_a_task_keeps_most_to_itself():
    expected = torch.tensor([[0.85, 0.05, 0.05, 0.05]], dtype=torch.float64)
    assert_close(log_prior(["a", "b", "c", "d"]).exp()[:1], expected)


@pytest.mark.parametrize("kappa", [0.0, -1.0, math.nan, math.inf])
def test_kappa_must_be_a_positive_number(kappa):
    with pytest.raises(ValueError, match="kappa .* positive"):
        log_prior(["a", "b"], [["a"], ["b"]], kappa)


def logits(rows, columns, seed=0, scale=3.0):
    return scale * torch.randn(rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
def test_the_label_penalty_is_the_divergence_from_the_sum_over_children(scale):
    parent, child, mapping = logits(5, 3, 1), logits(5, 7, 2, scale), [0, 2, 1, 1, 0, 2, 2]
    matrix = torch.nn.functional.one_hot(torch.tensor(mapping), 3)
    p, q = parent.softmax(1), child.softmax(1) @ matrix.double()
    expected = (p * (p / q).log()).sum(1).mean()
    assert_close(label_hierarchy_loss(parent, child, mapping), expected)
    assert_close(label_hierarchy_loss(parent, child, matrix), expected)


def test_the_label_penalty_is_zero_where_the_parent_is_the_sum():
    child, mapping = logits(5, 7), torch.tensor([0, 2, 1, 1, 0, 2, 2])
    parent = (child.softmax(1) @ torch.nn.functional.one_hot(mapping, 3).double()).log() + 5
    assert label_hierarchy_loss(parent, child, mapping).abs() < 1e-12
    assert label_hierarchy_loss(parent + logits(5, 3), child, mapping) > 1e-3


def test_the_label_penalty_stays_finite_where_a_group_is_improbable():
    parent, child = torch.zeros(1, 2, requires_grad=True), torch.tensor([[500.0, 490.0, -500.0]], requires_grad=True)
    loss = label_hierarchy_loss(parent, child, [0, 0, 1])
    loss.backward()
    assert loss > 400
    assert child.grad.isfinite().all()
    assert parent.grad.isfinite().all()


def test_the_label_penalty_reaches_parent_and_child():
    parent, child = logits(3, 2).requires_grad_(), logits(3, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda p, c: label_hierarchy_loss(p, c, [0, 1, 1, 0]), (parent, child))


def test_no_rows_have_no_label_penalty():
    assert label_hierarchy_loss(torch.zeros(0, 2), torch.zeros(0, 3), [0, 1, 1]) == 0


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ([0, 1], "3 whole numbers"),
        ([0.0, 1.0, 1.0], "3 whole numbers"),
        ([0, 0, 0], "every class of the parent"),
        ([0, 1, 2], "every class of the parent"),
        ([-1, 0, 1], "every class of the parent"),
        ([[1, 0], [0, 1]], r"0/1 matrix \(3, 2\)"),
        ([[1, 1], [0, 1], [1, 0]], "one class of the parent"),
    ],
)
def test_a_mapping_that_does_not_fit_says_why(mapping, message):
    with pytest.raises(ValueError, match=message):
        label_hierarchy_loss(torch.zeros(4, 2), torch.zeros(4, 3), mapping)


def test_logits_of_other_batches_are_refused():
    with pytest.raises(ValueError, match="parent_logits and child_logits"):
        label_hierarchy_loss(torch.zeros(4, 2), torch.zeros(5, 3), [0, 1, 1])


def test_a_task_that_no_parent_is_given_for_stands_alone():
    named = task_distances(["a", "b", "c"], {"a": "b", "c": None})
    assert task_distances(["a", "b", "c"], {"a": "b"}).equal(named)
    assert named.tolist() == [[0, 1, 3], [1, 0, 2], [3, 2, 0]]


def test_masked_classes_have_no_part_in_the_divergence_and_its_gradients_are_finite():
    torch.manual_seed(0)
    parent, child = torch.randn(3, 3, dtype=torch.float64), torch.randn(3, 6, dtype=torch.float64)
    parent[:, 2] = child[:, [1, 4, 5]] = -torch.inf
    parent.requires_grad_(), child.requires_grad_()
    found = label_hierarchy_loss(parent, child, [0, 0, 1, 1, 2, 2])
    visible = label_hierarchy_loss(parent[:, :2], child[:, [0, 2, 3]], [0, 1, 1])
    assert found.item() == pytest.approx(visible.item())
    found.backward()
    assert parent.grad[:, :2].isfinite().all()
    assert child.grad[:, [0, 2, 3]].isfinite().all()


def test_a_possible_parent_whose_children_are_all_masked_is_infinitely_far():
    child = torch.zeros(1, 3)
    child[:, 2] = -torch.inf
    assert label_hierarchy_loss(torch.zeros(1, 2), child, [0, 0, 1]).isinf()
