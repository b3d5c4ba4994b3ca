"""Constant weights of gradients, the baseline to beat: Xin et al., NeurIPS 2022, arXiv 2209.11379."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from motet.linalg import as_double
from motet.methods.base import GramMethod, register


@register("constant", year=2022, cost="gram")
class Constant(GramMethod):
    r"""Fixed weights of the tasks' gradients on the trunk; heads learn unscaled.

    Args:
        weights: One number a task, of all tasks that there are, in their order; None for ones.

    Shapes:
        gram (K, K) → weights (K,); only its size is read.

    Scale:
        A loss times c has c times the say.

    Cost:
        That of the plain step: the weights are known before any gradient.

    Note:
        Weighted losses scale the heads' gradients, too; which is the same for Adam up to its ε, and not for SGD.
    """

    scale = 1.0

    def __init__(self, weights: Sequence[float] | None = None) -> None:
        super().__init__()
        if weights is not None and not (len(weights) and all(math.isfinite(weight) for weight in weights)):
            raise ValueError(f"weights of Constant are one finite number a task, or None, not {list(weights)}")
        self.values = None if weights is None else tuple(float(weight) for weight in weights)
        self.symmetric = weights is None

    def __repr__(self) -> str:
        return f"Constant(weights={self.values!r})"

    def known_weights(self, losses: Tensor) -> Tensor:
        like = as_double(losses.detach())
        if self.values is None:
            return torch.ones_like(like)
        return self.chosen(like.new_tensor(self.values), like)

    def weights(self, gram: Tensor) -> Tensor:
        return self.known_weights(gram[0])
