"""Value and gradient of a rank loss as one function of the scores."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from motet.losses.rank.arrangement import Arrangement
from motet.losses.rank.blocked import blocked
from motet.losses.rank.exponential import exponential
from motet.losses.rank.polynomial import drelu, epanechnikov, squared_hinge

KINDS = ("drelu", "epanechnikov", "squared_hinge", "exponential", "logistic", "sigmoid")
"""The losses of a pair; the first, second and last are 1 minus a smoothed concordance."""
CONCORDANCE = ("drelu", "epanechnikov", "sigmoid")
FAST: dict[str, Callable[[Arrangement, Tensor], tuple[Tensor, Tensor]]] = {
    "drelu": drelu,
    "epanechnikov": epanechnikov,
    "squared_hinge": squared_hinge,
    "exponential": exponential,
}
DENSE_BELOW = {"drelu": 160, "epanechnikov": 384, "squared_hinge": 320, "exponential": 1}
"""Rows below which tiles are faster than levels (benchmarks/rank.py --switch)."""


def pair_sums(rows: Arrangement, x: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Σ p φ(xᵢ - xⱼ) over the comparable pairs, and its gradient by x (n,), by the way that is faster."""
    if kind in FAST and rows.m >= DENSE_BELOW[kind]:
        return FAST[kind](rows, x)
    return blocked(rows, x, kind)


class RankLoss(torch.autograd.Function):
    """The forward pass makes the gradient as well; the backward pass multiplies it by a scalar."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, rows: Arrangement, kind: str, bandwidth: float, divisor: float) -> Tensor:
        """Scores (n,) → the loss."""
        f = scores.detach().double()[rows.index]
        x = f
        if rows.m:
            low, high = f.aminmax()
            # Differences alone matter, and centred scores have the smallest sums to cancel.
            x = (f - (low / 2 + high / 2)) / bandwidth
            if not (spread := float(high / bandwidth - low / bandwidth)) < 1e15:
                raise ValueError(
                    f"the scores' range is {spread:.0e} bandwidths, and float64 resolves 1e15: use a larger bandwidth"
                )
        value, gradient = pair_sums(rows, x, kind)
        if kind in CONCORDANCE:
            # 1 - Σ p S / divisor, where the divisor is not Σ p.
            value = value + (divisor - rows.pair_weight)
        value = (value / divisor).to(scores.dtype)
        if not value.isfinite():
            raise ValueError(f"the {kind} loss is too large for {scores.dtype}: use a larger bandwidth")
        full = torch.zeros_like(scores, dtype=torch.float64, memory_format=torch.contiguous_format)
        gradient = full.index_copy_(0, rows.index, gradient / (divisor * bandwidth))
        ctx.save_for_backward(gradient.to(scores.dtype), scores)
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None, None]:
        """The gradient by the scores; with a graph (create_graph=True) that refuses to be differentiated."""
        gradient, scores = ctx.saved_tensors
        return _Once.apply(upstream, gradient, scores), None, None, None, None  # type: ignore[no-untyped-call]


class _Once(torch.autograd.Function):
    """A gradient that depends on the scores, so that its derivative is an error and not silently zero."""

    @staticmethod
    def forward(ctx: Any, upstream: Tensor, gradient: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG004
        return upstream * gradient

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:  # noqa: ARG004
        raise RuntimeError("a rank loss has a gradient and no second derivative: its gradient can't be differentiated")
