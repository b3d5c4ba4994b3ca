"""Newton–Schulz orthogonalisation: Jordan et al., Muon, 2024, kellerjordan.github.io/posts/muon."""

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
EPS = 1e-7
STEPS = 5

# Exponents of float32 that neither overflow nor are subnormal; float64 has room beyond.
_EXPONENT = 126


def newton_schulz(
    matrices: Tensor,
    steps: int = STEPS,
    coefficients: tuple[float, float, float] = COEFFICIENTS,
    eps: float = EPS,
    dtype: torch.dtype = torch.bfloat16,
) -> Tensor:
    r"""Push all singular values towards 1 and keep the singular vectors: G = U Σ Vᵀ becomes about U Vᵀ.

        X ← G / max(‖G‖_F, ε),   then ``steps`` times   S = X Xᵀ,   X ← a X + (b S + c S²) X.

    Every step applies p(σ) = aσ + bσ³ + cσ⁵ to the singular values. With the default coefficients five steps take
    [0.005, 1] into [0.68, 1.16]: fast at lifting small values, never exactly 1. They multiply values near zero by
    a⁵ ≈ 485, so what is below about 0.002 of ‖G‖_F is not fully lifted.

    Args:
        matrices: The matrices, which stay as they are.
        steps: Iterations.
        coefficients: (a, b, c); (1.875, -1.25, 0.375) converges to U Vᵀ itself, slowly.
        eps: Smallest norm to divide by, ≥ 0. A matrix of smaller norm comes out smaller, a zero matrix as zero.
        dtype: Of the iteration and of the result.

    Shapes:
        matrices (m, n) or (B, m, n) → the same.

    Scale:
        Independent of the scale of G down to ‖G‖_F = ε, up to the largest numbers of its dtype.

    Cost:
        steps · (4 m²n + 2 m³) operations with m ≤ n.

    Note:
        ``torch.optim.Muon`` computes the same in bfloat16 for one matrix, bit for bit; its norm overflows beyond 1e19.
        Many matrices in one call round otherwise than one by one, in the last bit of ``dtype``.
    """
    a, b, c = coefficients
    X = _scaled(matrices, eps, dtype)
    tall = X.shape[-2] > X.shape[-1]
    X = X.mT if tall else X
    product = torch.addmm if X.ndim == 2 else torch.baddbmm
    for _ in range(steps):
        S = X @ X.mT
        X = product(X, product(S, S, S, beta=b, alpha=c), X, beta=a)
    return X.mT if tall else X


def _scaled(matrices: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """X = G / max(‖G‖_F, ε), a new tensor: (…, m, n).

    The largest entry is first brought near 1 by a power of two, which rounds nothing, so that no square overflows.
    """
    # bfloat16 has the range of float32, so that only wider numbers must be scaled before they are converted.
    X = matrices if matrices.dtype == torch.float64 else matrices.to(dtype)
    limit = 8 * _EXPONENT if X.dtype == torch.float64 else _EXPONENT
    top = X.abs().amax(dim=(-2, -1), keepdim=True)
    # Not by frexp, which some devices lack. An infinite entry ends in NaN, which is what it should.
    exponent = top.double().log2().floor() if top.device.type != "mps" else top.float().log2().floor()
    shrink = torch.exp2(-exponent.nan_to_num(neginf=0.0).clamp(-limit, limit)).to(X.dtype)
    X = (X * shrink).to(dtype)
    norm = torch.linalg.vector_norm(X, dim=(-2, -1), keepdim=True)
    floor = (shrink * eps).to(dtype)
    return X / torch.maximum(norm, floor).clamp(min=torch.finfo(dtype).tiny)
