"""NTKMTL, task balance by the neural tangent kernel: Qin et al., NeurIPS 2025, arXiv 2510.18258."""

import torch
from torch import Tensor

from motet.linalg import as_double
from motet.methods.base import GramMethod, register


@register("ntk-mtl", year=2025, cost="gram")
class NTKMTL(GramMethod):
    r"""Slow tasks down that the tangent kernel says learn fast: w = (Σⱼ λⱼ / λₖ)^p.

    λₖ is the largest eigenvalue of task k's neural tangent kernel. With the kernel between n parts of the batch, and
    n = 1 as in the paper's comparisons, it is the number λₖ = |gₖ|².

    Args:
        exponent: p in [0, 1/2]. With 1/2, the default of the authors' code, all gradients come to the length
            √Σⱼ|gⱼ|²; with 0 this is the sum. Beyond 1/2 the smallest gradient would become the longest.

    Shapes:
        gram (K, K) → weights (K,).

    Scale:
        All losses times c leave the weights as they are.

    Cost:
        Nothing beyond the diagonal of the Gram matrix.

    Note:
        The form with n = 1. The kernel between several parts of a batch needs gradients of each part, and so does
        NTKMTL-SR, which takes n = 4 at the shared representation and weights the losses, heads included. The authors'
        code multiplies the update by K and clips it at length 1; this does not. Tasks with a zero gradient have
        weight 0.
    """

    scale = 1.0

    def __init__(self, exponent: float = 0.5) -> None:
        super().__init__()
        if not 0 <= exponent <= 0.5:
            raise ValueError(f"exponent of NTKMTL must be at least 0 and at most 1/2, not {exponent}")
        self.exponent = exponent

    def weights(self, gram: Tensor) -> Tensor:
        largest = as_double(gram.detach()).diagonal().clamp(min=0)
        live = largest > 0
        return torch.where(live, (largest.sum() / torch.where(live, largest, 1.0)) ** self.exponent, 0.0)
