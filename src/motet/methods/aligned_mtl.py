"""Aligned-MTL, independent component alignment: Senushkin et al., CVPR 2023, arXiv 2305.19000."""

import torch
from torch import Tensor

from motet.linalg import as_double
from motet.methods.base import GramMethod, register
from motet.solvers.threads import one_thread
from motet.solvers.unit_diagonal import ROUNDING, unit_diagonal


@register("aligned-mtl", year=2023, cost="gram")
class AlignedMTL(GramMethod):
    r"""Make the gradients orthogonal and as long as their weakest principal component, then take the mean.

    With G = V Λ Vᵀ of rank r and λᵣ its smallest eigenvalue that is not zero: w = √λᵣ V Λ^(-1/2) Vᵀ 1/K.

    Shapes:
        gram (…, K, K) → weights (…, K).

    Scale:
        All losses times c leave the weights as they are.

    Cost:
        Two eigendecompositions of K×K.

    Note:
        The authors' code also offers the mean of the eigenvalues for λᵣ. The rank is counted on the gradients
        brought to unit length, to the accuracy of float32, so that a task with small gradients is not taken
        for rounding; TorchJD counts it on G, to the accuracy of G's dtype.
    """

    batched = True
    scale = 1.0

    @one_thread
    def weights(self, gram: Tensor) -> Tensor:
        unit = unit_diagonal(gram)
        gram = torch.where(unit.finite[..., None, None], as_double(gram.detach()), unit.measured)
        tasks = gram.shape[-1]
        rank = (torch.linalg.eigvalsh(unit.measured) > tasks * ROUNDING).sum(-1) - (~unit.live).sum(-1)
        values, vectors = torch.linalg.eigh(gram)
        descending = torch.arange(tasks - 1, -1, -1, device=gram.device)
        kept = (descending < rank.unsqueeze(-1)) & (values > tasks * torch.finfo(values.dtype).eps * values[..., -1:])
        smallest = torch.where(kept, values, torch.inf).amin(-1, keepdim=True)
        # One ratio under one root: the eigenvalues themselves may be as small as 1e-24.
        balance = torch.where(kept, (smallest / values).sqrt(), 0.0)
        weights = (vectors @ (balance * vectors.mean(-2)).unsqueeze(-1)).squeeze(-1)
        weights, self.converged = unit.finish(weights, unit.finite)
        return weights
