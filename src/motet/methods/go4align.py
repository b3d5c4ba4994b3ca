"""GO4Align, adaptive group risk minimisation: Shen et al., NeurIPS 2024, arXiv 2404.07486."""

import torch
from torch import Tensor

from motet.methods.base import LossMethod, register


@register("go4align", year=2024, cost="losses")
class GO4Align(LossMethod):
    r"""Bring losses to one scale, favour those that are low, and give tasks of like weights the same one.

    vₖ = pₖ Σⱼ Lⱼ / Lₖ with p ← p e^(-ηL) / Σ p e^(-ηL), p = 1/K at first. The K numbers v are put into groups by
    k-means, and w of a task is its group's centre.

    Args:
        groups: Number of groups, ≥ 1; K or more leaves v as it is. The paper chooses it for each data set.
        eta: η, ≥ 0: that of the authors' code.

    Shapes:
        losses (K,) → weights (K,).

    Scale:
        No law, because of e^(-ηL). With eta = 0 weights do not depend on the scale of all losses.

    Cost:
        One sort and groups × K² additions; one number of state a task.

    Note:
        K-means of numbers on a line has an exact solution, found here by dynamic programming; the authors' code
        starts k-means from points drawn at random. A task that joins late starts at the mean of the others' log p.
    """

    lower_bound = 0.0

    def __init__(self, groups: int = 2, eta: float = 1e-4) -> None:
        super().__init__()
        if groups < 1:
            raise ValueError(f"groups of GO4Align is a number of groups and must be at least 1, not {groups}")
        if not eta >= 0:
            raise ValueError(f"eta is the step of GO4Align's shares and must not be negative, not {eta}")
        self.groups = groups
        self.eta = eta
        self.scale = 1.0 if eta == 0 else None

    def weights(self, losses: Tensor) -> Tensor:
        losses = self.above_bound(losses)
        log_share = self.recall("log_share", losses, 0.0) - self.eta * losses
        self.remember("log_share", log_share - log_share.mean())
        return _grouped(log_share.softmax(0) * losses.sum() / losses, min(self.groups, len(losses)))


def _grouped(values: Tensor, groups: int) -> Tensor:
    """Each number's group mean, for the groups of least squared error: (K,) → (K,)."""
    order = values.argsort()
    values = values[order]
    places = torch.arange(len(values) + 1, device=values.device)
    sums, squares = (torch.cat([v.new_zeros(1), v.cumsum(0)]) for v in (values, values**2))
    size = places - places[:, None]
    # Of the group that holds the sorted numbers i … j - 1, in row i and column j.
    error = squares - squares[:, None] - (sums - sums[:, None]) ** 2 / size.clamp(min=1)
    error = torch.where(size > 0, error.clamp(min=0), torch.inf)
    best, starts = error[0], []
    for _ in range(groups - 1):
        best, start = (best[:, None] + error).min(0)
        starts.append(start)
    group, end = torch.zeros_like(places[1:]), places[-1]
    for start in reversed(starts):
        end = start[end]
        group += places[:-1] >= end
    sizes = values.new_zeros(groups).index_add(0, group, torch.ones_like(values))
    means = values.new_zeros(groups).index_add(0, group, values) / sizes
    return torch.empty_like(values).index_copy(0, order, means[group])
