"""Weights under which every task's progress is a fixed power of its weight (Nash-MTL, FairGrad)."""

import torch
from torch import Tensor

from motet.solvers.threads import one_thread
from motet.solvers.unit_diagonal import unit_diagonal

STEPS = 60
TOLERANCE = 1e-6
_LENGTHS = (1.0, 0.7, 0.5, 0.25, 0.12, 0.06, 0.03, 8e-3, 2e-3, 2e-4)


@one_thread
def fair_fixed_point(gram: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    r"""Solve G w = w^(-1/α) for w > 0.

    With v = N w and norms N this reads C v = b v^(-1/α), b = N^(1/α - 1). For α = 1 the norms drop out, b = 1;
    that problem is solved first and is where Newton's method for other α starts, in logarithms.

    Shapes:
        gram (K, K) → weights (K,), converged ().

    Returns:
        The weights, and whether every equation holds to 1e-6 of itself. There is no solution at a Pareto-stationary
        point (Gw = 0 for some w ≥ 0); nor can float64 hold one where α ≠ 1 and conflicting tasks' norms span more than
        about 1e6. The weights are then the best iterate, finite. Rows of zero norm have weight 0 and no equation.

    Cost:
        5 to 15 Cholesky factorisations of K×K for α = 1, about as many again for other α. The host looks once for each.
    """
    unit = unit_diagonal(gram)
    v = _proportional(unit.cosines)
    log_b = (1 / alpha - 1) * unit.norms.log()
    if alpha != 1:
        v = _fair(unit.cosines, v, log_b, alpha)
    error = (unit.measured @ v).log() + v.log() / alpha - log_b
    return unit.finish(torch.where(unit.live, v / unit.norms, 0.0), error.abs().amax() <= TOLERANCE)


def _proportional(cosines: Tensor) -> Tensor:
    """C v = 1/v by Newton's method for v and the progress p = Cv side by side, both kept positive."""
    v = torch.ones(len(cosines), dtype=cosines.dtype, device=cosines.device)
    p = v.clone()
    for _ in range(STEPS):
        gap, error = p - cosines @ v, 1 - p * v
        dv = _solve(cosines + torch.diag(p / v), gap + error / v)
        dp = (error - p * dv) / v
        change = torch.cat([dv / v, dp / p])
        step = torch.where(change.amin() < 0, -0.9 / change.amin(), 1.0).clamp(max=1)
        v, p = v + step * dv, p + step * dp
        # Convergence is quadratic: what the last step changed by 1e-6 is now right to 1e-12.
        if torch.maximum(change.abs().amax(), error.abs().amax()) <= 1e-6:
            break
    return v


def _fair(cosines: Tensor, v: Tensor, log_b: Tensor, alpha: float) -> Tensor:
    """Newton's method for log(Cv) + log(v)/α = log b from a v with Cv > 0.

    Of ten step lengths, taken in v and in log v, the one with the smallest error is used: in v where
    tasks conflict strongly, in log v where their norms differ.
    """
    lengths = torch.tensor(_LENGTHS, dtype=v.dtype, device=v.device).unsqueeze(1)
    error = log_b - (cosines @ v).log() - v.log() / alpha
    for _ in range(STEPS):
        p = cosines @ v
        relative = _solve(cosines + torch.diag(p / (alpha * v)), p * error) / v
        factors = torch.cat([1 + lengths * relative, (lengths * relative).clamp(-50, 50).exp()])
        trials = v * factors.clamp(min=1e-3)
        errors = log_b - (trials @ cosines).log() - trials.log() / alpha  # NaN where Cv < 0
        sizes = errors.square().sum(1).nan_to_num(torch.inf, torch.inf)
        best = sizes.argmin()
        if not sizes[best] < 0.9999 * error.square().sum():
            break
        v, error = trials[best], errors[best]
        if sizes[best] <= 1e-22:
            break
    return v


def _solve(system: Tensor, right: Tensor) -> Tensor:
    factor, _ = torch.linalg.cholesky_ex(system)
    return torch.cholesky_solve(right.unsqueeze(1), factor).squeeze(1)
