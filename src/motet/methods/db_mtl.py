"""DB-MTL, dual-balancing of losses and gradients: Lin et al., 2023, arXiv 2308.12029."""

import torch
from torch import Tensor

from motet.linalg import as_double
from motet.methods.base import GramMethod, register


@register("db-mtl", year=2023, cost="gram")
class DBMTL(GramMethod):
    r"""Take log-losses, and bring all their gradients to the length of the longest: w = maxⱼ|gⱼ| / |gₖ|.

    Args:
        beta: Smoothing of the gradients over steps, in [0, 1): each is replaced by its moving average before its
            norm is taken. 0, the default, needs the Gram matrix only.

    Shapes:
        gram of the log-losses' gradients (…, K, K) → weights (…, K).

    Scale:
        A loss times c leaves everything as it is: log-losses.

    Cost:
        With beta = 0 one division. With beta > 0 the whole K×P Jacobian at every step and as much again in state.

    Note:
        The paper smooths, its code with 0.9. Here 0 is the default, because K×P numbers of state undo what a
        route on the Gram matrix saves, and the optimizer's momentum smooths too. The average is corrected
        for its start at zero, task by task; the authors' is not, which shortens their first steps. Tasks with a
        zero gradient have weight 0.
    """

    batched = True
    scale = 0.0

    lower_bound = 0.0

    def __init__(self, beta: float = 0.0) -> None:
        super().__init__()
        if not 0 <= beta < 1:
            raise ValueError(f"beta is DB-MTL's smoothing and must be at least 0 and below 1, not {beta}")
        self.beta = beta
        if beta > 0:
            self.needs, self.same_rows = "jacobian", True

    def loss_weights(self, losses: Tensor) -> Tensor:
        return 1 / self.above_bound(losses)

    def weights(self, gram: Tensor) -> Tensor:
        norms = as_double(gram.detach()).diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()
        return torch.where(norms > 0, norms.amax(-1, keepdim=True) / norms, 0.0)

    def direction(self, jacobian: Tensor) -> Tensor:
        if self.beta == 0:
            return super().direction(jacobian)
        jacobian = jacobian.detach()
        average = self.recall("average", jacobian, 0.0).lerp_(jacobian, 1 - self.beta)
        steps = self.recall("steps", jacobian[:, 0], 0.0) + 1
        direction = super().direction(average / (1 - self.beta**steps)[:, None])
        # One gradient that is not finite shows in every entry; kept in the average, it would in every later step.
        if direction.isfinite().all():
            self.remember("average", average)
            self.remember("steps", steps)
        return direction
