"""Weights under which every task's progress is a fixed power of its weight (Nash-MTL, FairGrad)."""

import torch
from torch import Tensor

from motet.solvers.threads import one_thread
from motet.solvers.unit_diagonal import unit_diagonal

STEPS = 300
TOLERANCE = 1e-6
LEAST = 1e-10
"""Progress over weight below which float64 cannot tell the one from the other's rounding to `TOLERANCE`."""


@one_thread
def fair_fixed_point(gram: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    r"""Solve G w = w^(-1/α) for w > 0.

    With v = N w and norms N this reads C v = b v^(-1/α), b = N^(1/α - 1). Newton's method starts where tasks that
    are orthogonal would have it, v = b^(α/(1+α)).

    Shapes:
        gram (…, K, K) → weights (…, K), converged (…).

    Returns:
        The weights, and whether every equation holds to 1e-6 of itself. There is no solution at a Pareto-stationary
        point (Gw = 0 for some w ≥ 0); nor can float64 hold one where α ≠ 1 and conflicting tasks' norms span more than
        about 1e6. The weights are then the best iterate, finite. Rows of zero norm have weight 0 and no equation.

    Cost:
        5 to 10 Cholesky factorisations of K×K, about 15 at a stationary point, up to 200 for large α with norms
        far apart. The host looks once for each.
    """
    unit = unit_diagonal(gram)
    tasks = unit.norms.shape[-1]
    cosines = unit.measured.reshape(-1, tasks, tasks)
    log_b = (1 / alpha - 1) * unit.norms.log().view(-1, tasks, 1)
    v = _newton(cosines, log_b, alpha)
    error = ((cosines @ v).log() + v.log() / alpha - log_b).abs().amax((1, 2))  # NaN where Cv < 0
    weights = torch.where(unit.live, v.view(unit.norms.shape) / unit.norms, 0.0)
    return unit.finish(weights, (error <= TOLERANCE).view(unit.finite.shape))


def _newton(cosines: Tensor, log_b: Tensor, alpha: float) -> Tensor:
    """Newton's method for v and the progress p = Cv side by side, both kept positive.

    At a stationary point v grows without bound and p falls to the rounding of v: it is given up there.

    Shapes:
        (B, K, K), (B, K, 1) → v (B, K, 1).
    """
    v = (log_b * (alpha / (1 + alpha))).exp()
    p = v.clone()
    identity = torch.eye(v.shape[1], dtype=v.dtype, device=v.device)
    over = torch.zeros_like(v, dtype=torch.bool)[:, :1]
    for _ in range(STEPS):
        due = v.reciprocal() if alpha == 1 else (log_b - v.log() / alpha).exp()
        ratio = p / v
        bend = ratio if alpha == 1 else ratio / alpha
        factor, info = torch.linalg.cholesky_ex(torch.addcmul(cosines, identity, bend))
        over = over | (info.view(-1, 1, 1) > 0) | (ratio.amin(1, keepdim=True) < LEAST)
        dv = torch.cholesky_solve(torch.baddbmm(due, cosines, v, alpha=-1), factor)
        dp = torch.addcmul(due - p, bend, dv, value=-1)
        least, most = torch.aminmax(torch.cat([dv / v, dp / p], 1), dim=1, keepdim=True)
        step = -0.9 / least.clamp(max=-0.9)
        v, p = torch.where(over, v, torch.addcmul(v, step, dv)), torch.where(over, p, torch.addcmul(p, step, dp))
        # Convergence is quadratic: what the last step changed by 1e-6 is now right to 1e-12.
        over = over | (torch.maximum(most, -least) <= 1e-6)
        if over.all():
            break
    return v
