"""Softmax, entropy and means over what is present, with gradients that stay finite.

Missing entries may hold anything, NaN and infinity included. They are replaced before any arithmetic, because
0·NaN is NaN, and nothing comes back from them in the backward pass. No function waits for the device.
"""

import torch
from torch import Tensor

from motet.nn.precision import at_least_float32
from motet.nn.segments import segment_ids, segment_mean, segment_softmax, segment_sum

__all__ = [
    "at_least_float32",
    "band",
    "blank",
    "entropy",
    "masked_mean",
    "masked_softmax",
    "segment_ids",
    "segment_mean",
    "segment_softmax",
    "segment_sum",
]


def blank(x: Tensor, mask: Tensor) -> Tensor:
    """Zeros in the rows that are missing: x (…, D), mask (…) bool, True where present."""
    return torch.where(mask[..., None], x, 0)


def masked_softmax(logits: Tensor, mask: Tensor, dim: int = -1) -> Tensor:
    """Softmax over the present entries, 0 at the others and in rows where nothing is present.

    Computed and returned in float32 at least, as under autocast. The mask broadcasts against the logits.
    """
    logits = at_least_float32(logits)
    # The lowest finite number and not -inf: a row without any entry would otherwise be NaN, and so its gradient.
    filled = torch.where(mask, logits, torch.finfo(logits.dtype).min)
    return torch.where(mask, filled.softmax(dim), 0)


def entropy(p: Tensor, dim: int = -1) -> Tensor:
    """-Σ p log p in nats, with gradient 0 at p = 0, where that of ``xlogy`` is NaN."""
    p = at_least_float32(p)
    return -(p * torch.where(p > 0, p, 1).log()).sum(dim)


def band(h: Tensor, low: float, high: float) -> Tensor:
    """(h - high)₊² + (low - h)₊²: 0 within the band, smooth at its edges."""
    return (h - high).relu().square() + (low - h).relu().square()


def masked_mean(x: Tensor, mask: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """Mean over the present entries, 0 where there are none. The mask covers the leading dimensions of x."""
    mask = mask.reshape(*mask.shape, *(1,) * (x.ndim - mask.ndim)).expand_as(x)
    return torch.where(mask, x, 0).sum(dim) / mask.sum(dim).clamp(min=1)
