"""Attention between the tokens of views: the softmax of the definition, its entropy, and no matrix of weights kept."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from motet.nn import token_attention
from motet.nn.token_attention import TokenCrossViewAttention, attend, log_sums

DIM = 8
EXACT: dict[str, float] = {"rtol": 0, "atol": 1e-9}
SEEDS = st.integers(0, 2**16)


def block(**options: Any) -> TokenCrossViewAttention:
    torch.manual_seed(0)
    made = TokenCrossViewAttention(DIM, heads=2, **options).double()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.5)
    return made


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@st.composite
def token_sets(draw: st.DrawFn) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    samples, seed = draw(st.integers(1, 3)), draw(SEEDS)
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    tokens = {f"view {i}": normal(seed + i, samples, length, DIM) for i, length in enumerate(lengths)}
    masks = {view: normal(seed + 9 + i, *h.shape[:2]) > -0.3 for i, (view, h) in enumerate(tokens.items())}
    return tokens, masks


def softmax_and_entropy(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The matrix of weights written out."""
    logits = q @ k.mT / math.sqrt(q.shape[-1])
    kept = logits.masked_fill(~mask[:, None, None], -1e9).softmax(-1)
    return kept @ v, -(kept * kept.clamp(min=1e-300).log()).sum(-1)


@given(SEEDS, st.integers(1, 7), st.integers(1, 9), st.floats(0.1, 10))
def test_output_and_entropy_and_their_gradients_are_those_of_the_matrix(
    seed: int, asking: int, asked: int, scale: float
) -> None:
    mask = normal(seed, 2, asked) > 0
    mask[:, 0] = True
    results = []
    for function in (attend, softmax_and_entropy):
        inputs = [normal(seed + i, 2, 3, n, 4) for i, n in enumerate((asking, asked, asked))]
        q, k, v = (x.mul(scale if i < 2 else 1).requires_grad_() for i, x in enumerate(inputs))
        taken, nats = function(q, k, v, mask)
        ((taken * normal(seed + 5, *taken.shape)).sum() + (nats * normal(seed + 6, *nats.shape)).sum()).backward()
        results.append([taken, nats, q.grad, k.grad, v.grad])
    for found, expected in zip(*results, strict=True):
        assert_close(found, expected, **EXACT)


def test_rows_with_nothing_to_attend_to_are_zero_with_finite_gradients() -> None:
    q, k, v = (normal(i, 2, 1, 3, 4).requires_grad_() for i in range(3))
    taken, nats = attend(q, k, v, torch.tensor([[True, True, False], [False, False, False]]))
    (taken.sum() + nats.sum()).backward()
    assert not taken[1].any()
    assert not nats[1].any()
    for x in (q, k, v):
        assert x.grad is not None
        assert x.grad.isfinite().all()
        assert not x.grad[1].any()


def test_nothing_as_large_as_the_matrix_is_kept_for_the_backward_pass() -> None:
    samples, heads, length, width = 1, 2, 1024, 8
    q, k, v = (torch.randn(samples, heads, length, width, requires_grad=True) for _ in range(3))
    mask = torch.arange(length)[None] < 1000
    kept: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        kept[x.untyped_storage().data_ptr()] = x.numel()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        outputs = attend(q, k, v, mask)
    assert outputs[1].shape == (samples, heads, length)
    one = q.numel()
    assert max(kept.values()) <= 2 * one  # A is 128 of them.
    assert sum(kept.values()) <= 12 * one


def test_logarithmic_sums_take_few_logits_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, seen = normal(0, 2, 3, 50, 4), normal(1, 2, 3, 40, 4), normal(2, 2, 1, 1, 40) > -1
    sizes: list[int] = []
    whole = torch.Tensor.logsumexp

    def watch(x: Tensor, dim: int) -> Tensor:
        sizes.append(x.numel())
        return whole(x, dim)

    monkeypatch.setattr(torch.Tensor, "logsumexp", watch)
    found = log_sums(q, k, seen, block=1000)
    monkeypatch.undo()
    assert max(sizes) <= 1000
    assert sum(sizes) == 2 * 3 * 50 * 40
    assert_close(found, (q @ k.mT / 2).masked_fill(~seen, -torch.inf).logsumexp(-1), **EXACT)


@given(token_sets())
def test_at_the_start_the_block_is_the_identity_bit_for_bit(drawn: tuple[dict[str, Tensor], dict[str, Tensor]]) -> None:
    tokens, masks = drawn
    out, _ = TokenCrossViewAttention(DIM, heads=2).double()(tokens, masks)
    for view, mask in masks.items():
        assert torch.equal(out[view][mask], tokens[view][mask])


@given(token_sets())
def test_the_output_is_that_of_the_formula_written_as_loops(drawn: tuple[dict[str, Tensor], dict[str, Tensor]]) -> None:
    tokens, masks = drawn
    made = block()
    out, info = made(tokens, masks)
    query, key, value = made.content.weight.detach().view(3, 2, DIM // 2, DIM)
    means = []
    for view, h in tokens.items():
        penalties = []
        for b, i in masks[view].nonzero().tolist():
            there = [made.norm(x[b, masks[o][b]]).detach() for o, x in tokens.items() if o != view]
            context = torch.cat([*there, h.new_zeros(0, DIM)])
            heads = []
            for head in range(2):
                logits = context @ key[head].T @ (query[head] @ made.norm(h[b, i]).detach()) / math.sqrt(DIM / 2)
                weights = logits.softmax(0)
                heads.append(weights @ (context @ value[head].T))
                share = info["entropy"][view][b, head, i].item()
                if len(context) < 2:
                    assert math.isnan(share)
                    continue
                expected = torch.distributions.Categorical(weights).entropy().item() / math.log(len(context))
                assert share == pytest.approx(expected, abs=1e-9)
                penalties.append(max(expected - 0.7, 0) ** 2 + max(0.1 - expected, 0) ** 2)
            taken = made.out.weight @ torch.cat(heads)
            assert_close(out[view][b, i], h[b, i] + taken, **EXACT)
        assert not out[view][~masks[view]].any()
        assert info["entropy"][view].mT[~masks[view][:, :, None].expand_as(info["entropy"][view].mT)].isnan().all()
        means += [sum(penalties) / len(penalties)] if penalties else []
    expected = sum(means) / len(means) if means else 0
    assert info["regularisers"]["concentration"].item() == pytest.approx(expected, abs=1e-9)


@given(token_sets(), st.sampled_from([torch.nan, torch.inf, -1e300]))
def test_missing_tokens_change_nothing_forward_and_backward(
    drawn: tuple[dict[str, Tensor], dict[str, Tensor]], content: float
) -> None:
    tokens, masks = drawn
    results = []
    for filler in (0.0, content):
        made = block()
        x = {v: torch.where(masks[v][..., None], h, filler).requires_grad_() for v, h in tokens.items()}
        out, info = made(x, masks)
        (sum(h.sin().sum() for h in out.values()) + info["regularisers"]["concentration"]).backward()
        gradients = [h.grad for h in x.values()] + [p.grad for p in made.parameters() if p.grad is not None]
        results.append([*out.values(), *(h.nan_to_num(7) for h in info["entropy"].values()), *gradients])
    for clean, soiled in zip(*results, strict=True):
        assert torch.equal(clean, soiled)
        assert soiled.isfinite().all()


def test_a_missing_view_is_as_good_as_one_that_is_not_there() -> None:
    tokens = {"text": normal(0, 2, 3, DIM), "image": normal(1, 2, 4, DIM), "sound": normal(2, 2, 2, DIM)}
    masks = {"sound": torch.zeros(2, 2, dtype=torch.bool)}
    with_it, about = block()(tokens, masks)
    del tokens["sound"]
    without, info = block()(tokens)
    for view in tokens:
        assert_close(with_it[view], without[view], **EXACT)
        assert_close(about["entropy"][view], info["entropy"][view], **EXACT)


def test_the_order_of_views_and_tokens_does_not_matter() -> None:
    tokens = {"text": normal(0, 2, 3, DIM), "image": normal(1, 2, 4, DIM), "sound": normal(2, 2, 2, DIM)}
    out, info = block()(tokens)
    moved, about = block()({view: tokens[view].flip(1) for view in reversed(tokens)})
    for view in tokens:
        assert_close(moved[view].flip(1), out[view], **EXACT)
        assert_close(about["entropy"][view].flip(2), info["entropy"][view], **EXACT)
    assert_close(about["regularisers"], info["regularisers"], **EXACT)


def test_one_view_is_passed_on() -> None:
    tokens = {"text": normal(0, 2, 3, DIM)}
    out, info = block()(tokens)
    assert torch.equal(out["text"], tokens["text"])
    assert info["entropy"]["text"].isnan().all()
    assert info["regularisers"]["concentration"] == 0


def test_autocast_keeps_entropies_in_float32() -> None:
    made = block().float()
    tokens = {"text": torch.randn(2, 3, DIM), "image": torch.randn(2, 4, DIM)}
    _, info = made(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        out, about = made(tokens)
    assert out["text"].dtype == torch.float32
    assert about["entropy"]["text"].dtype == torch.float32
    assert_close(about["entropy"]["text"], info["entropy"]["text"], rtol=0, atol=0.05)
    halved, _ = made.bfloat16()({view: h.bfloat16() for view, h in tokens.items()})
    assert halved["image"].dtype == torch.bfloat16


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch warns of itself when it compiles
def test_it_is_one_graph_with_the_same_result() -> None:
    made = block()
    tokens = {"text": normal(0, 2, 3, DIM), "image": normal(1, 2, 4, DIM)}
    masks = {"image": torch.tensor([[True] * 4, [False] * 4])}
    results = []
    for call in (made, torch.compile(made, fullgraph=True, backend="aot_eager")):
        x = {view: h.clone().requires_grad_() for view, h in tokens.items()}
        out, info = call(x, masks)
        (out["text"].sum() + out["image"].sum() + info["regularisers"]["concentration"]).backward()
        results.append([*out.values(), *info["entropy"].values(), *(h.grad for h in x.values())])
    for eager, whole in zip(*results, strict=True):
        assert_close(whole, eager, rtol=0, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize(
    ("tokens", "masks", "message"),
    [
        ({}, {}, "tokens has no view"),
        ({"a": torch.zeros(2, 3, 5)}, {}, r"tokens of view 'a' must be .*dim=8\), not \(2, 3, 5\)"),
        ({"a": torch.zeros(2, 8)}, {}, r"tokens of view 'a' must be .*, not \(2, 8\)"),
        ({"a": torch.zeros(2, 3, 8), "b": torch.zeros(4, 3, 8)}, {}, "view 'b' has 4 samples and the first view 2"),
        ({"a": torch.zeros(2, 3, 8)}, {"b": torch.ones(2, 3, dtype=torch.bool)}, "mask for the view 'b' and no tokens"),
        ({"a": torch.zeros(2, 3, 8)}, {"a": torch.ones(2, 4, dtype=torch.bool)}, r"mask of view 'a' .*not \(2, 4\)"),
        ({"a": torch.zeros(2, 3, 8)}, {"a": torch.ones(2, 3)}, "mask of view 'a' must be bool"),
    ],
)
def test_inputs_that_do_not_fit_are_named(tokens: dict[str, Tensor], masks: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        token_attention.TokenCrossViewAttention(8)(tokens, masks)


def test_options_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match="heads must divide dim = 8, and 3 does not"):
        TokenCrossViewAttention(8, heads=3)
    with pytest.raises(ValueError, match="concentration is"):
        TokenCrossViewAttention(8, concentration=(0.5, 0.1))
