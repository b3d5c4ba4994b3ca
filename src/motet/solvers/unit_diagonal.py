"""The form in which all problems are solved: a Gram matrix with ones on its diagonal."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from motet.linalg import as_double

ROUNDING = torch.finfo(torch.float32).eps
"""What float32 gradients leave uncertain in the cosine of two of them."""
FLOOR = 1e-9
"""Smallest eigenvalue of `UnitDiagonal.cosines`."""
LIFT = 5e-8
"""Smallest eigenvalue with which `lifted` leaves a matrix as it is, and the least lift of the others."""


@dataclass(frozen=True)
class UnitDiagonal:
    """G = N C N with N = diag(norms): what remains of a Gram matrix when the tasks' scales are taken out."""

    measured: Tensor
    """C as it came: (…, K, K), positive semidefinite to rounding only. Rows of zero norm are rows of the identity."""
    norms: Tensor
    """(…, K), with 1 in place of a zero."""
    live: Tensor
    """(…, K) bool: the rows whose norm is not zero."""
    finite: Tensor
    """(…) bool: False where the Gram matrix held NaN or Inf; C is then the identity."""

    @cached_property
    def cosines(self) -> Tensor:
        """C with all eigenvalues below `FLOOR` brought up to it, and the others left as they are: (…, K, K)."""
        values, vectors = torch.linalg.eigh(self.measured)
        cosines: Tensor = self.measured + (vectors * (FLOOR - values).clamp(min=0).unsqueeze(-2)) @ vectors.mT
        return cosines

    def finish(self, weights: Tensor, converged: Tensor) -> tuple[Tensor, Tensor]:
        """The answer to a caller, weights (…, K) or (…, N, K): NaN, not converged where the matrix was not finite."""
        finite = self.finite.reshape(self.finite.shape + (1,) * (weights.dim() - self.finite.dim()))
        return torch.where(finite, weights, torch.nan), converged & self.finite


def unit_diagonal(gram: Tensor) -> UnitDiagonal:
    """Bring Gram matrices to unit diagonal, so that no tolerance depends on the scale of any task.

    Shapes:
        gram (…, K, K) → C (…, K, K) in float64, on the same device.
    """
    gram = as_double(gram.detach())
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    finite = gram.isfinite().flatten(-2).all(-1)
    gram = torch.where(finite[..., None, None], gram, identity)  # one broken matrix must not stop the others
    squares = gram.diagonal(dim1=-2, dim2=-1)
    live = squares >= torch.finfo(gram.dtype).tiny
    norms = torch.where(live, squares, 1.0).sqrt()
    measured = (gram / norms.unsqueeze(-1) / norms.unsqueeze(-2)).clamp(-1, 1)
    measured = (measured + measured.mT) / 2
    known = live.unsqueeze(-1) & live.unsqueeze(-2) & (identity == 0)
    return UnitDiagonal(torch.where(known, measured, identity), norms, live, finite)


def lifted(cosines: Tensor) -> tuple[Tensor, Tensor]:
    """C + δI that is safely positive definite, and δ: (…, K, K) → (…, K, K), (…).

    Duplicated tasks make C singular, and float32 gradients leave it positive semidefinite to about 1e-7 only. δ is
    zero where the smallest eigenvalue is `LIFT` or more, else 4/3 of what that is below zero, and at least `LIFT`.

    Cost:
        A Cholesky factorisation, and the eigenvalues of what fails it. The host looks once.
    """
    identity = torch.eye(cosines.shape[-1], dtype=cosines.dtype, device=cosines.device)
    lift = torch.zeros_like(cosines[..., 0, 0])
    short = torch.linalg.cholesky_ex(cosines - LIFT * identity).info > 0
    if not short.any():
        return cosines, lift
    lift[short] = (-4 / 3 * torch.linalg.eigvalsh(cosines[short])[..., 0]).clamp(min=LIFT)
    return cosines + lift[..., None, None] * identity, lift
