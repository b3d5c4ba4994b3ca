"""Trimmed mean, without the extremes of every coordinate: Yin et al., ICML 2018, arXiv 1803.01498."""

import torch
from torch import Tensor

from motet.methods.base import JacobianMethod, register

_BLOCK = 1 << 18


@register("trimmed-mean", year=2018, cost="jacobian")
class TrimmedMean(JacobianMethod):
    r"""In every coordinate leave out the largest and the smallest gradients, and take the mean of the rest.

    Args:
        trim: How many to leave out at each end, ≥ 0; 0 is the mean.

    Shapes:
        jacobian (K, P) → direction (P,).

    Scale:
        All losses times c give c times the direction.

    Cost:
        The whole Jacobian, sorted in blocks of columns.

    Note:
        With K ≤ 2 trim gradients, as when tasks are absent from a batch, as many are left out as leave one or two in
        the middle: the median. TorchJD raises an error there, and is the same elsewhere.
    """

    scale = 1.0

    def __init__(self, trim: int = 1) -> None:
        super().__init__()
        if isinstance(trim, bool) or not isinstance(trim, int) or trim < 0:
            raise ValueError(f"trim of TrimmedMean is a whole number of gradients and at least 0, not {trim!r}")
        self.trim = trim

    def direction(self, jacobian: Tensor) -> Tensor:
        jacobian = jacobian.detach()
        cut = min(self.trim, (len(jacobian) - 1) // 2)
        kept = slice(cut, len(jacobian) - cut)
        return torch.cat([part.sort(0).values[kept].mean(0) for part in jacobian.split(_BLOCK, dim=1)])
