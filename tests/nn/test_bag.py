"""Bags: padded and flat mean the same, and bad input is named."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from motet.nn.bag import Bag


@pytest.fixture
def instances() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, 3, generator=generator) for n in (2, 0, 4, 1)]


def test_flat_and_padded_are_each_others_inverse(instances):
    flat = Bag.of(instances, [x[:, :2] for x in instances])
    padded = flat.padded()
    assert padded.x.shape == (4, 4, 3)
    assert padded.mask.sum(1).tolist() == flat.sizes.tolist() == padded.sizes.tolist() == [2, 0, 4, 1]
    again = padded.flat()
    for name in ("x", "offsets", "coordinates"):
        assert_close(getattr(again, name), getattr(flat, name), rtol=0, atol=0)
    assert (padded.x[~padded.mask] == 0).all()
    assert flat.owner.tolist() == [0, 0, 2, 2, 2, 2, 3]


def test_both_forms_pass_gradients_and_padding_gets_none(instances):
    flat = Bag.of(instances)
    x = flat.x.clone().requires_grad_()
    Bag(x, offsets=flat.offsets).padded().x.sum().backward()
    assert (x.grad == 1).all()
    padded = flat.padded()
    x = padded.x.masked_fill(~padded.mask[..., None], torch.nan).requires_grad_()
    Bag(x, padded.mask).flat().x.sum().backward()
    assert_close(x.grad, padded.mask[..., None].expand_as(x).float())


@pytest.mark.parametrize("form", ["flat", "padded"])
def test_picking_keeps_instances_coordinates_and_edges(instances, form):
    edges = torch.tensor([[0, 2, 3], [1, 5, 4]])
    whole = Bag.of(instances, [x[:, :2] for x in instances])
    bag = Bag(whole.x, None, whole.offsets, whole.coordinates, edges)
    picked = getattr(bag, form)()[[2, 0]]
    assert len(picked) == 2
    assert_close(picked.flat().x, torch.cat([instances[2], instances[0]]))
    assert_close(picked.flat().coordinates, torch.cat([instances[2], instances[0]])[:, :2])
    assert sorted(picked.edges.T.tolist()) == [[0, 3], [1, 2], [4, 5]]
    assert len(bag[1]) == 1
    assert bag[torch.tensor([True, False, False, True])].sizes.tolist() == [2, 1]
    assert bag[-2:].sizes.tolist() == [4, 1]


def test_a_bag_with_edges_cannot_be_picked_twice(instances):
    bag = Bag(torch.cat(instances), offsets=torch.tensor([0, 2, 2, 6, 7]), edges=torch.tensor([[0], [1]]))
    with pytest.raises(IndexError, match="once"):
        bag[[0, 0]]


def test_moving_keeps_everything(instances):
    whole = Bag.of(instances, [x[:, :2] for x in instances])
    bag = Bag(whole.x, None, whole.offsets, whole.coordinates, torch.tensor([[0], [1]]))
    moved = bag.to("cpu")
    for name in ("x", "offsets", "coordinates", "edges"):
        assert_close(getattr(moved, name), getattr(bag, name))
    assert len(moved) == 4


X, FLAT = torch.zeros(2, 3, 4), torch.zeros(6, 4)
ALL, HALF = torch.ones(2, 3, dtype=torch.bool), torch.tensor([0, 3, 6])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": X, "mask": ALL, "offsets": HALF}, "not both"),
        ({"x": FLAT}, "with no offsets"),
        ({"x": X, "offsets": HALF}, "with offsets"),
        ({"x": FLAT, "mask": ALL}, "with a mask"),
        ({"x": X, "mask": ALL.float()}, r"mask must be bool \(2, 3\)"),
        ({"x": X, "mask": ALL[:, :2]}, r"not bool \(2, 2\)"),
        ({"x": FLAT, "offsets": HALF.int()}, "int64"),
        ({"x": FLAT, "offsets": torch.tensor([0, 4, 3, 6])}, "never decrease"),
        ({"x": FLAT, "offsets": torch.tensor([1, 6])}, "start at 0"),
        ({"x": FLAT, "offsets": torch.tensor([0, 5])}, "number of instances, 6"),
        ({"x": X, "coordinates": torch.zeros(2, 3, 4)}, r"coordinates must be \(2, 3, 2 or 3\)"),
        ({"x": X, "coordinates": torch.zeros(2, 2, 2)}, "one point for each instance"),
        ({"x": X, "edges": torch.zeros(3, 2, dtype=torch.int64)}, r"edges must be int64 \(2, E\)"),
        ({"x": X, "edges": torch.tensor([[0], [6]])}, "number the 6 instances"),
        ({"x": X, "edges": torch.tensor([[-1], [1]])}, "found -1"),
        ({"x": X, "edges": torch.tensor([[2], [3]])}, r"\(2, 3\) joins bag 0 and bag 1"),
    ],
)
def test_what_cannot_be_a_bag_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Bag(**arguments)


def test_a_list_of_bags_must_agree_on_features():
    with pytest.raises(ValueError, match=r"bag 1 must be \(instances, 3\)"):
        Bag.of([torch.zeros(2, 3), torch.zeros(2, 4)])
    with pytest.raises(ValueError, match="at least one bag"):
        Bag.of([])
    with pytest.raises(ValueError, match="one point for each"):
        Bag.of([torch.zeros(2, 3)], [torch.zeros(1, 2)])


def test_picking_without_edges_keeps_the_picked_order_and_does_not_sort(instances, monkeypatch):
    bag = Bag.of(instances)
    monkeypatch.setattr(torch.Tensor, "unique", lambda *_, **__: pytest.fail("sorted for nothing"))
    assert bag[[2, 0, 2]].sizes.tolist() == [4, 2, 4]


@pytest.mark.parametrize("form", ["flat", "padded"])
@pytest.mark.parametrize("index", [2, -2, torch.tensor(2), np.int64(2)])
def test_any_single_number_picks_a_batch_of_one(instances, form, index):
    picked = getattr(Bag.of(instances), form)()[index]
    assert len(picked) == 1
    assert_close(picked.flat().x, instances[2])


def test_a_dtype_is_that_of_features_alone(instances):
    whole = Bag.of(instances, [x[:, :2] for x in instances])
    wide = whole.to(torch.float64)
    assert wide.x.dtype == torch.float64
    assert wide.coordinates.dtype == torch.float32
    assert wide.sizes.tolist() == whole.sizes.tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": X.numpy()}, "x must be a tensor, not a ndarray"),
        ({"x": X, "mask": ALL.numpy()}, "mask must be a tensor"),
        ({"x": FLAT, "offsets": [0, 6]}, "offsets must be a tensor, not a list"),
    ],
)
def test_what_is_no_tensor_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Bag(**arguments)
