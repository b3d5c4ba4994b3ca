"""Convex quadratic programmes over weights that have a floor and a sum of K: exchanges of the support."""

import torch
from torch import Tensor

from motet.solvers.threads import one_thread

RIDGE = 1e-6
"""Price of leaving the uniform weights, in units of the mean of Q's diagonal: twins share their weight."""
EXCHANGES = 12
"""Exchanges of many constraints at a time before one at a time; two to four are the rule."""
ROUNDING = 1e-12


@one_thread
def minimise_above_floor(matrix: Tensor, floor: float, row: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """min wᵀQw over w ≥ floor, Σw = K and, where there is a row a, aᵀw ≥ aᵀ1.

    w = 1 is always allowed, so the answer's wᵀQw is never above 1ᵀQ1. To Q is added `RIDGE` times the mean of its
    diagonal, which is the same as a price on ‖w - 1‖²: the answer is unique, and wᵀQw still not above 1ᵀQ1. Eigenvalues
    below zero, as estimates may have, are taken as zero.

    Block principal pivoting, from all weights free and the row left out: the free ones, and the prices of the sum and
    the row, solve their equations; all whose sign is wrong change sides. Where that goes round in circles, as it often
    does with two weights, a primal active-set method starts at w = 1 and changes one constraint at a time: it never
    leaves what is allowed and never goes uphill.

    Shapes:
        matrix Q (K, K), row a (K,) → weights (K,), converged ().

    Returns:
        The weights, and whether the optimality conditions hold; without them the best weights that were found.

    Cost:
        A solve of K + 2 equations and three looks of the host an exchange.
    """
    count = len(matrix)
    ones = matrix.new_ones(count)
    size = matrix.diagonal().mean()
    if count <= 1 or floor == 1 or not size > 0:
        return ones, matrix.isfinite().all()
    identity = torch.eye(count, dtype=matrix.dtype, device=matrix.device)
    matrix = matrix / size + RIDGE * identity
    if torch.linalg.cholesky_ex(matrix).info > 0:
        values, vectors = torch.linalg.eigh(matrix)
        matrix = (vectors * values.clamp(min=RIDGE)) @ vectors.T
    row = matrix.new_zeros(count) if row is None else row
    centred = row - row.mean()  # With this the row is aᵀw ≥ 0.
    height = centred.abs().amax()
    row = torch.where(height > ROUNDING * row.abs().amax(), centred / height, 0.0)
    system = matrix.new_zeros(count + 2, count + 2)
    system[:count, :count] = matrix
    system[:count, count] = system[count, :count] = 1
    system[:count, count + 1] = system[count + 1, :count] = row
    weights, done = _exchange(system, floor, bool(row.any()))
    if not done:
        weights, done = _descend(system, floor, bool(row.any()))
    better = weights @ matrix @ weights <= matrix.sum() * (1 + ROUNDING)
    return torch.where(better, weights, ones), better & done


def _solve(system: Tensor, floor: float, active: Tensor) -> tuple[Tensor, bool]:
    """Weights and prices where the active ones solve their equations and the others are the floor, or zero."""
    count = len(system) - 2
    values = system.new_full((count + 2,), floor).masked_fill(active, 0.0)
    values[count], values[count + 1] = count, 0.0
    identity = torch.eye(count + 2, dtype=system.dtype, device=system.device)
    system = torch.where(active[:, None], system, identity)
    factors, pivots, info = torch.linalg.lu_factor_ex(system)
    if info > 0:
        return system.new_ones(count + 2), False
    solved = torch.linalg.lu_solve(factors, pivots, values[:, None])
    # Once more for what is left over: prices may be so large that the sum of the weights would be off.
    solved = solved + torch.linalg.lu_solve(factors, pivots, values[:, None] - system @ solved)
    return solved.squeeze(1), True


def _exchange(system: Tensor, floor: float, has_row: bool) -> tuple[Tensor, bool]:
    """The weights, and whether block principal pivoting came to an end."""
    count = len(system) - 2
    # Free weights have a slope of zero, the others the floor; the row's price is zero where it is left out.
    active = torch.ones(count + 2, dtype=torch.bool, device=system.device)
    active[count + 1] = False
    bound = system.new_full((count + 2,), floor)
    bound[count + 1] = 0.0
    for _ in range(EXCHANGES):
        solved, fine = _solve(system, floor, active)
        if not fine:
            break
        slack = system @ solved
        # Of an active entry its own value counts, the row's price with its sign changed; of another one its slack.
        own = solved - bound
        own[count + 1] = -solved[count + 1]
        wrong = torch.where(active, own, slack) < -ROUNDING * solved.abs().amax()
        wrong[count] = False
        wrong[count + 1] &= has_row
        if not wrong.any():
            return solved[:count].clamp(min=floor), True
        active = active ^ wrong
    return system.new_ones(count), False


def _descend(system: Tensor, floor: float, has_row: bool) -> tuple[Tensor, bool]:
    """The weights, and whether the primal active-set method came to an end: from w = 1, where only the row binds."""
    count = len(system) - 2
    row = system[count + 1, :count]
    weights = system.new_ones(count)
    active = torch.ones(count + 2, dtype=torch.bool, device=system.device)
    active[count + 1] = has_row
    for _ in range(4 * count + EXCHANGES):
        solved, fine = _solve(system, floor, active)
        if not fine:
            break
        wanted = solved[:count]
        # How much of the way to there each free weight, and the row where it does not bind, may go.
        before, after = (torch.cat([w - floor, (row @ w)[None]]) for w in (weights, wanted))
        blocked = torch.cat([active[:count], ~active[count + 1 :]]) & (after < -ROUNDING * solved.abs().amax())
        share = torch.where(blocked, before.clamp(min=0) / (before - after), 1.0)
        nearest = int(share.argmin())
        if blocked.any():
            weights = torch.lerp(weights, wanted, share[nearest])
            place = nearest if nearest < count else count + 1
            active[place] = nearest == count
            continue
        weights = wanted
        # Held weights need a slope of at least zero, and a row that binds a price of at most zero.
        price = torch.where(active[:count], torch.inf, (system @ solved)[:count])
        price = torch.cat([price, -solved[count + 1 :] if active[count + 1] else price.new_full((1,), torch.inf)])
        worst = int(price.argmin())
        if not price[worst] < -ROUNDING * solved.abs().amax():
            return weights.clamp(min=floor), True
        active[worst if worst < count else count + 1] = worst < count
    return weights.clamp(min=floor), False
