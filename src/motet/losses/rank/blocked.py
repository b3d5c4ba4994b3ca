"""Any loss over all pairs, tile by tile: O(n²) time and O(n) memory. For few rows the fastest form of all losses."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import softplus

from motet.losses.rank.arrangement import Arrangement


def _drelu(z: Tensor) -> tuple[Tensor, Tensor]:
    return (z + 0.5).clamp_(0.0, 1.0), (z.abs() < 0.5).to(z)


def _epanechnikov(z: Tensor) -> tuple[Tensor, Tensor]:
    t = z.clamp(-1.0, 1.0)
    square = t.square()
    return (0.75 - 0.25 * square).mul_(t).add_(0.5), square.mul_(-0.75).add_(0.75)


def _squared_hinge(z: Tensor) -> tuple[Tensor, Tensor]:
    short = (z + 1).clamp_(min=0.0)
    return short.square(), short.mul_(2.0)


def _exponential(z: Tensor) -> tuple[Tensor, Tensor]:
    e = z.exp()
    return e, e.clone()


def _logistic(z: Tensor) -> tuple[Tensor, Tensor]:
    return softplus(z, threshold=40.0), z.sigmoid()  # the default threshold, 20, is off by 2e-9


def _sigmoid(z: Tensor) -> tuple[Tensor, Tensor]:
    p = z.sigmoid()
    return p, p - p.square()


LOSSES: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "drelu": _drelu,
    "epanechnikov": _epanechnikov,
    "squared_hinge": _squared_hinge,
    "exponential": _exponential,
    "logistic": _logistic,
    "sigmoid": _sigmoid,
}
"""z = -u = xⱼ - xᵢ, by how much the worse row is ahead → the loss φ(-z) and its derivative by z."""


def blocked(rows: Arrangement, x: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Σ p φ(u) and its gradient by x, (n,), with the weights p = cᵢbⱼ of the pairs."""
    loss = LOSSES[kind]
    short_x, short_b = x[rows.short], rows.b[rows.short]
    value, gradient, short_gradient = x.new_zeros(()), torch.zeros_like(x), torch.zeros_like(short_x)
    for start, stop, full, wide in rows.tiles:
        c = rows.c[start:stop]
        own = torch.zeros_like(c)
        for left in range(0, wide, rows.width):
            right = min(left + rows.width, wide)
            b = short_b[left:right]
            phi, slope = loss(short_x[left:right] - x[start:stop, None])
            if right > full:  # the rest of the tile has every pair comparable
                edge = max(full - left, 0)
                column = torch.arange(left + edge, right, device=x.device)
                mask = column < rows.reach[start:stop, None]
                phi[:, edge:] *= mask
                slope[:, edge:] *= mask
            value += c @ (phi @ b)
            own += slope @ b
            short_gradient[left:right] += c @ slope
        gradient[start:stop] = -c * own
    return value, gradient.index_add_(0, rows.short, short_b * short_gradient)
