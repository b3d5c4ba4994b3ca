"""The simplex of weights: w ≥ 0, Σw = 1."""

import torch
from torch import Tensor


def project_on_simplex(point: Tensor) -> Tensor:
    """The nearest weights that are not negative and sum to 1: (K,) → (K,).

    All entries above a level are lowered by it, the others become zero; the level is found from the sorted entries.
    """
    # The largest entry goes to 0 first: in numbers of 1e20 the sum of 1 would be lost.
    point = point - point.amax()
    ordered = point.sort(descending=True).values
    counts = torch.arange(1, len(point) + 1, device=point.device, dtype=point.dtype)
    levels = (ordered.cumsum(0) - 1) / counts
    above = (ordered > levels).sum().clamp(min=1)
    return (point - levels[above - 1]).clamp(min=0)


def recall_weights(stored: Tensor) -> Tensor:
    """Weights as they were kept, made to sum to 1 over the tasks that are present: (K,) → (K,)."""
    total = stored.sum()
    return torch.where(total > 0, stored / total, 1 / len(stored))
