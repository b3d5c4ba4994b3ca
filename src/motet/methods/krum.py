"""Krum and Multi-Krum, the gradients nearest to their neighbours: Blanchard et al., NeurIPS 2017."""

import torch
from torch import Tensor

from motet.linalg import as_double
from motet.methods.base import GramMethod, register

_TIE = 1e-12
"""Of the largest squared norm: what scores may differ by and be equal, since they are differences of such numbers."""


@register("krum", year=2017, cost="gram")
class Krum(GramMethod):
    r"""Take the mean of the gradients that lie closest to others, and leave the outliers out.

    With f tasks that may be faulty, a gradient's score is the sum of the squared distances |gᵢ - gⱼ|² to its K - f - 2
    nearest others; the ``n_selected`` of least score share the weight.

    Args:
        n_byzantine: f ≥ 0, how many gradients may be anything at all.
        n_selected: How many gradients to average, ≥ 1: 1 is Krum, more is Multi-Krum.

    Shapes:
        gram (K, K) or (…, K, K) → weights (K,) or (…, K), summing to 1.

    Scale:
        All losses times c leave the weights as they are.

    Cost:
        One sort of K×K numbers.

    Note:
        The guarantee against f faulty gradients needs K > 2f + 2. With fewer tasks, as when some are absent from a
        batch, there is an answer all the same: at least one neighbour counts, and no more gradients are selected than
        there are. TorchJD raises an error below K = f + 3, and sums distances where the paper squares them, which can
        select others. Gradients of equal score share what is left to select, where TorchJD takes the first: two that
        are each other's nearest always tie when a single neighbour counts.
    """

    scale = 1.0
    batched = True

    def __init__(self, n_byzantine: int = 0, n_selected: int = 1) -> None:
        super().__init__()
        for name, value, least in (("n_byzantine", n_byzantine, 0), ("n_selected", n_selected, 1)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} of Krum is a whole number of gradients and at least {least}, not {value!r}")
        self.n_byzantine = n_byzantine
        self.n_selected = n_selected

    def weights(self, gram: Tensor) -> Tensor:
        gram = as_double(gram.detach())
        tasks = gram.shape[-1]
        squares = gram.diagonal(dim1=-2, dim2=-1)
        distances = (squares[..., :, None] + squares[..., None, :] - 2 * gram).clamp(min=0)
        itself = torch.eye(tasks, dtype=torch.bool, device=gram.device)
        neighbours = min(max(tasks - self.n_byzantine - 2, 1), tasks - 1)
        ordered = distances.masked_fill(itself, torch.inf).sort(-1).values
        scores = ordered[..., :neighbours].sum(-1)
        selected = min(self.n_selected, tasks)
        level = scores.sort(-1).values[..., selected - 1, None]
        tie = _TIE * tasks * squares.amax(-1, keepdim=True)
        below = (scores < level - tie).to(gram)
        tied = ((scores - level).abs() <= tie).to(gram)
        left = selected - below.sum(-1, keepdim=True)
        return (below + tied * left / tied.sum(-1, keepdim=True)) / selected
