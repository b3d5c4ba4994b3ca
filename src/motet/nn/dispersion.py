"""What keeps codes from collapsing: a floor under their spread, and private codes that tell different things."""

import torch
from torch import Tensor

from motet.nn.masking import blank
from motet.nn.moments import mean_of_present, sums
from motet.nn.precision import at_least_float32

_EPSILON = 1e-4  # Added to variances: the root of a variance of zero has no gradient.


def dispersion(shared: Tensor, private: Tensor, mask: Tensor, floor: float = 1.0, everywhere: bool = False) -> Tensor:
    r"""Penalty on codes of too little spread, and on private codes of two views that are correlated.

    The sum of two terms over the samples of the batch, with s the shared and p the private codes:

        mean over views of  mean_d (γ - √(Var_b [s; p]_d + 10⁻⁴))₊,
        mean over pairs of views of  ‖P̂ₐᵀ P̂_c‖²_F / D_p²,

    where P̂ᵀP̂ are correlations over the samples that have both views. A view that fewer than two samples have, and
    a pair that fewer than two samples have, does not count; a batch of one sample has penalty 0. Of total collapse
    it is γ - 0.01. It is 0 if and only if every coordinate keeps a spread of γ and no private coordinates are
    correlated. Independent codes have a mean squared correlation of 1/(n - 1) among n samples: small batches pay
    that much whatever the codes.

    Args:
        shared: (B, V, D_s).
        private: (B, V, D_p).
        mask: (B, V) bool.
        floor: γ > 0, in units of the codes.
        everywhere: Whether variances and correlations are those over the samples of all processes, of which only the
            moments are exchanged: V(D_s + D_p) + V(V - 1)/2 · D_p² numbers.

    Cost:
        B · V²/2 · D_p² multiplications.
    """
    codes = blank(at_least_float32(torch.cat([shared, private], -1)), mask)
    count, centre = sums(mask.to(codes.dtype), codes.detach(), everywhere=everywhere)
    # Moments about any point give the same variance; about the mean they keep their digits.
    codes = blank(codes - _mean(centre, count), mask)
    a, c = torch.triu_indices(mask.shape[1], mask.shape[1], 1, device=mask.device)
    both = mask[:, a] & mask[:, c]  # (B, pairs)
    private = codes[..., shared.shape[-1] :]
    x, y = blank(private[:, a], both), blank(private[:, c], both)  # (B, pairs, D_p)
    # The products of all samples at once: one (D_p, D_p) matrix a pair, not one a sample and pair.
    xy = torch.einsum("bpi,bpj->pij", x, y)[None]
    s, ss, pairs, sx, sxx, sy, syy, sxy = sums(
        codes, codes.square(), both.to(codes.dtype), x, x.square(), y, y.square(), xy, everywhere=everywhere
    )

    short = (floor - _spread(s, ss, count)).relu().mean(-1)  # (V,)
    covariance = _mean(sxy.flatten(1), pairs).view_as(sxy) - _mean(sx, pairs)[:, :, None] * _mean(sy, pairs)[:, None]
    correlation = covariance / (_spread(sx, sxx, pairs)[:, :, None] * _spread(sy, syy, pairs)[:, None])
    related = correlation.square().mean((-2, -1))  # (pairs,)
    return mean_of_present(short, count >= 2) + mean_of_present(related, pairs >= 2)


def _mean(total: Tensor, count: Tensor) -> Tensor:
    return total / count.clamp(min=1)[:, None]


def _spread(total: Tensor, squares: Tensor, count: Tensor) -> Tensor:
    variance = _mean(squares, count) - _mean(total, count).square()
    return (variance.clamp(min=0) + _EPSILON).sqrt()
