"""How far the views of a sample point the same way."""

import torch
from torch import Tensor

from motet.nn.masking import blank
from motet.nn.precision import at_least_float32


def directions(x: Tensor) -> Tensor:
    """x / ‖x‖ over the last dimension, in float32 at least; 0 with gradient 0 where x = 0."""
    x = at_least_float32(x)
    squared = x.square().sum(-1, keepdim=True)
    # With a small number added instead, a code of zeros would get a gradient of its reciprocal.
    some = squared > torch.finfo(x.dtype).tiny
    return x * torch.where(some, torch.where(some, squared, 1).rsqrt(), 0)


def coherence(codes: Tensor, mask: Tensor) -> Tensor:
    r"""Mean cosine between the codes of two different views of a sample, NaN where fewer than two are present.

    With the directions uᵥ = sᵥ/‖sᵥ‖ of the n present views, in O(VD),

        C = (‖Σᵥ uᵥ‖² - Σᵥ ‖uᵥ‖²) / (n (n - 1)),   -1/(n - 1) ≤ C ≤ 1.

    C = 1 if all codes point the same way, which codes that have collapsed do as well: read it beside
    :func:`motet.nn.diagnostics.view_consistency`. A code of zeros has cosine 0 with all others.

    Shapes:
        codes (B, V, D), mask (B, V) bool → (B,).
    """
    u = directions(blank(codes, mask))
    pairs = u.sum(-2).square().sum(-1) - u.square().sum((-2, -1))
    n = mask.sum(-1)
    some = n >= 2
    # The unused side of a division by 0 would send NaN backwards.
    return torch.where(some, pairs / torch.where(some, n * (n - 1), 1), torch.nan)
