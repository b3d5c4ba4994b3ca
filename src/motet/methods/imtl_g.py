"""IMTL-G, equal projections on all gradients: Liu et al., ICLR 2021."""

import torch
from torch import Tensor

from motet.methods.base import GramMethod, register
from motet.solvers.threads import one_thread
from motet.solvers.unit_diagonal import ROUNDING, unit_diagonal


@register("imtl-g", year=2021, cost="gram")
class IMTLG(GramMethod):
    r"""The direction of Σw = 1 that has the same projection gₖ·d/|gₖ| on every task's gradient.

    With the unit-diagonal Gram matrix C and norms n: w ∝ n⁻¹ ∘ C⁺1, which solves G w ∝ n.

    Shapes:
        gram (…, K, K) → weights (…, K), summing to 1; some may be negative.

    Scale:
        All losses times c leave the weights as they are; one loss times c leaves the line
        of the direction, not its length nor, in conflict, its sign.

    Cost:
        One eigendecomposition of K×K.

    Note:
        Where gradients are linearly dependent the solution is not unique, and this is the one with the
        smallest Σ(wₖ|gₖ|)²; TorchJD's has the smallest Σwₖ², which depends on the scale of each task and may have
        another length. Where no solution has a nonzero sum (Σ|w| is 1 instead), or gradients of unit length
        cancel, ``converged`` is False. Tasks with a zero gradient have weight 0, or 1/K if all do.
    """

    batched = True
    scale = 1.0

    @one_thread
    def weights(self, gram: Tensor) -> Tensor:
        unit = unit_diagonal(gram)
        tasks = unit.norms.shape[-1]
        values, vectors = torch.linalg.eigh(unit.measured)
        inverse = torch.where(values > tasks * ROUNDING, 1 / values, 0.0)
        ones = unit.live.to(values)
        part = inverse * (vectors.mT @ ones.unsqueeze(-1)).squeeze(-1)
        lengths = (vectors @ part.unsqueeze(-1)).squeeze(-1) * ones  # wₖ|gₖ|
        # Unit gradients that sum to zero have no common positive projection: their plain sum stands in.
        lost = lengths.abs().amax(-1, keepdim=True) <= 1e-9
        some = unit.live.any(-1, keepdim=True)
        raw = torch.where(some, torch.where(lost, ones, lengths) / unit.norms, 1.0)
        total, size = raw.sum(-1, keepdim=True), raw.abs().sum(-1, keepdim=True)
        solved = (total.abs() > 1e-9 * size) & ~(lost & some)
        weights, self.converged = unit.finish(raw / torch.where(solved, total, size), solved.squeeze(-1))
        return weights
