"""Linear and convex quadratic programmes over weights that are positive and sum to 1."""

from typing import NamedTuple

import torch
from torch import Tensor

from motet.solvers.threads import one_thread

STEPS = 40
"""Steps of the interior-point method, of which it needs about ten."""
TOLERANCE = 1e-8
"""Violation of the optimality conditions, with both the objective and the rows brought to a size of 1."""


@one_thread
def minimise_on_simplex(
    matrix: Tensor, linear: Tensor, rows: Tensor | None = None, floor: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """min ½ wᵀQw + qᵀw over w ≥ 0, Σw = 1 and Aw ≥ b: Mehrotra's predictor and corrector.

    Where several w are optimal, as in linear programmes they often are, the answer is inside of their set and not one
    of its corners, so that it doesn't depend on the order of the tasks.

    Shapes:
        matrix Q (K, K) positive semidefinite, linear q (K,), rows A (M, K), floor b (M,) → weights (K,), converged ().

    Returns:
        The weights, and whether the optimality conditions hold to 1e-6. Input that is not finite gives NaN and False.

    Cost:
        A Cholesky factorisation of K×K a step; the host looks three times a step.
    """
    count = len(linear)
    rows = matrix.new_zeros(0, count) if rows is None else rows
    floor = matrix.new_zeros(len(rows)) if floor is None else floor
    finite = matrix.isfinite().all() & linear.isfinite().all() & rows.isfinite().all() & floor.isfinite().all()
    if not finite:
        return torch.full_like(linear, torch.nan), finite
    size = torch.cat([matrix.abs().flatten(), linear.abs()]).amax()
    matrix, linear = (part / torch.where(size > 0, size, 1.0) for part in (matrix, linear))
    height = torch.cat([rows, floor[:, None]], dim=1).abs().amax(1)
    height = torch.where(height > 0, height, 1.0)
    # x are the weights and then the slacks of the rows, z their prices: x·z = 0 at the optimum.
    rows, floor = rows / height[:, None], floor / height
    free = torch.full_like(linear, 1 / count)
    x = torch.cat([free, (rows @ free - floor).clamp(min=1 / count)])
    z = torch.ones_like(x)
    price = linear.new_zeros(())
    ones = torch.ones_like(linear)
    best, weights = torch.full_like(price, torch.inf), free
    for _ in range(STEPS):
        w, slack, bound = x[:count], x[count:], z[count:]
        dual = matrix @ w + linear - rows.T @ bound - z[:count] - price
        short = rows @ w - floor - slack
        missing = 1 - w.sum()
        gap = (x * z).mean()
        worst = torch.cat([dual.abs(), short.abs(), missing.abs()[None], (x * z)]).amax()
        # Where the rows leave no interior, rounding ends the descent, and later points are worse.
        if worst < best:
            best, weights = worst, w
        if worst <= TOLERANCE or best <= 1e-4 * worst:
            break
        ratio = z / x
        factor, _ = torch.linalg.cholesky_ex(matrix + ratio[:count].diag() + (rows.T * ratio[count:]) @ rows)
        solved = torch.cholesky_solve(ones[:, None], factor)[:, 0]
        system = _System(rows, ratio, factor, solved, dual, short, missing)

        d_x, d_z, _ = system.step(-z)
        step = torch.minimum(_longest(x, d_x), _longest(z, d_z))
        reached = ((x + step * d_x) * (z + step * d_z)).mean()
        d_x, d_z, d_price = system.step(((reached / gap) ** 3 * gap - d_x * d_z) / x - z)
        step = 0.995 * torch.minimum(_longest(x, d_x), _longest(z, d_z))
        if not step > 0:  # NaN where the matrix had no factor
            break
        x, z, price = x + step * d_x, z + step * d_z, price + step * d_price
    return weights / weights.sum(), best <= 1e-6


class _System(NamedTuple):
    """The optimality conditions, made linear at a point."""

    rows: Tensor
    ratio: Tensor
    factor: Tensor
    solved: Tensor
    dual: Tensor
    short: Tensor
    missing: Tensor

    def step(self, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Newton's step of x, z and the price of the sum, where x·z is to change by x times ``wanted``."""
        count = len(self.solved)
        right = wanted[:count] - self.dual + self.rows.T @ (wanted[count:] - self.ratio[count:] * self.short)
        plain = torch.cholesky_solve(right[:, None], self.factor)[:, 0]
        price = (self.missing - plain.sum()) / self.solved.sum()
        weights = plain + price * self.solved
        x = torch.cat([weights, self.rows @ weights + self.short])
        return x, wanted - self.ratio * x, price


def _longest(value: Tensor, change: Tensor) -> Tensor:
    """The longest step up to 1 that keeps all values positive: (N,) → ()."""
    return torch.where(change < 0, -value / change, torch.inf).amin().clamp(max=1)
