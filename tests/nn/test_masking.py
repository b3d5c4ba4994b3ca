"""What is missing may hold anything, and nothing of it gets through, forward or backward."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck
from torch.testing import assert_close

from motet.nn import masking

LENGTHS = st.lists(st.integers(0, 5), min_size=1, max_size=6)
SEEDS = st.integers(0, 2**16)
ANYTHING = [torch.nan, torch.inf, -torch.inf, 1e300]


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def offsets_of(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0)


@pytest.mark.parametrize("content", ANYTHING)
def test_blank_lets_nothing_through(content: float) -> None:
    x = torch.tensor([[1.0, 2.0], [content, content]], requires_grad=True)
    y = masking.blank(x, torch.tensor([True, False]))
    y.square().sum().backward()
    assert y.tolist() == [[1, 2], [0, 0]]
    assert x.grad is not None
    assert x.grad.tolist() == [[2, 4], [0, 0]]


@pytest.mark.parametrize("content", ANYTHING)
@given(SEEDS)
def test_masked_softmax_is_softmax_of_what_is_present(content: float, seed: int) -> None:
    mask = normal(seed, 4, 6) > 0
    logits = torch.where(mask, normal(seed + 1, 4, 6) * 20, content).requires_grad_()
    p = masking.masked_softmax(logits, mask)
    (p * normal(seed + 2, 4, 6)).sum().backward()
    assert logits.grad is not None
    for row in range(4):
        here = mask[row]
        kept = logits.detach()[row, here].requires_grad_()
        expected = kept.softmax(0)
        (expected * normal(seed + 2, 4, 6)[row, here]).sum().backward()
        assert kept.grad is not None
        assert_close(p[row, here], expected, rtol=0, atol=1e-12)
        assert_close(logits.grad[row, here], kept.grad, rtol=0, atol=1e-12)
    assert not p[~mask].any()
    assert not logits.grad[~mask].any()


def test_nothing_present_gives_zero_weights_and_zero_gradients() -> None:
    logits = torch.full((2, 3), torch.nan, requires_grad=True)
    p = masking.masked_softmax(logits, torch.zeros(2, 3, dtype=torch.bool))
    masking.entropy(p).sum().backward()
    assert p.tolist() == [[0] * 3] * 2
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_softmax_of_half_precision_is_that_of_float32(dtype: torch.dtype) -> None:
    logits, mask = normal(0, 50).to(dtype), torch.ones(50, dtype=torch.bool)
    offsets = torch.tensor([0, 50])
    for p in (masking.masked_softmax(logits, mask), masking.segment_softmax(logits, offsets)):
        assert_close(p, logits.float().softmax(0))


def test_masked_softmax_along_another_dimension_with_a_mask_that_broadcasts() -> None:
    logits, mask = normal(0, 3, 4, 2), torch.tensor([True, False, True, True])
    expected = logits[:, mask].softmax(1)
    assert_close(masking.masked_softmax(logits, mask[:, None], dim=1)[:, mask], expected)


@given(SEEDS)
def test_entropy_is_that_of_the_definition(seed: int) -> None:
    p = normal(seed, 7).softmax(0)
    assert_close(masking.entropy(p), torch.distributions.Categorical(p).entropy(), rtol=0, atol=1e-12)


def test_entropy_has_a_finite_gradient_at_zero() -> None:
    p = torch.tensor([0.0, 0.5, 0.5], dtype=torch.float64, requires_grad=True)
    h = masking.entropy(p)
    h.backward()
    assert h.item() == pytest.approx(math.log(2))
    assert p.grad is not None
    assert_close(p.grad, torch.tensor([0.0, math.log(2) - 1, math.log(2) - 1], dtype=torch.float64))


def test_band_is_zero_within_and_square_beyond() -> None:
    h = torch.tensor([0.0, 0.1, 0.4, 0.7, 1.0], dtype=torch.float64)
    assert_close(masking.band(h, 0.1, 0.7), torch.tensor([0.01, 0, 0, 0, 0.09], dtype=torch.float64))


@pytest.mark.parametrize("dim", [1, -2, (0, 1), 2])
def test_masked_mean_ignores_what_is_missing(dim: int | tuple[int, ...]) -> None:
    mask = torch.tensor([[True, False, True], [False, False, False]])
    x = torch.where(mask[..., None], normal(0, 2, 3, 4), torch.nan)
    kept = torch.where(mask[..., None], x, 0)
    counts = mask[..., None].expand_as(x).sum(dim)
    assert_close(masking.masked_mean(x, mask, dim), kept.sum(dim) / counts.clamp(min=1))


def test_masked_mean_of_nothing_is_zero() -> None:
    x = torch.full((2, 3, 4), torch.nan, requires_grad=True)
    mean = masking.masked_mean(x, torch.zeros(2, 3, dtype=torch.bool), 1)
    mean.sum().backward()
    assert mean.tolist() == [[0] * 4] * 2
    assert x.grad is not None
    assert not x.grad.any()


@given(LENGTHS, SEEDS, st.sampled_from([(), (3,), (2, 3)]))
def test_segments_equal_a_loop_over_bags(lengths: list[int], seed: int, trailing: tuple[int, ...]) -> None:
    values, offsets = normal(seed, sum(lengths), *trailing), offsets_of(lengths)
    bags = values.split(lengths)
    zero = torch.zeros(trailing, dtype=torch.float64)
    total = torch.stack([bag.sum(0) for bag in bags])
    mean = torch.stack([bag.mean(0) if len(bag) else zero for bag in bags])
    assert_close(masking.segment_sum(values, offsets), total, rtol=0, atol=1e-12)
    assert_close(masking.segment_mean(values, offsets), mean, rtol=0, atol=1e-12)
    p = masking.segment_softmax(100 * values, offsets)
    assert_close(p, torch.cat([(100 * bag).softmax(0) for bag in bags]), rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch warns of itself in forward mode
def test_segments_have_gradients_of_both_modes() -> None:
    values, offsets = normal(0, 6, 2).requires_grad_(), offsets_of([0, 2, 3, 0, 1])
    for function in (masking.segment_sum, masking.segment_mean, masking.segment_softmax):
        assert gradcheck(lambda x, f=function: f(x, offsets), values, check_forward_ad=True)


def test_a_segment_of_minus_infinity_has_no_weight() -> None:
    p = masking.segment_softmax(torch.tensor([-torch.inf, -torch.inf, 1.0]), torch.tensor([0, 2, 3]))
    assert p.tolist() == [0, 0, 1]


def test_one_bag_that_is_not_finite_leaves_the_others_alone() -> None:
    p = masking.segment_softmax(torch.tensor([torch.nan, 1.0, 2.0, 2.0]), torch.tensor([0, 2, 4]))
    assert p[:2].isnan().all()
    assert p[2:].tolist() == [0.5, 0.5]


def test_no_bags_and_no_instances() -> None:
    empty = torch.zeros(0, 3)
    assert masking.segment_sum(empty, torch.tensor([0])).shape == (0, 3)
    assert masking.segment_softmax(empty, torch.tensor([0, 0])).shape == (0, 3)
    assert masking.segment_mean(empty, torch.tensor([0, 0])).tolist() == [[0, 0, 0]]
