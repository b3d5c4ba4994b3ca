"""UPGrad, the mean of the gradients' projections on the dual cone: Quinton & Rey, 2024, arXiv 2406.16232."""

import torch
from torch import Tensor

from motet.methods.base import GramMethod, register
from motet.solvers import project_on_dual_cone


@register("upgrad", year=2024, cost="gram")
class UPGrad(GramMethod):
    r"""Project every task's gradient on the directions that hurt no task, {d : Jd ≥ 0}, and take the mean.

    Never conflicts with any task; without conflict it is the mean gradient.

    Shapes:
        gram (…, K, K) → weights (…, K), each at least 1/K.

    Scale:
        All losses times c leave the weights as they are. A loss times c has about c times the say.

    Cost:
        K quadratic programmes at once: one to two milliseconds at K = 40 on one CPU thread, four to five where
        gradients are linearly dependent.

    Note:
        TorchJD adds 1e-4 of the trace to the diagonal of G, so that there a task with gradients 100 times
        smaller than the others' is run over, and all gradients below a norm of 0.01 give the plain mean.
    """

    batched = True
    scale = 1.0
    no_conflict = True

    def weights(self, gram: Tensor) -> Tensor:
        targets = torch.eye(gram.shape[-1], device=gram.device) / gram.shape[-1]
        projected, self.converged = project_on_dual_cone(gram, targets)
        return projected.sum(-2)
