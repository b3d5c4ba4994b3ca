"""By which factor gradients were changed between two moments: a GradScaler's unscaling, or clipping by the norm."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

_ALIKE = 1e-2
"""Relative difference of two measures of one factor that rounding to half precision explains."""


class Rescaling:
    """Looks at the parameters' ``.grad`` now, and tells later what became of them.

    Cost:
        Two passes over the gradients each time. The second time two numbers are read from the device.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self._before = {p: _sizes(p.grad) for p in parameters if p.grad is not None}

    @torch.no_grad()
    def factor(self) -> float:
        """What all gradients have been multiplied by; 1 where there were none, or only zeros.

        Raises:
            RuntimeError: where it is not one factor for all.
        """
        pairs = [(before, _sizes(p.grad)) for p, before in self._before.items() if p.grad is not None]
        if not pairs:
            return 1.0
        device = pairs[0][0].device
        (top, total), (top_now, total_now) = (
            (float(sizes[:, 0].amax()), float(sizes[:, 1].sum()))
            for sizes in (torch.stack([size.to(device) for size in column]) for column in zip(*pairs, strict=True))
        )
        if not top or (repr(top), repr(total)) == (repr(top_now), repr(total_now)):  # Also a NaN that stays.
            return 1.0
        one, two = top_now / top, total_now / total
        if abs(one - two) <= _ALIKE * max(one, two) < float("inf"):
            return one
        raise RuntimeError(
            "since the tasks' gradients were given, .grad was changed by more than one factor, which they cannot "
            "follow: unscaling and clipping by the norm of all parameters multiply by one; whatever else changes "
            "gradients must be applied to the tasks' own, before task_gradients"
        )


def _sizes(gradient: Tensor) -> Tensor:
    """The largest size of a number and the sum of all: (2,)."""
    if not gradient.numel():
        return gradient.new_zeros(2, dtype=torch.float32)
    dtype = torch.promote_types(gradient.dtype, torch.float32)
    return torch.stack([torch.linalg.vector_norm(gradient, order, dtype=dtype) for order in (float("inf"), 1)])
