"""Inverse-probability-of-censoring weights: Uno et al., Statistics in Medicine 2011, doi 10.1002/sim.4154."""

import torch
from torch import Tensor

from motet.losses.rank.arrangement import dense_rank


def uno_weights(times: Tensor, d: Tensor, c: Tensor, tau: float | None) -> Tensor:
    """1/G(Tⱼ-)² for events before tau and 0 for all other rows, (n,).

    G is the weighted Kaplan–Meier estimate of the censoring's survival function,
    G(t-) = ∏_{s<t} (1 - q(s)/(R(s) - e(s))), with weights q(s) censored, e(s) of events and R(s) at risk at s: of
    equal times the event comes first, so it is no longer at risk of being censored.

    Args:
        times: (n,), none missing.
        d: (n,) 1 for an event, 0 for a censored time.
        c: (n,) row weights: a weight of 2 counts as two rows.
        tau: Events at tau or later are left out, where few are left at risk and G is poorly known. None: all stay.
    """
    index = dense_rank(times)
    zeros = torch.zeros(int(index.max()) + 1 if len(index) else 0, dtype=torch.float64, device=times.device)
    q = zeros.index_add(0, index, c * (1 - d))
    everyone = zeros.index_add(0, index, c)
    later = everyone.flip(0).cumsum(0).flip(0) - everyone
    later[-1:] = 0.0
    factor = torch.where(q > 0, later / (later + q), 1.0)
    before = torch.cat([factor.new_ones(1), factor.cumprod(0)[:-1]])[index]
    # G(Tⱼ-) = 0 is possible for rows of weight 0 alone.
    used = (d > 0) & (before > 0)
    if tau is not None:
        used &= times < tau
    return torch.where(used, before.square().reciprocal(), 0.0)
