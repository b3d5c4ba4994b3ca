"""Gradient similarity, auxiliary losses that agree with the main one: Du et al., 2018, arXiv 1812.02224."""

import torch
from torch import Tensor

from motet.linalg import as_double
from motet.methods.base import GramMethod, register
from motet.methods.main_task import check_main, is_main


@register("grad-sim", year=2018, cost="gram")
class GradSim(GramMethod):
    r"""Leave out every auxiliary gradient that goes against the main task's, so that the main loss still converges.

    With cₖ the cosine of gₖ and g_main,

        wₖ = 1 if cₖ ≥ 0 else 0,  or with ``weighted`` wₖ = max(0, cₖ),  w_main = 1.

    The update never goes against the main task: d·g_main ≥ |g_main|².

    Args:
        main: Index of the main task.
        weighted: Whether to weight by the cosine, the paper's other variant.

    Shapes:
        gram (K, K) or (…, K, K) → weights (K,) or (…, K).

    Scale:
        All losses times c leave the weights as they are.

    Cost:
        One row of the Gram matrix.

    Note:
        The paper has one auxiliary task; here each is compared with the main task by itself. Where the main task is
        absent from the batch it counts as one of zero gradient: no cosine is below zero, and none above.
    """

    scale = 1.0
    symmetric = False
    batched = True

    def __init__(self, main: int = 0, weighted: bool = False) -> None:
        super().__init__()
        self.main = check_main(self, main)
        self.weighted = weighted

    def weights(self, gram: Tensor) -> Tensor:
        gram = as_double(gram.detach())
        main = is_main(self, (self.main,), gram)
        products = gram @ main
        if not self.weighted:
            return torch.maximum((products >= 0).to(gram), main)
        norms = gram.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()
        size = norms * (norms @ main).unsqueeze(-1)
        cosines = torch.where(size > 0, products / torch.where(size > 0, size, 1.0), 0.0)
        return torch.maximum(cosines.clamp(0, 1), main)
