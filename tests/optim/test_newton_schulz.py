"""Newton–Schulz against the singular values it works on, torch's own, and numbers at the ends of their range."""

import pytest
import torch
from torch.testing import assert_close

from motet.optim.newton_schulz import COEFFICIENTS, newton_schulz

SHAPES = [(1, 1), (1, 7), (9, 1), (5, 8), (8, 5), (16, 16), (64, 40)]


def matrix(shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_singular_value_goes_through_the_polynomial_and_the_vectors_stay(shape):
    G = matrix(shape, dtype=torch.float64)
    a, b, c = COEFFICIENTS
    U, s, Vh = torch.linalg.svd(G, full_matrices=False)
    s = s / G.norm()
    for _ in range(5):
        s = a * s + b * s**3 + c * s**5
    assert_close(newton_schulz(G, dtype=torch.float64), U @ s.diag() @ Vh, rtol=0, atol=1e-12)


def test_five_steps_bring_all_but_the_smallest_values_near_one():
    s = torch.logspace(-2.301, 0, 4000, dtype=torch.float64)
    a, b, c = COEFFICIENTS
    for _ in range(5):
        s = a * s + b * s**3 + c * s**5
    assert 0.68 < s.min() < 0.69
    assert 1.15 < s.max() < 1.16


def test_convergent_coefficients_give_the_polar_factor():
    G = matrix((6, 9), dtype=torch.float64)
    U, _, Vh = torch.linalg.svd(G, full_matrices=False)
    found = newton_schulz(G, steps=30, coefficients=(1.875, -1.25, 0.375), dtype=torch.float64)
    assert_close(found, U @ Vh, rtol=0, atol=1e-12)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
@pytest.mark.parametrize("scale", [1.0, 1e-5, 1e6, 1e-8])
@pytest.mark.parametrize("shape", SHAPES)
def test_in_bfloat16_it_is_torchs_bit_for_bit(shape, scale):
    from torch.optim._muon import _zeropower_via_newtonschulz

    G = matrix(shape) * scale
    assert torch.equal(newton_schulz(G), _zeropower_via_newtonschulz(G, COEFFICIENTS, 5, 1e-7))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
@pytest.mark.parametrize("shape", [(5, 8), (8, 5)])
def test_a_batch_is_its_matrices_one_by_one(shape, dtype, tolerance):
    batch = torch.stack([matrix(shape, seed) * 10.0**seed for seed in range(4)])
    each = torch.stack([newton_schulz(G, dtype=dtype) for G in batch])
    assert_close(newton_schulz(batch, dtype=dtype), each, rtol=0, atol=tolerance)


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30, 3e37])
def test_the_scale_of_the_gradient_is_no_matter_without_a_floor(scale):
    G = matrix((6, 4))
    expected = newton_schulz(G, eps=0, dtype=torch.float32)
    assert_close(newton_schulz(G * scale, eps=0, dtype=torch.float32), expected, rtol=0, atol=1e-4)


def test_the_floor_shortens_what_is_smaller():
    G = matrix((6, 4), dtype=torch.float64)
    small = newton_schulz(G / G.norm() * 1e-12, dtype=torch.float64)
    # So far below the floor every step is its linear part.
    assert_close(small, G / G.norm() * 1e-5 * COEFFICIENTS[0] ** 5, rtol=1e-3, atol=0)


@pytest.mark.parametrize("eps", [0.0, 1e-7])
def test_a_zero_matrix_stays_zero_and_a_subnormal_one_finite(eps):
    assert not newton_schulz(torch.zeros(3, 5), eps=eps).any()
    assert newton_schulz(torch.full((3, 5), 1e-42), eps=eps).isfinite().all()


def test_missing_rank_is_not_made_up():
    G = matrix((8, 2), 1, torch.float64) @ matrix((2, 6), 2, torch.float64)
    values = torch.linalg.svdvals(newton_schulz(G, dtype=torch.float64))
    assert (values[:2] > 0.6).all()
    assert (values[2:] < 1e-12).all()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_is_not_hidden(bad):
    G = matrix((4, 4))
    G[1, 2] = bad
    assert newton_schulz(G).isnan().any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_input_stays_as_it_is(dtype):
    G = matrix((4, 6), dtype=dtype)
    before = G.clone()
    newton_schulz(G, dtype=dtype)
    assert torch.equal(G, before)
