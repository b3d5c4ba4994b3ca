"""DualProj, the projection of the mean gradient on the dual cone: Lopez-Paz & Ranzato, NIPS 2017, arXiv 1706.08840."""

import torch
from torch import Tensor

from motet.methods.base import GramMethod, register
from motet.solvers import project_on_dual_cone


@register("dual-proj", year=2017, cost="gram")
class DualProj(GramMethod):
    r"""The nearest direction to the mean gradient that hurts no task: min |d - g₀|² subject to Jd ≥ 0.

    Shapes:
        gram (…, K, K) → weights (…, K), each at least 1/K.

    Scale:
        All losses times c leave the weights as they are. A loss times c has about c times the say.

    Cost:
        One quadratic programme: about one millisecond at K = 40 on one CPU thread, two where gradients are linearly
        dependent.

    Note:
        The paper, GEM, projects the present task's gradient for the sake of earlier ones; its use on a mean is
        TorchJD's. TorchJD adds 1e-4 of the trace to the diagonal of G: see UPGrad.
    """

    batched = True
    by_products = True
    scale = 1.0
    no_conflict = True

    def weights(self, gram: Tensor) -> Tensor:
        mean = torch.full((1, gram.shape[-1]), 1.0, device=gram.device) / gram.shape[-1]
        projected, self.converged = project_on_dual_cone(gram, mean)
        return projected.squeeze(-2)
