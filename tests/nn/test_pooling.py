"""The poolings: the same for padded and flat bags, whatever the padding holds and in whatever order instances come."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from motet.nn.bag import Bag
from motet.nn.pooling import GatedAttentionPooling, MaxPooling, MeanPooling, TransformerPooling

DIM = 8
MAKERS = {
    "mean": lambda: MeanPooling(DIM),
    "max": lambda: MaxPooling(DIM),
    "attention": lambda: GatedAttentionPooling(DIM, 5),
    "transformer": lambda: TransformerPooling(DIM, heads=2, layers=2),
}
every = pytest.mark.parametrize("name", MAKERS)


def make(name):
    torch.manual_seed(3)
    pooling = MAKERS[name]().double()
    torch.nn.init.normal_(pooling.null)
    return pooling


def bags(sizes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, DIM, generator=generator, dtype=torch.float64) for size in sizes]


def padded(parts, filling=torch.nan, extra=0):
    longest = max([len(part) for part in parts], default=0) + extra
    x = torch.full((len(parts), longest, DIM), filling, dtype=torch.float64)
    mask = torch.zeros(len(parts), longest, dtype=torch.bool)
    for row, part in enumerate(parts):
        x[row, : len(part)], mask[row, : len(part)] = part, True
    return x, mask


def flat(parts):
    sizes = torch.tensor([len(part) for part in parts])
    return torch.cat(parts), torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])


@every
@given(sizes=st.lists(st.integers(0, 7), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_padded_and_flat_bags_give_the_same(name, sizes, seed):
    pooling, parts = make(name), bags(sizes, seed)
    x, mask = padded(parts, extra=seed % 3)
    z, info = pooling(x, mask)
    values, offsets = flat(parts)
    other, flat_info = pooling(values, offsets=offsets)
    torch.testing.assert_close(z, other, atol=1e-9, rtol=0)
    torch.testing.assert_close(info["attention"][mask], flat_info["attention"], atol=1e-9, rtol=0)
    assert (info["attention"][~mask] == 0).all()
    assert info["regularisers"] == flat_info["regularisers"] == {}
    assert z.isfinite().all()


@every
def test_gradients_are_the_same_for_padded_and_flat_and_finite_with_nan_in_the_padding(name):
    parts = bags([3, 0, 1, 5])
    grads = []
    for form in ("padded", "flat"):
        pooling = make(name)
        x, mask = padded(parts) if form == "padded" else flat(parts)
        x.requires_grad_()
        z, _ = pooling(x, mask) if form == "padded" else pooling(x, offsets=mask)
        (z * torch.arange(1, z.numel() + 1).reshape(z.shape)).sum().backward()
        grads.append([x.grad[mask] if form == "padded" else x.grad, *(p.grad for p in pooling.parameters())])
        if form == "padded":
            assert (x.grad[~mask] == 0).all()
    for one, other in zip(*grads, strict=True):
        assert one.isfinite().all()
        torch.testing.assert_close(one, other, atol=1e-9, rtol=0)


@every
def test_an_empty_bag_is_the_null_vector_and_trains_it(name):
    pooling = make(name)
    x, mask = padded(bags([0, 2]))
    z, info = pooling(x, mask)
    assert torch.equal(z[0], pooling.null)
    assert (info["attention"][0] == 0).all()
    z[0].sum().backward()
    assert (pooling.null.grad == 1).all()
    assert torch.equal(pooling(torch.zeros(2, 0, DIM, dtype=torch.float64))[0], pooling.null.expand(2, DIM))
    empty = torch.zeros(0, DIM, dtype=torch.float64), torch.zeros(3, dtype=torch.int64)
    assert torch.equal(pooling(empty[0], offsets=empty[1])[0], pooling.null.expand(2, DIM))


@every
def test_the_order_of_instances_and_the_company_of_other_bags_do_not_matter(name):
    pooling, parts = make(name), bags([4, 6])
    parts[1][3] = parts[1][0]
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    whole, _ = pooling(*padded(parts))
    alone, info = pooling(parts[1][None])
    turned, turned_info = pooling(parts[1][order][None])
    torch.testing.assert_close(whole[1:], alone, atol=1e-9, rtol=0)
    torch.testing.assert_close(turned, alone, atol=1e-9, rtol=0)
    torch.testing.assert_close(turned_info["attention"], info["attention"][:, order], atol=1e-9, rtol=0)
    assert torch.isclose(info["attention"][0, 0], info["attention"][0, 3], atol=1e-12)


@every
def test_attention_sums_to_one_in_each_bag_that_has_instances(name):
    _, info = make(name)(*padded(bags([1, 0, 7, 3])))
    torch.testing.assert_close(info["attention"].sum(1), torch.tensor([1.0, 0, 1, 1], dtype=torch.float64))


def test_mean_and_maximum_are_what_they_say():
    (bag,) = bags([5])
    assert torch.allclose(make("mean")(bag[None])[0][0], bag.mean(0), atol=1e-12, rtol=0)
    z, info = make("max")(bag[None])
    assert torch.equal(z[0], bag.max(0).values)
    shares = torch.bincount(bag.argmax(0), minlength=5) / DIM
    torch.testing.assert_close(info["attention"][0], shares.double())


def test_the_maximum_of_negative_instances_is_not_the_padding():
    x, mask = padded([-torch.ones(2, DIM, dtype=torch.float64)], filling=0.0, extra=2)
    assert (make("max")(x, mask)[0] == -1).all()


def test_gated_attention_is_its_formula():
    pooling, (bag,) = make("attention"), bags([4])
    scores = []
    for x in bag:
        content = torch.tanh(pooling.content.weight @ x + pooling.content.bias)
        gate = 1 / (1 + torch.exp(-(pooling.gate.weight @ x + pooling.gate.bias)))
        scores.append(pooling.score.weight[0] @ (content * gate))
    weights = torch.stack(scores).exp() / torch.stack(scores).exp().sum()
    z, info = pooling(bag[None])
    torch.testing.assert_close(info["attention"][0], weights)
    torch.testing.assert_close(z[0], weights @ bag)


def test_the_transformer_without_layers_attends_by_its_query_alone():
    pooling = TransformerPooling(DIM, heads=1, layers=0).double()
    (bag,) = bags([4])
    x = torch.nn.functional.layer_norm(bag, (DIM,))
    weights = torch.softmax(x @ pooling.key.weight.T @ pooling.query[0] / DIM**0.5, dim=0)
    z, info = pooling(bag[None])
    torch.testing.assert_close(info["attention"][0], weights)
    torch.testing.assert_close(z[0], pooling.out(weights @ (x @ pooling.value.weight.T + pooling.value.bias)))


@every
@pytest.mark.parametrize("flat", [False, True])
def test_a_model_in_half_precision_gets_vectors_in_half_precision(name, flat):
    pooling, xs = make(name).bfloat16(), [x.bfloat16() for x in bags([3, 6, 0])]
    bag = Bag.of(xs)
    if not flat:
        bag = bag.padded()
    z, info = pooling(bag.x, bag.mask, bag.offsets)
    assert (z.dtype, info["attention"].dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(
        z.float(), make(name).float()(bag.x.float(), bag.mask, bag.offsets)[0], atol=0.05, rtol=0.05
    )


@every
def test_under_autocast_the_result_is_near_and_attention_is_float32(name):
    pooling, (x, mask) = make(name).float(), padded(bags([3, 6, 0]))
    z, _ = pooling(x.float(), mask)
    with torch.autocast("cpu", torch.bfloat16):
        half, info = pooling(x.float(), mask)
    assert info["attention"].dtype == torch.float32
    torch.testing.assert_close(half.float(), z, atol=0.05, rtol=0.05)


@every
@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ((torch.zeros(2, 3, DIM + 1),), "x must be .* D = 8, not"),
        ((torch.zeros(2, DIM),), "x must be"),
        ((torch.zeros(2, 3, DIM), torch.ones(2, 2, dtype=torch.bool)), "mask must be bool"),
        ((torch.zeros(2, 3, DIM), torch.ones(2, 3)), "mask must be bool"),
        ((torch.zeros(2, DIM), torch.ones(2, 2, dtype=torch.bool), torch.tensor([0, 2])), "not both"),
        ((torch.zeros(2, DIM), None, torch.tensor([0.0, 2.0])), "offsets must be int64"),
        ((torch.zeros(5, DIM), None, torch.tensor([1, 3, 5])), "offsets must start at 0"),
        ((torch.zeros(5, DIM), None, torch.tensor([0, 4, 2, 5])), "never decrease"),
        ((torch.zeros(5, DIM), None, torch.tensor([0, 3])), "number of instances, 5"),
    ],
)
def test_input_of_another_form_is_refused_with_the_reason(name, arguments, fault):
    with pytest.raises(ValueError, match=fault):
        make(name).float()(*arguments)


@pytest.mark.parametrize(
    ("maker", "fault"),
    [
        (lambda: MeanPooling(0), "dim must be 1 or more, not 0"),
        (lambda: GatedAttentionPooling(4, 0), "hidden must be 1 or more, not 0"),
        (lambda: TransformerPooling(6, heads=4), "heads must be 1 or more and divide dim = 6, not 4"),
        (lambda: TransformerPooling(6, heads=2, layers=-1), "layers must be 0 or more, not -1"),
    ],
)
def test_options_out_of_range_are_refused(maker, fault):
    with pytest.raises(ValueError, match=fault):
        maker()
