"""Graph pooling of bags: what must not matter doesn't, padded and flat, and bad input is named."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from motet.nn.bag import Bag
from motet.nn.instance_pooling import GraphInstancePooling

D = 6


def pooling(seed: int = 0, **options) -> GraphInstancePooling:
    torch.manual_seed(seed)
    pool = GraphInstancePooling(D, 3, **options).double()
    torch.nn.init.normal_(pool.empty)
    return pool


@st.composite
def bags(draw) -> list[torch.Tensor]:
    """One to five bags of no to twelve instances, some of them copies of others."""
    sizes = draw(st.lists(st.integers(0, 12), min_size=1, max_size=5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    found = [torch.randn(n, D, generator=generator, dtype=torch.float64) for n in sizes]
    for x in found:
        copies = draw(st.integers(0, len(x) // 2))
        x[len(x) - copies :] = x[:copies].clone()
    return found


def call(pool, bag: Bag):
    return pool(bag.x, bag.mask, bag.offsets, bag.coordinates, bag.edges)


def close(one, other) -> None:
    assert_close(one, other, rtol=0, atol=1e-9)


@given(bags())
def test_padded_is_flat_and_a_bag_alone_is_the_bag_in_a_batch(xs):
    pool, flat = pooling(), Bag.of(xs)
    z, info = call(pool, flat)
    padded = flat.padded()
    for extra in (0, 6):
        x = torch.nn.functional.pad(padded.x, (0, 0, 0, extra))
        mask = torch.nn.functional.pad(padded.mask, (0, extra))
        z_padded, info_padded = pool(x.masked_fill(~mask[..., None], torch.nan), mask)
        assert (z_padded == z).all()
        assert (info_padded["attention"][mask] == info["attention"]).all()
        assert (info_padded["attention"][~mask] == 0).all()
        for name, value in info["regularisers"].items():
            assert info_padded["regularisers"][name] == value
        assert (info_padded["signature"] == info["signature"]).all()
    for b, x in enumerate(xs):
        alone, _ = pool(x[None])
        close(alone[0], z[b])


@given(bags(), st.integers(0, 100))
def test_the_order_of_instances_does_not_matter(xs, seed):
    pool, flat = pooling(), Bag.of(xs)
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(x), generator=generator) for x in xs]
    z, info = call(pool, flat)
    z_mixed, info_mixed = call(pool, Bag.of([x[order] for x, order in zip(xs, orders, strict=True)]))
    close(z_mixed, z)
    close(info_mixed["signature"], info["signature"])
    for name, value in info["regularisers"].items():
        close(info_mixed["regularisers"][name], value)
    place = torch.cat([order + start for order, start in zip(orders, flat.offsets.tolist(), strict=False)])
    close(info_mixed["attention"], info["attention"][place])


@given(bags())
def test_attention_sums_to_one_and_an_empty_bag_is_the_learned_vector(xs):
    pool, flat = pooling(), Bag.of(xs)
    z, info = call(pool, flat)
    for b, part in enumerate(info["attention"].split(flat.sizes.tolist())):
        if len(part):
            close(part.sum(), torch.tensor(1.0, dtype=torch.float64))
            assert (part >= 0).all()
        else:
            assert (z[b] == pool.empty).all()


@settings(max_examples=10)
@given(bags())
def test_nan_padding_gives_the_same_finite_gradients(xs):
    gradients = []
    for fill in (0.0, torch.nan, torch.inf):
        pool, bag = pooling(), Bag.of(xs).padded()
        x = bag.x.masked_fill(~bag.mask[..., None], fill).requires_grad_()
        z, info = pool(x, bag.mask)
        (z.square().sum() + sum(info["regularisers"].values())).backward()
        assert (x.grad[~bag.mask] == 0).all()
        gradients.append([x.grad, *(p.grad for p in pool.parameters())])
    for other in gradients[1:]:
        for one, two in zip(gradients[0], other, strict=True):
            assert one.isfinite().all()
            assert (one == two).all()


@pytest.mark.parametrize("coordinates", [False, True])
def test_edges_may_be_kept_for_the_next_step(coordinates):
    pool = pooling()
    x = torch.randn(2, 20, D, dtype=torch.float64)
    points = torch.rand(2, 20, 2) if coordinates else None
    z, info = pool(x, coordinates=points)
    again, kept = pool(x, edges=info["graph"]["edges"])
    assert (again == z).all()
    assert (kept["graph"]["weights"] == info["graph"]["weights"]).all()


def test_every_parameter_learns():
    pool = pooling(concentration=(0.0, 0.1))
    z, info = call(pool, Bag.of([torch.randn(n, D, dtype=torch.float64) for n in (5, 0, 1, 4)]))
    (z.square().sum() + sum(info["regularisers"].values())).backward()
    for name, parameter in pool.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_one_instance_is_a_bag_without_a_graph():
    pool = pooling()
    z, info = pool(torch.randn(3, 1, D, dtype=torch.float64))
    assert z.isfinite().all()
    assert info["graph"]["edges"].shape == (2, 0)
    assert (info["attention"] == 1).all()
    assert all(value == 0 for value in info["regularisers"].values())


def test_only_empty_bags_and_no_bags():
    pool = pooling()
    z, info = pool(torch.zeros(0, D, dtype=torch.float64), offsets=torch.tensor([0, 0, 0]))
    assert (z == pool.empty).all()
    assert z.shape == (2, D)
    (z.sum() + sum(info["regularisers"].values())).backward()
    assert (pool.empty.grad == 2).all()
    z, _ = pool(torch.zeros(0, 4, D, dtype=torch.float64))
    assert z.shape == (0, D)


def test_equal_instances_pool_to_what_one_of_them_would_weigh():
    pool = pooling()
    x = torch.randn(1, 1, D, dtype=torch.float64).expand(1, 100, D)
    z, info = pool(x)
    assert z.isfinite().all()
    close(info["attention"], torch.full((1, 100), 0.01, dtype=torch.float64))


def test_half_precision_computes_the_graph_in_float32():
    pool = pooling().float()
    x = torch.randn(2, 30, D)
    z, info = pool(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z_half, info_half = pool(x)
    assert (info_half["graph"]["edges"] == info["graph"]["edges"]).all()
    assert_close(info_half["graph"]["weights"], info["graph"]["weights"])
    assert info_half["attention"].dtype == torch.float32
    assert_close(z_half.float(), z, rtol=0.1, atol=0.05)
    half, _ = pool.bfloat16()(x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert half.isfinite().all()


def test_state_and_copies_give_the_same():
    pool, x = pooling(), torch.randn(2, 5, D, dtype=torch.float64)
    other = pooling(seed=1)
    other.load_state_dict(pool.state_dict())
    assert (other(x)[0] == pool(x)[0]).all()
    assert (copy.deepcopy(pool)(x)[0] == pool(x)[0]).all()


NAN = torch.zeros(2, 3, D, dtype=torch.float64)
NAN[1, 2, 0] = torch.nan


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": torch.zeros(2, 3, 5)}, "dim = 6 features, not 5"),
        ({"x": NAN}, "present instance: bag 1, its instance 2"),
        ({"x": torch.zeros(3, D), "mask": torch.ones(3, dtype=torch.bool)}, "with a mask"),
        ({"x": torch.zeros(2, 3, D), "coordinates": torch.zeros(2, 3, 1)}, "coordinates must be"),
        ({"x": torch.zeros(2, 3, D), "edges": torch.tensor([[0], [3]])}, "joins bag 0 and bag 1"),
        ({"x": torch.zeros(2, 3, D), "coordinates": torch.full((2, 3, 2), torch.nan)}, "coordinates .* bag 0"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        pooling()(**arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"neighbours": 0}, "neighbours must be at least 1"),
        ({"alpha": 1.0}, r"alpha .* \[0, 1\)"),
        ({"steps": 0}, "steps"),
        ({"concentration": (0.9, 0.1)}, "concentration"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        GraphInstancePooling(D, **options)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # of the compiler's own look at tensors
def test_compiled_gives_the_same():
    pool, x = pooling().float(), torch.randn(2, 9, D)
    results = []
    for each in (pool, torch.compile(pool, backend="eager")):
        pool.zero_grad()
        z, _ = each(x)
        z.square().sum().backward()
        results.append((z, [p.grad.clone() for p in pool.parameters() if p.grad is not None]))
    assert_close(results[1], results[0], rtol=1e-5, atol=1e-5)
