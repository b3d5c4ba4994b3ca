"""Direction preservation against its formulas, its guard, and the theorem on what Muon does to tasks' weights."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from motet.optim import APTMuon
from motet.optim.newton_schulz import newton_schulz
from motet.optim.preservation import RankOne, blended, effective_rank, oracle, preserved_input


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def polar(G):
    """U Vᵀ over the singular values that are not rounding."""
    U, s, Vh = torch.linalg.svd(G, full_matrices=False)
    kept = s > 1e-10 * s[0]
    return U[:, kept] @ Vh[kept]


def cosine(A, B):
    return float((A * B).sum() / (A.norm() * B.norm()))


def low_rank_tasks(seed=0, scales=(1.0, 0.1, 0.01), m=64, n=48, rank=6):
    """Three tasks of rank 6 and unlike scale, in general position: (3, m, n)."""
    tasks = [
        numbers(m, rank, seed=10 * seed + i) @ numbers(rank, n, seed=10 * seed + i + 5) for i in range(len(scales))
    ]
    return torch.stack([scale * G / G.norm() for scale, G in zip(scales, tasks, strict=True)])


def with_noise(tasks, share, seed=0):
    noise = numbers(*tasks.shape, seed=seed + 1000)
    size = tasks.norm(dim=(-2, -1), keepdim=True) / noise.norm(dim=(-2, -1), keepdim=True)
    return tasks + share * size * noise


def test_weights_of_tasks_in_orthogonal_spaces_have_no_effect_on_the_polar_factor():
    left, right = torch.linalg.qr(numbers(12, 12)).Q, torch.linalg.qr(numbers(10, 10, seed=1)).Q
    tasks = [left[:, 3 * i : 3 * i + 3] @ numbers(3, 3, seed=i + 2) @ right[:, 3 * i : 3 * i + 3].T for i in range(3)]
    expected = sum(polar(G) for G in tasks)
    for weights in ((1.0, 1.0, 1.0), (1.0, 1e-2, 1e2), (7.0, 0.3, 1e-4)):
        found = polar(sum(w * G for w, G in zip(weights, tasks, strict=True)))
        assert_close(found, expected, rtol=0, atol=1e-12)


def test_tasks_that_oppose_each_other_in_a_shared_space_fare_worse_with_muon():
    # Task 2 is -0.9 of one half of task 1 and a part of its own: de-confliction is still needed.
    left, right = torch.linalg.qr(numbers(12, 12)).Q, torch.linalg.qr(numbers(12, 12, seed=1)).Q
    half, other, own = (left[:, k : k + 3] @ right[:, k : k + 3].T for k in (0, 3, 6))
    first, second = half + other, -0.9 * half + own
    plain = first + second
    weaker = min(cosine(plain, first), cosine(plain, second))
    muon = polar(plain)
    assert cosine(muon, first) > cosine(plain, first)
    assert cosine(muon, second) < 0.2 < weaker


def test_muon_serves_tasks_of_unlike_scale_where_the_plain_gradient_serves_one():
    shares = []
    for seed in range(6):
        tasks = low_rank_tasks(seed)
        total = tasks.sum(0)
        rules = total, total.sign(), newton_schulz(total, dtype=torch.float64)
        shares.append([[cosine(update, G) for G in tasks] for update in rules])
    plain, sign, muon = torch.tensor(shares).mean(0)
    assert_close(plain, torch.tensor([0.995, 0.10, 0.02]), rtol=0, atol=0.02)
    assert_close(sign, torch.tensor([0.76, 0.08, 0.02]), rtol=0, atol=0.03)
    assert (muon > 0.4).all()
    assert muon.max() - muon.min() < 0.1


def test_preservation_lifts_the_weakest_task_that_noise_hides_l2_the_most():
    weakest = {"plain": [], "L1": [], "L2": []}
    for seed in range(6):
        tasks = with_noise(low_rank_tasks(seed), 0.1, seed)
        U = tasks.sum(0)[None]
        for variant, found in weakest.items():
            X = U if variant == "plain" else preserved_input(variant, 0.1, U, U, U, tasks[:, None])
            found.append(cosine(newton_schulz(X[0], dtype=torch.float64), tasks[2]))
    plain, first, second = (sum(found) / len(found) for found in weakest.values())
    assert second > first > 2 * plain


@pytest.mark.parametrize("variant", ["L1", "L2", "L6"])
def test_the_formulas_by_hand(variant):
    U, tasks = numbers(1, 4, 3), numbers(3, 1, 4, 3, seed=1)
    rho = 0.3
    mean = sum(G / G.norm() for G in tasks[:, 0]) / 3
    if variant == "L2":
        mean = mean - (mean * U[0]).sum() / (U[0] ** 2).sum() * U[0]
    if variant == "L6":
        rows = torch.stack([(G / G.norm()).flatten() for G in tasks])
        rho *= (1 - effective_rank(U[0]) / 3) * (effective_rank(rows) - 1) / 2
    expected = U[0] + rho * U[0].norm() * mean / mean.norm()
    assert_close(preserved_input(variant, 0.3, U, U, U, tasks)[0], expected, rtol=1e-10, atol=1e-12)


def test_l3_mixes_momentum_and_the_instant_gradient():
    U, M, D = (numbers(1, 4, 3, seed=seed) for seed in range(3))
    expected = U.norm() * (0.8 * M / M.norm() + 0.2 * D / D.norm())
    assert_close(preserved_input("L3", 0.2, U, M, D, None), expected)


def test_l4_mixes_the_orthogonal_and_the_plain_update():
    U = numbers(1, 4, 3)
    O = newton_schulz(U, dtype=torch.float64)  # noqa: E741
    assert_close(blended(0.25, O, U), 0.75 * O + 0.25 * 3**0.5 * U / U.norm())
    assert torch.equal(blended(0.25, O, torch.zeros_like(U)), 0.75 * O)


def test_l5_is_plain_muon_where_the_tasks_do_not_meet():
    tasks = torch.zeros(2, 1, 4, 4, dtype=torch.float64)
    tasks[0, 0, :2, :2], tasks[1, 0, 2:, 2:] = numbers(2, 2), 100 * numbers(2, 2, seed=1)
    options = {"steps": 30, "coefficients": (1.875, -1.25, 0.375), "dtype": torch.float64}
    O = newton_schulz(tasks.sum(0), **options)  # noqa: E741
    by_task = newton_schulz(tasks.flatten(0, 1), **options).view(tasks.shape)
    assert_close(oracle(1.0, O, by_task), O, rtol=0, atol=1e-6)


@given(
    st.sampled_from(["L1", "L2", "L3", "L6"]),
    st.floats(0, 1),
    st.integers(0, 10**6),
    st.integers(2, 5),
    st.sampled_from([1e-12, 1.0, 1e12]),
)
def test_the_input_grows_by_no_more_than_the_strength(variant, rho, seed, count, scale):
    U, tasks = numbers(2, 5, 4, seed=seed).float() * scale, numbers(count, 2, 5, 4, seed=seed + 1).float() / scale
    found = preserved_input(variant, rho, U, U, U.flip(-1), tasks)
    assert found.isfinite().all()
    assert (found.norm(dim=(1, 2)) <= (1 + rho) * U.norm(dim=(1, 2)) * (1 + 1e-5)).all()


@given(st.sampled_from(["L1", "L2", "L6"]), st.integers(0, 10**6), st.floats(1e-6, 1e6))
def test_a_tasks_own_scale_is_no_matter(variant, seed, scale):
    U, tasks = numbers(1, 5, 4, seed=seed), numbers(3, 1, 5, 4, seed=seed + 1)
    scaled = tasks * torch.tensor([1.0, scale, 1.0], dtype=torch.float64)[:, None, None, None]
    expected = preserved_input(variant, 0.5, U, U, U, tasks)
    assert_close(preserved_input(variant, 0.5, U, U, U, scaled), expected, rtol=1e-6, atol=1e-9)


def test_l2_adds_no_rounding_noise_where_the_update_has_all_directions_already():
    left = numbers(64, 6) @ numbers(6, 48, seed=1)
    U = left.float()[None]
    tasks = torch.stack([U, 3 * U * (1 + 1e-6)])
    assert torch.equal(preserved_input("L2", 0.5, U, U, U, tasks), U)
    # Without the guard the residual, of rank 42 too many, would be brought to full length.
    flattened = newton_schulz(preserved_input("L2", 0.5, U, U, U, tasks), dtype=torch.float32)
    assert effective_rank(flattened)[0] < 6.1


@pytest.mark.parametrize("variant", ["L1", "L2", "L6"])
@pytest.mark.parametrize(
    "tasks",
    [
        torch.zeros(2, 1, 3, 3),
        torch.stack([torch.eye(3), -torch.eye(3)])[:, None],
        torch.stack([torch.eye(3), torch.full((3, 3), torch.nan)])[:, None],
        torch.stack([torch.eye(3), torch.full((3, 3), torch.inf)])[:, None],
        torch.ones(1, 1, 3, 3),
    ],
    ids=["zero", "opposite", "nan", "infinite", "one"],
)
def test_tasks_without_a_common_direction_leave_the_update_alone(variant, tasks):
    U = numbers(1, 3, 3).float()
    assert torch.equal(preserved_input(variant, 0.5, U, U, U, tasks), U)


@pytest.mark.parametrize("variant", ["L1", "L2", "L3", "L6"])
def test_a_zero_update_stays_zero(variant):
    zero = torch.zeros(1, 4, 3)
    assert not preserved_input(variant, 0.5, zero, zero, zero, numbers(2, 1, 4, 3).float()).any()


@pytest.mark.parametrize("variant", ["L1", "L2", "L6"])
def test_a_rank_one_summary_is_its_outer_products(variant):
    left, right, U = numbers(3, 2, 5), numbers(3, 2, 4, seed=1), numbers(2, 5, 4, seed=2)
    left[1] = 0
    whole = left[..., :, None] * right[..., None, :]
    found = preserved_input(variant, 0.5, U, U, U, RankOne(left, right))
    assert_close(found, preserved_input(variant, 0.5, U, U, U, whole), rtol=1e-6, atol=1e-9)


def test_the_effective_rank_counts_equal_directions():
    assert_close(effective_rank(torch.eye(7)[:, :5] * 1e30), torch.tensor(5.0, dtype=torch.float64))
    assert_close(effective_rank(torch.ones(4, 6)), torch.tensor(1.0, dtype=torch.float64), rtol=0, atol=1e-6)
    spectrum = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    assert_close(effective_rank(spectrum.diag()), torch.tensor(2**1.5, dtype=torch.float64))
    assert effective_rank(torch.zeros(2, 3, 3)).tolist() == [0.0, 0.0]
    assert effective_rank(torch.full((2, 2), torch.nan)).isnan()


def test_task_gradients_in_double_precision_serve_parameters_in_single():
    torch.manual_seed(0)
    matrix = torch.nn.Parameter(torch.randn(4, 3))
    rows = torch.randn(2, 12)
    moved = []
    for dtype in (torch.float32, torch.float64):
        p = torch.nn.Parameter(matrix.detach().clone())
        optimizer = APTMuon([p], preserve=0.5, variant="L2")
        p.grad = rows.sum(0).view(4, 3)
        optimizer.task_gradients(rows.to(dtype), [p])
        optimizer.step()
        moved.append(p.detach())
    assert torch.equal(*moved)
