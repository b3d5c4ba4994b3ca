"""The form in which all problems are solved: a Gram matrix with ones on its diagonal."""

from dataclasses import dataclass

import torch
from torch import Tensor

from motet.linalg import as_double

FLOOR = 1e-9
"""Smallest eigenvalue that a unit-diagonal Gram matrix is left with."""
ROUNDING = torch.finfo(torch.float32).eps
"""What float32 gradients leave uncertain in the cosine of two of them."""


@dataclass(frozen=True)
class UnitDiagonal:
    """G = N C N with N = diag(norms): what remains of a Gram matrix when the tasks' scales are taken out."""

    cosines: Tensor
    """C: (K, K), positive definite. Rows of zero norm are rows of the identity."""
    measured: Tensor
    """C as it came, positive semidefinite to rounding only: (K, K)."""
    norms: Tensor
    """(K,), with 1 in place of a zero."""
    live: Tensor
    """(K,) bool: the rows whose norm is not zero."""
    finite: Tensor
    """() bool: False where the Gram matrix held NaN or Inf; C is then the identity."""

    def finish(self, weights: Tensor, converged: Tensor) -> tuple[Tensor, Tensor]:
        """The answer to a caller: NaN and not converged where the Gram matrix was not finite."""
        return torch.where(self.finite, weights, torch.nan), converged & self.finite


def unit_diagonal(gram: Tensor) -> UnitDiagonal:
    """Bring a Gram matrix to unit diagonal, so that no tolerance depends on the scale of any task.

    A Gram matrix of float32 gradients is positive semidefinite to about 1e-7 only, and duplicated tasks
    make it singular. Its eigenvalues are therefore lifted to `FLOOR`; those above are left as they are.

    Shapes:
        gram (K, K) → C (K, K) in float64, on the same device.
    """
    gram = as_double(gram.detach())
    identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    finite = gram.isfinite().all()
    gram = torch.where(finite, gram, identity)  # eigh raises on NaN
    live = gram.diagonal() >= torch.finfo(gram.dtype).tiny
    norms = torch.where(live, gram.diagonal(), 1.0).sqrt()
    measured = (gram / norms / norms[:, None]).clamp(-1, 1)
    measured = torch.where(live & live[:, None] & (identity == 0), (measured + measured.T) / 2, identity)
    values, vectors = torch.linalg.eigh(measured)
    cosines = measured + (vectors * (FLOOR - values).clamp(min=0)) @ vectors.T
    return UnitDiagonal(cosines, measured, norms, live, finite)
