"""Attention between views: its invariants, its penalties by their definitions, and agreement between processes."""

import copy
import io
import math
import os
import shutil
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, multiprocessing, nn
from torch import distributed as dist
from torch.testing import assert_close

from motet.nn.coherence import coherence, directions
from motet.nn.cross_view import HybridCrossViewAttention
from motet.nn.diagnostics import effective_rank, shuffled_coherence, view_consistency
from motet.nn.dispersion import dispersion

DIM = 8
EXACT: dict[str, float] = {"rtol": 0, "atol": 1e-9}
SEEDS = st.integers(0, 2**16)


def block(seed: int = 0, train: bool = True, **options: Any) -> HybridCrossViewAttention:
    """A block that is not at its start: every parameter is drawn."""
    torch.manual_seed(seed)
    made = HybridCrossViewAttention(DIM, heads=2, **options).double().train(train)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.5)
    return made


@st.composite
def samples(draw: st.DrawFn, least: int = 0, complete: bool = False) -> tuple[Tensor, Tensor]:
    """x (B, V, D) and a mask (B, V) with at least so many views in every sample."""
    count, views, seed = draw(st.integers(1, 5)), draw(st.integers(max(1, least), 4)), draw(SEEDS)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, views, DIM, generator=generator, dtype=torch.float64)
    chance = torch.rand(count, views, generator=generator)
    mask = (chance > 0.4) | (chance >= chance.sort(1, descending=True).values[:, max(least, 1) - 1 : max(least, 1)])
    if least == 0:
        mask = chance > 0.4
    return x, torch.ones_like(mask) if complete else mask


def penalty(info: dict[str, Any]) -> Tensor:
    total: Tensor = sum(info["regularisers"].values())
    return total


@given(samples())
def test_at_the_start_the_block_is_the_identity_bit_for_bit(drawn: tuple[Tensor, Tensor]) -> None:
    x, mask = drawn
    fresh = HybridCrossViewAttention(DIM, heads=2).double()
    out, info = fresh(x, mask)
    assert torch.equal(out[mask], x[mask])
    assert torch.equal(fresh(x)[0], x)
    assert (info["gate"] == 0.5).all()


@given(samples())
def test_rows_of_attention_are_weights_over_present_views(drawn: tuple[Tensor, Tensor]) -> None:
    x, mask = drawn
    _, info = block()(x, mask)
    attention = info["attention"]
    assert (attention >= 0).all()
    assert not attention.masked_select(~mask[:, None, None, :]).any()
    some = mask.any(1).double()[:, None, None].expand(attention.shape[:-1])
    assert_close(attention.sum(-1), some, **EXACT)
    assert ((info["gate"] > 0) & (info["gate"] < 1)).all()


@given(samples(), st.sampled_from([torch.nan, torch.inf, -1e300]))
def test_a_missing_view_changes_nothing_forward_and_backward(drawn: tuple[Tensor, Tensor], content: float) -> None:
    x, mask = drawn
    results = []
    for filler in (0.0, content):
        made = block()
        given_x = torch.where(mask[..., None], x, filler).requires_grad_()
        out, info = made(given_x, mask)
        (out.sin().sum() + info["shared"].sum() + penalty(info)).backward()
        gradients = [given_x.grad, *(parameter.grad for parameter in made.parameters())]
        results.append([out, info["attention"], info["coherence"], penalty(info), *gradients])
    for clean, soiled in zip(*results, strict=True):
        assert torch.equal(clean.nan_to_num(7), soiled.nan_to_num(7))
    assert not results[1][4][~mask].any()
    assert all(gradient.isfinite().all() for gradient in results[1][4:])


@given(samples())
def test_a_missing_view_is_as_good_as_one_that_is_not_there(drawn: tuple[Tensor, Tensor]) -> None:
    x, mask = drawn
    out, info = block()(x, mask)
    for sample in range(len(x)):
        here = mask[sample]
        alone, about = block()(x[sample : sample + 1, here])
        assert_close(out[sample, here], alone[0], **EXACT)
        assert_close(info["attention"][sample][:, here][:, :, here], about["attention"][0], **EXACT)
        assert_close(info["coherence"][sample], about["coherence"][0], equal_nan=True, **EXACT)
    assert not out[~mask].any()
    assert not info["shared"][~mask].any()
    assert not info["private"][~mask].any()


@given(samples(), st.randoms(use_true_random=False))
def test_the_order_of_views_and_of_samples_does_not_matter(drawn: tuple[Tensor, Tensor], random: Any) -> None:
    x, mask = drawn
    views, batch = list(range(x.shape[1])), list(range(len(x)))
    random.shuffle(views)
    random.shuffle(batch)
    out, info = block()(x, mask)
    moved, about = block()(x[batch][:, views], mask[batch][:, views])
    assert_close(moved, out[batch][:, views], **EXACT)
    assert_close(about["attention"], info["attention"][batch][:, :, views][..., views], **EXACT)
    assert_close(about["gate"], info["gate"][batch][..., views], **EXACT)
    assert_close(about["coherence"], info["coherence"][batch], equal_nan=True, **EXACT)
    assert_close(about["regularisers"], info["regularisers"], **EXACT)


@given(samples())
def test_the_output_is_that_of_the_formula_written_as_loops(drawn: tuple[Tensor, Tensor]) -> None:
    x, mask = drawn
    made = block()
    out, info = made(x, mask)
    width = DIM // 2
    query, key, value = made.content.weight.view(3, 2, width, DIM)
    agreement = made.agreement.weight.view(2, width, DIM)
    with torch.no_grad():
        for b, v in mask.nonzero().tolist():
            there = [u for u in range(x.shape[1]) if mask[b, u]]
            normed = {u: made.norm(x[b, u]) for u in there}
            heads = []
            for h in range(2):
                asks = query[h] @ normed[v]
                r = {u: agreement[h] @ normed[u] / (agreement[h] @ normed[u]).norm() for u in there}
                content = torch.stack([asks @ (key[h] @ normed[u]) / math.sqrt(width) for u in there]).softmax(0)
                beta = made.log_beta[h].exp()
                agree = torch.stack([beta * r[v] @ r[u] for u in there]).softmax(0)
                g = (made.gate.weight[h] @ normed[v] + made.gate.bias[h]).sigmoid()
                weights = g * content + (1 - g) * agree
                assert_close(info["attention"][b, h, v, there], weights, **EXACT)
                heads.append(sum(w * (value[h] @ normed[u]) for w, u in zip(weights, there, strict=True)))
            assert_close(out[b, v], x[b, v] + made.out.weight @ torch.cat(heads), **EXACT)
            assert_close(info["shared"][b, v], made.to_shared.weight @ out[b, v], **EXACT)
            assert_close(info["private"][b, v], made.to_private.weight @ out[b, v], **EXACT)


@given(samples())
def test_concentration_is_the_hinge_of_the_normalised_entropy(drawn: tuple[Tensor, Tensor]) -> None:
    x, mask = drawn
    _, info = block()(x, mask)
    terms: list[float] = []
    for b, v in mask.nonzero().tolist():
        n = int(mask[b].sum())
        if n < 2:
            continue
        for row in info["attention"][b, :, v].detach():
            h = torch.distributions.Categorical(row[mask[b]]).entropy().item() / math.log(n)
            assert -1e-9 <= h <= 1 + 1e-9
            terms.append(max(h - 0.7, 0) ** 2 + max(0.1 - h, 0) ** 2)
    expected = sum(terms) / len(terms) if terms else 0
    found = info["regularisers"]["concentration"].item()
    assert found == pytest.approx(expected, abs=1e-9)
    assert 0 <= found <= 0.3**2 + 1e-9


@given(samples())
def test_coherence_is_the_mean_cosine_of_pairs(drawn: tuple[Tensor, Tensor]) -> None:
    codes, mask = drawn
    found = coherence(codes, mask)
    for b in range(len(codes)):
        pairs = list(combinations(codes[b, mask[b]], 2))
        if not pairs:
            assert found[b].isnan()
            continue
        expected = sum(torch.cosine_similarity(a, c, dim=0) for a, c in pairs) / len(pairs)
        n = int(mask[b].sum())
        assert_close(found[b], expected, **EXACT)
        assert -1 / (n - 1) - 1e-9 <= found[b] <= 1 + 1e-9


def test_opposite_codes_reach_the_lower_bound_of_coherence() -> None:
    angles = torch.arange(3) * 2 * math.pi / 3
    star = torch.stack([angles.cos(), angles.sin()], -1)[None].double()
    assert_close(coherence(star, torch.ones(1, 3, dtype=torch.bool)), torch.tensor([-0.5]).double(), rtol=0, atol=1e-6)


@given(samples(least=2))
def test_identical_views_are_consistent(drawn: tuple[Tensor, Tensor]) -> None:
    x, mask = drawn
    _, info = block()(x[:, :1].expand_as(x), mask)
    assert_close(info["regularisers"]["consistency"], torch.zeros((), dtype=torch.float64), **EXACT)
    assert_close(info["coherence"], torch.ones(len(x), dtype=torch.float64), **EXACT)


def test_consistency_is_the_mean_over_samples_with_two_views() -> None:
    x, mask = torch.randn(4, 3, DIM).double(), torch.tensor([[1, 1, 1], [1, 0, 0], [0, 1, 1], [0, 0, 0]]).bool()
    _, info = block()(x, mask)
    c = info["coherence"]
    assert c.isnan().tolist() == [False, True, False, True]
    assert_close(info["regularisers"]["consistency"], 1 - (c[0] + c[2]) / 2)


def dispersion_by_definition(shared: Tensor, private: Tensor, mask: Tensor, floor: float) -> float:
    codes, views = torch.cat([shared, private], -1), range(mask.shape[1])
    spreads, related = [], []
    for v in views:
        rows = codes[mask[:, v], v]
        if len(rows) >= 2:
            spreads.append(float((floor - (rows.var(0, correction=0) + 1e-4).sqrt()).clamp(min=0).mean()))
    for a, c in combinations(views, 2):
        both = mask[:, a] & mask[:, c]
        if int(both.sum()) >= 2:
            x, y = (
                (rows - rows.mean(0)) / (rows.var(0, correction=0) + 1e-4).sqrt()
                for rows in (private[both, a], private[both, c])
            )
            related.append(float((x.T @ y / len(x)).square().mean()))
    return sum(spreads) / max(len(spreads), 1) + sum(related) / max(len(related), 1)


@given(samples(), st.floats(0.1, 3), st.floats(-1e3, 1e3))
def test_dispersion_is_that_of_the_definition(drawn: tuple[Tensor, Tensor], floor: float, shift: float) -> None:
    x, mask = drawn
    shared, private = x[..., :3] + shift, x[..., 3:] - shift
    found = dispersion(shared, private, mask, floor)
    assert float(found) == pytest.approx(dispersion_by_definition(shared, private, mask, floor), abs=1e-9)


def test_dispersion_keeps_its_digits_far_from_zero_in_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    codes, mask = torch.randn(64, 2, DIM, generator=generator), torch.ones(64, 2, dtype=torch.bool)
    near, far = (dispersion(x[..., :3], x[..., 3:], mask) for x in (codes, codes + 1000))
    assert_close(near, far, rtol=0, atol=2e-3)  # 1000 + x rounds x itself to 6e-5


def test_collapse_costs_the_floor_and_a_batch_of_one_costs_nothing() -> None:
    codes = torch.ones(5, 3, 4).double().requires_grad_()
    mask = torch.ones(5, 3, dtype=torch.bool)
    found = dispersion(codes[..., :2], codes[..., 2:], mask)
    found.backward()
    assert found.item() == pytest.approx(1 - 1e-2, abs=1e-9)
    assert codes.grad is not None
    assert codes.grad.isfinite().all()
    assert dispersion(codes[:1, :, :2], codes[:1, :, 2:], mask[:1]) == 0


def test_dispersion_is_zero_for_spread_and_uncorrelated_codes() -> None:
    signs = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]).double()  # orthogonal, mean zero
    shared, private = 2 * signs[:, None, :1].expand(4, 2, 1), 2 * signs[:, 1:, None]
    assert dispersion(shared, private, torch.ones(4, 2, dtype=torch.bool)) == 0
    related = dispersion(shared, private[:, :1].expand(4, 2, 1), torch.ones(4, 2, dtype=torch.bool))
    assert related == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("shape", [(1, 1), (4, 1), (3, 2), (0, 2)])
@pytest.mark.parametrize("present", [True, False])
def test_one_view_no_view_and_no_sample_are_finite(shape: tuple[int, int], present: bool) -> None:
    made = block()
    x = torch.ones(*shape, DIM).double().requires_grad_()
    out, info = made(x, torch.full(shape, present))
    (out.sum() + penalty(info)).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in made.parameters())
    assert out.isfinite().all()
    assert penalty(info).isfinite()
    assert info["coherence"].isnan().all() == (not present or shape[1] == 1 or shape[0] == 0)
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_a_code_of_zeros_has_no_direction_and_no_gradient() -> None:
    x = torch.tensor([[0.0, 0.0], [3e-9, 4e-9]], requires_grad=True)
    u = directions(x)
    u.sum().backward()
    assert_close(u, torch.tensor([[0, 0], [0.6, 0.8]]))
    assert x.grad is not None
    assert not x.grad[0].any()


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch warns of itself in forward mode
def test_gradients_are_those_of_finite_differences() -> None:
    x = torch.randn(3, 3, DIM, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    mask = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0]]).bool()
    made = block()
    # Random sums of the outputs have the gradients of all of them, in one backward pass.
    weights = torch.randn(3, 3, DIM, generator=torch.Generator().manual_seed(1)).double()

    def results(x: Tensor) -> tuple[Tensor, ...]:
        out, info = made(x, mask)
        shared = info["shared"]
        return (weights * out).sum(), (weights[..., : shared.shape[-1]] * shared).sum(), *info["regularisers"].values()

    assert torch.autograd.gradcheck(results, x, check_forward_ad=True)


def test_the_penalties_can_be_trained_away() -> None:
    torch.manual_seed(0)
    made = HybridCrossViewAttention(DIM)
    x = torch.randn(64, 3, DIM)
    optimizer = torch.optim.Adam(made.parameters(), lr=3e-2)
    first = None
    for _ in range(60):
        total = penalty(made(x)[1])
        first = total.item() if first is None else first
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert total.item() < first / 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_keeps_attention_and_penalties_in_float32(dtype: torch.dtype) -> None:
    made, x = block().float(), torch.randn(6, 3, DIM)
    out, info = made(x)
    with torch.autocast("cpu", dtype):
        low, about = made(x)
    assert low.dtype == torch.float32
    assert about["attention"].dtype == torch.float32
    assert {value.dtype for value in about["regularisers"].values()} == {torch.float32}
    assert_close(low, out, rtol=0, atol=0.1)
    assert_close(about["attention"], info["attention"], rtol=0, atol=0.05)
    halved, about = made.to(dtype)(x.to(dtype))
    assert halved.dtype == dtype
    assert about["coherence"].dtype == torch.float32


def test_state_and_copies_give_the_same_output() -> None:
    made, x = block(), torch.randn(3, 2, DIM).double()
    buffer = io.BytesIO()
    torch.save(made.state_dict(), buffer)
    buffer.seek(0)
    other = block(seed=1)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    for twin in (other, copy.deepcopy(made)):
        assert torch.equal(twin(x)[0], made(x)[0])


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch warns of itself when it compiles
def test_forward_and_backward_are_one_graph_with_the_same_result() -> None:
    made = block()
    x, mask = whole_batch()
    results = []
    for call in (made, torch.compile(made, fullgraph=True, backend="aot_eager")):
        given_x = x.clone().requires_grad_()
        out, info = call(given_x, mask)
        (out.sum() + penalty(info)).backward()
        results.append([out, info["attention"], info["coherence"], *info["regularisers"].values(), given_x.grad])
    for eager, whole in zip(*results, strict=True):
        assert_close(whole, eager, equal_nan=True, **EXACT)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch warns of itself when it compiles
@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="no C++ compiler")
def test_compiled_kernels_give_the_same_to_a_hundred_thousandth() -> None:
    made = block(train=False).float()
    x, mask = whole_batch()
    with torch.no_grad():  # Kernels of the backward pass would take as long again to build.
        (out, info), (fast, about) = (f(x.float(), mask) for f in (made, torch.compile(made, fullgraph=True)))
    close = {"rtol": 1e-5, "atol": 1e-5}
    assert_close(fast, out, **close)
    assert_close(about["attention"], info["attention"], **close)
    assert_close(about["coherence"], info["coherence"], equal_nan=True, **close)
    assert_close(about["regularisers"], info["regularisers"], **close)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 8, "heads": 3}, "heads must divide dim = 8, and 3 does not"),
        ({"dim": 8, "heads": 0}, "heads must divide dim"),
        ({"dim": 1, "heads": 1}, "dim .* at least 2"),
        ({"dim": 8, "shared": 8}, r"shared .* from 1 to dim - 1 = 7, not 8"),
        ({"dim": 8, "shared": 0}, r"shared .* not 0"),
        ({"dim": 8, "concentration": (0.8, 0.2)}, "concentration is .low, high."),
        ({"dim": 8, "concentration": (0.0, 1.2)}, "concentration is .low, high."),
        ({"dim": 8, "floor": 0.0}, "floor .* positive"),
        ({"dim": 8, "floor": math.nan}, "floor .* positive"),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HybridCrossViewAttention(**options)


@pytest.mark.parametrize(
    ("x", "mask", "message"),
    [
        (torch.zeros(2, 3, 5), None, r"x must be \(samples, views, dim=8\), not of shape \(2, 3, 5\)"),
        (torch.zeros(3, 8), None, r"x must be .* not of shape \(3, 8\)"),
        (torch.zeros(2, 3, 8), torch.ones(2, 2, dtype=torch.bool), r"view_mask .* \(2, 3\) .* not \(2, 2\)"),
        (torch.zeros(2, 3, 8), torch.ones(2, 3, 1, dtype=torch.bool), r"view_mask .* not \(2, 3, 1\)"),
        (torch.zeros(2, 3, 8), torch.ones(2, 3), r"view_mask must be bool, True where present, not torch.float32"),
    ],
)
def test_inputs_that_do_not_fit_are_named(x: Tensor, mask: Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HybridCrossViewAttention(8)(x, mask)


# What tells collapse from agreement


def test_shuffling_takes_agreement_away_but_not_collapse() -> None:
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(200, 1, 16, generator=generator)
    agreeing = common + 0.1 * torch.randn(200, 3, 16, generator=generator)
    collapsed = torch.ones(200, 3, 16) + 0.01 * agreeing
    good, bad = (view_consistency(codes, generator=generator) for codes in (agreeing, collapsed))
    assert good["coherence"] > 0.95
    assert abs(good["shuffled"]) < 0.1
    assert bad["coherence"] > 0.95
    assert bad["shuffled"] > 0.95
    assert good["spread"] > 50 * bad["spread"]


@given(samples(least=2, complete=True), SEEDS)
def test_the_control_pairs_no_sample_with_itself(drawn: tuple[Tensor, Tensor], seed: int) -> None:
    x, _ = drawn
    count, views = x.shape[:2]
    if count < views:
        return
    owner = torch.eye(count)[:, None].expand(count, views, count)  # Cosine 1 with itself, 0 with all others.
    assert not shuffled_coherence(owner, generator=torch.Generator().manual_seed(seed)).any()


def test_the_control_moves_codes_only_among_samples_that_have_the_view() -> None:
    mask = torch.tensor([[1, 1], [1, 1], [1, 0], [0, 0]]).bool()
    codes = torch.where(mask[..., None], torch.ones(4, 2, 3), torch.nan)
    found = shuffled_coherence(codes, mask)
    assert_close(found[:2], torch.ones(2))
    assert found[2:].isnan().all()
    assert not codes[mask].isnan().any()


def test_effective_rank_counts_directions() -> None:
    signs = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]).float()
    assert effective_rank(signs + 5) == pytest.approx(3)
    assert effective_rank(signs[:, :1] * torch.tensor([[1.0, 2.0]])) == pytest.approx(1)
    assert effective_rank(torch.full((50, 4), 0.1)) == 0
    assert effective_rank(signs.view(2, 2, 3), torch.tensor([[True, False], [True, False]])) == pytest.approx(1)
    assert math.isnan(effective_rank(signs[:1]))


def test_effective_rank_is_that_of_the_definition() -> None:
    codes = torch.randn(30, 5, generator=torch.Generator().manual_seed(0)).double()
    variances = torch.linalg.eigvalsh((codes - codes.mean(0)).T @ (codes - codes.mean(0)))
    p = variances.sqrt() / variances.sqrt().sum()
    assert effective_rank(codes) == pytest.approx(float(torch.distributions.Categorical(p).entropy().exp()))


# Several processes


def whole_batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(8, 3, DIM, generator=generator, dtype=torch.float64)
    mask = torch.rand(8, 3, generator=generator) > 0.3
    mask[:4, 2] = False  # One process never sees the third view.
    return torch.where(mask[..., None], x, torch.nan), mask


def measure(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    made = nn.parallel.DistributedDataParallel(block(), find_unused_parameters=True)
    x, mask = whole_batch()
    half = slice(0, 4) if rank == 0 else slice(4, 8)
    _, info = made(x[half], mask[half])
    penalty(info).backward()
    gradients = {name: parameter.grad for name, parameter in made.module.named_parameters()}
    state = {"gradients": gradients, "regularisers": {k: v.detach() for k, v in info["regularisers"].items()}}
    if rank == 0:  # In eval mode one process may run alone.
        made.module.eval()(x, mask)
    torch.save(state, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available(), reason="torch was built without distributed")
def test_two_processes_have_the_penalties_and_gradients_of_one(tmp_path: Path) -> None:
    multiprocessing.spawn(measure, args=(str(tmp_path),), nprocs=2)
    made = block()
    _, info = made(*whole_batch())
    penalty(info).backward()
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert_close(found["regularisers"], {k: v.detach() for k, v in info["regularisers"].items()}, **EXACT)
        for name, parameter in made.named_parameters():
            expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            assert_close(found["gradients"][name], expected, **EXACT)
