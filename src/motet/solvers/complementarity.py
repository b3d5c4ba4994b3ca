"""Quadratic programmes over the positive orthant: pivoting, and an interior-point method for what that leaves."""

import torch
from torch import Tensor

PIVOTS = 12
"""Exchanges of the support before the interior-point method takes over; three or four are the rule."""
STEPS = 60
"""Steps of the interior-point method, of which it needs about fifteen."""
TOLERANCE = 1e-11
"""Violation of the optimality conditions at which the interior-point method stops."""


def minimise_on_orthant(matrix: Tensor, linear: Tensor, support: Tensor | None = None) -> Tensor:
    """min ½ xᵀMx + qᵀx over x ≥ 0, for many q at once: find x ≥ 0, Mx + q ≥ 0 with xᵀ(Mx + q) = 0.

    Block principal pivoting (Júdice & Pires 1994): a guess of the support splits the variables into free
    ones, which solve their equation, and ones held at zero; all whose sign is wrong change sides. That is
    exact and nearly always over in a few exchanges, but it can cycle where M is close to singular.

    Shapes:
        matrix (K, K) positive definite, linear (N, K), first guess of the support (N, K) → x (N, K).

    Cost:
        A Cholesky factorisation of K×K per unfinished programme and exchange. The host looks once an exchange.
    """
    scale = _scale(linear)
    linear = linear / scale
    rounding = 4 * len(matrix) * torch.finfo(matrix.dtype).eps
    solution = torch.zeros_like(linear)
    unsolved = torch.arange(len(linear), device=linear.device)
    q = linear
    support = q < 0 if support is None else support
    for _ in range(PIVOTS):
        x = _on_support(matrix, q, support)
        slack = x @ matrix + q
        solution[unsolved] = x.clamp(min=0)
        tolerance = rounding * x.abs().amax(1, keepdim=True).clamp(min=1)
        wrong = torch.where(support, x < -tolerance, slack < -tolerance)
        support = support ^ wrong
        keep = wrong.any(1)
        unsolved, q, support = unsolved[keep], q[keep], support[keep]
        if len(unsolved) == 0:
            return solution * scale
    solution[unsolved] = _interior_point(matrix, q)
    return solution * scale


def violation(matrix: Tensor, linear: Tensor, x: Tensor) -> Tensor:
    """max |min(x, Mx + q)| / max(1, |x|) where q is brought to |q| = 1; zero at the optimum. (N, K) → (N,)."""
    scale = _scale(linear)
    x, slack = x / scale, (x @ matrix + linear) / scale
    return torch.minimum(x, slack).abs().amax(1) / x.abs().amax(1).clamp(min=1)


def _scale(linear: Tensor) -> Tensor:
    scale = linear.abs().amax(1, keepdim=True)
    return torch.where(scale > 0, scale, 1.0)


def _on_support(matrix: Tensor, linear: Tensor, support: Tensor) -> Tensor:
    """x with Mx + q = 0 on the support and x = 0 off it."""
    system = torch.where(support[:, :, None] & support[:, None, :], matrix, 0.0)
    system.diagonal(dim1=1, dim2=2).add_((~support).to(matrix))
    factor, _ = torch.linalg.cholesky_ex(system)
    return torch.cholesky_solve(torch.where(support, -linear, 0.0).unsqueeze(2), factor).squeeze(2)


def _interior_point(matrix: Tensor, linear: Tensor) -> Tensor:
    """The same programmes by Mehrotra's predictor and corrector: slower, but it cannot cycle."""
    x, slack = torch.ones_like(linear), torch.ones_like(linear)
    for _ in range(STEPS):
        residual = x @ matrix + linear - slack
        gap = (x * slack).mean(1, keepdim=True)
        factor, _ = torch.linalg.cholesky_ex(matrix + torch.diag_embed(slack / x))
        dx, dy = _newton(factor, x, slack, residual, -x * slack)
        step = torch.minimum(_longest(x, dx), _longest(slack, dy))
        reached = ((x + step * dx) * (slack + step * dy)).mean(1, keepdim=True)
        centred = (reached / gap) ** 3 * gap - x * slack - dx * dy
        dx, dy = _newton(factor, x, slack, residual, centred)
        step = 0.995 * torch.minimum(_longest(x, dx), _longest(slack, dy))
        # A solved programme stays where it is: further steps would only drive its slacks to underflow.
        step = torch.where(violation(matrix, linear, x)[:, None] <= TOLERANCE, 0.0, step)
        x, slack = x + step * dx, slack + step * dy
        if not (step > 0).any():
            break
    return x


def _newton(factor: Tensor, x: Tensor, slack: Tensor, residual: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Steps of x and the slack towards Mx + q = slack and towards a change of x·slack by ``target``."""
    dx = torch.cholesky_solve((target / x - residual).unsqueeze(2), factor).squeeze(2)
    return dx, (target - slack * dx) / x


def _longest(value: Tensor, change: Tensor) -> Tensor:
    """The longest step up to 1 that keeps a value positive: (N, K) → (N, 1)."""
    return torch.where(change < 0, -value / change, torch.inf).amin(1, keepdim=True).clamp(max=1)
