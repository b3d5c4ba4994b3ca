"""ConFIG, conflict-free inverse gradients: Liu et al., 2024, arXiv 2408.11104."""

import torch
from torch import Tensor

from motet.methods.base import GramMethod, register
from motet.solvers import unit_diagonal
from motet.solvers.unit_diagonal import ROUNDING


@register("config", year=2024, cost="gram")
class ConFIG(GramMethod):
    r"""The direction that has the same cosine with every gradient, as long as all gradients' shares in it together.

    With unit gradients U (K×P) and their pseudo-inverse

        u = U⁺1 / |U⁺1|,  d = (Σₖ gₖ·u) u.

    Shapes:
        gram (K, K) → weights (K,).

    Scale:
        All losses times c leave the weights as they are; one loss times c leaves the direction.

    Cost:
        One eigendecomposition of the cosines between the tasks, C = U Uᵀ: U⁺1 = Uᵀ C⁺1.

    Note:
        No task loses where the gradients are linearly independent. Where they are not, U⁺1 is the least-squares
        answer, the cosines differ and some may be negative; where no direction has a positive sum of cosines, as with
        two opposite gradients, the update is zero. Directions in which unit gradients have singular values below
        √(K·1.2e-7) count as none: float32 gradients leave no more in a Gram matrix. The authors' code and TorchJD work
        on U itself and cut off later. Tasks with a zero gradient are left out. The momentum variant M-ConFIG, with one
        backward pass a step, is not included.
    """

    scale = 1.0

    def weights(self, gram: Tensor) -> Tensor:
        unit = unit_diagonal(gram)
        ones = unit.live.to(unit.norms)
        values, vectors = torch.linalg.eigh(unit.cosines)
        kept = (values > len(ones) * ROUNDING) * (ones @ vectors)
        shares = vectors @ (kept / values.clamp(min=ROUNDING)) * ones
        cosines = vectors @ kept  # with every task, times |U⁺1|
        # What is left of 1 may be rounding, of which d would be made at full length.
        squared = torch.where(ones @ cosines > len(ones) * ROUNDING, ones @ shares, torch.inf)
        weights = shares * (unit.norms @ (cosines * ones)) / squared / unit.norms
        return unit.finish(weights, unit.finite)[0]
