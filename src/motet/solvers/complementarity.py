"""Quadratic programmes over the positive orthant: exchanges of the support, and a path for what that leaves."""

import math

import torch
from torch import Tensor

from motet.solvers.path import Path, on_support

EXCHANGES = 6
"""Exchanges of the support before the path takes over; two to four are the rule."""
GUESS = 30
"""Gradient steps from which the support is guessed where the path starts."""
BLOCK = 1 << 17
"""Numbers of the tables in which paths are followed side by side: what fits in a processor's cache."""


def minimise_on_orthant(matrix: Tensor, lift: Tensor, linear: Tensor) -> Tensor:
    """min ½ xᵀMx + qᵀx over x ≥ 0, for many q: find x ≥ 0, Mx + q ≥ 0 with xᵀ(Mx + q) = 0.

    Block principal pivoting (Júdice & Pires 1994): a guess of the support splits the variables into free
    ones, which solve their equation, and ones held at zero; all whose sign is wrong change sides. That is
    exact and nearly always over in a few exchanges, but it goes round in circles where M is close to singular. There,
    and for what it leaves elsewhere, the solution is followed from a guess by gradient steps (`Path`), and taken a step
    of the proximal point method towards that for C where that brings it nearer.

    Shapes:
        matrix M = C + δI (…, K, K) positive definite, lift δ (…), linear q (…, N, K) → x (…, N, K).

    Cost:
        A Cholesky factorisation of the support's size per unfinished programme and exchange, and two looks of the host.
        On the path one factorisation, and a pivot and a look for each change of the guessed support: five to twenty.
    """
    count, tasks = linear.shape[-2:]
    matrices = matrix.reshape(-1, tasks, tasks)
    owner = torch.arange(len(matrices), device=matrix.device).repeat_interleave(count)
    largest = linear.abs().amax(-1, keepdim=True)
    scale = torch.where(largest > 0, largest, 1.0)
    q = (linear / scale).reshape(-1, tasks)
    lifts = lift.reshape(-1)[owner]
    solution = torch.zeros_like(q)
    left = _exchange(matrices, owner, q, solution, (lifts == 0).nonzero().squeeze(1))
    left = torch.cat([left, (lifts > 0).nonzero().squeeze(1)])
    if len(left):
        rows = q.view(len(matrices), -1, tasks)
        support = GradientSteps(matrices)(rows, torch.zeros_like(rows), GUESS).view_as(q) > 0
        refined = solution.clone()
        for part in left.split(max(1, BLOCK // tasks**2)):
            path = Path(matrices, owner[part], q[part].unsqueeze(2), support[part])
            solution[part] = x = path.settle(q.new_ones(len(part), 1))
            refined[part] = path.refined(x, lifts[part])
        both = torch.stack([solution, refined]).view(2, len(matrices), -1, tasks)
        slack = both @ matrices + rows - lifts.view(len(matrices), -1, 1) * both
        before, after = torch.minimum(both, slack).abs().amax(3).view(2, -1, 1)
        solution = torch.where(after < before, refined, solution)
    return solution.view(linear.shape) * scale


def violation(matrix: Tensor, lift: Tensor, linear: Tensor, x: Tensor) -> Tensor:
    """max |min(x, Mx + q)| / max(1, |x|) where q is brought to |q| = 1, or the same with C for M = C + δI if less.

    Shapes:
        matrix (…, K, K), lift δ (…), linear q and x (…, N, K) → (…, N).
    """
    largest = linear.abs().amax(-1, keepdim=True)
    scale = torch.where(largest > 0, largest, 1.0)
    x, slack = x / scale, (x @ matrix + linear) / scale
    slacks = torch.stack([slack, slack - lift[..., None, None] * x])
    return torch.minimum(x, slacks).abs().amax(-1).amin(0) / x.abs().amax(-1).clamp(min=1)


def _exchange(matrices: Tensor, owner: Tensor, linear: Tensor, solution: Tensor, todo: Tensor) -> Tensor:
    """Write what block principal pivoting solves to ``solution`` and return the numbers of the others."""
    tasks = linear.shape[1]
    rounding = 4 * tasks * torch.finfo(linear.dtype).eps
    support = linear[todo] < 0
    for _ in range(EXCHANGES):
        if len(todo) == 0:
            break
        q = linear[todo]
        x = _solve(matrices, owner[todo], q, support)
        solution[todo] = x
        slack = (solution.view(len(matrices), -1, tasks) @ matrices).view_as(linear)[todo] + q
        tolerance = rounding * x.abs().amax(1, keepdim=True).clamp(min=1)
        wrong = torch.where(support, x, slack) < -tolerance
        unfinished = wrong.any(1)
        support = (support ^ wrong)[unfinished]
        todo = todo[unfinished]
    solution.clamp_(min=0)  # rounding only, but for the unfinished
    return todo


def _solve(matrices: Tensor, owner: Tensor, linear: Tensor, support: Tensor) -> Tensor:
    """x with Mx + q = 0 on the support and x = 0 off it."""
    if len(owner) == 1:  # what the smaller factorisation saves, the way to it costs
        system = matrices[owner] * (support.unsqueeze(2) & support.unsqueeze(1))
        system.diagonal(dim1=1, dim2=2).add_(~support)
        factor, _ = torch.linalg.cholesky_ex(system)
        return torch.cholesky_solve((linear * support).neg_().unsqueeze(2), factor).squeeze(2)
    index, _, factor = on_support(matrices, owner, support)
    right = torch.nn.functional.pad(linear, (0, 1)).gather(1, index).neg_()
    values = torch.cholesky_solve(right.unsqueeze(2), factor).squeeze(2)
    return linear.new_zeros(len(linear), linear.shape[1] + 1).scatter_(1, index, values)[:, :-1]


class GradientSteps:
    """Accelerated projected gradient steps (Nesterov's) on the programmes of some matrices (B, K, K)."""

    def __init__(self, matrix: Tensor) -> None:
        self.length = torch.linalg.matrix_norm(matrix)[:, None, None].reciprocal()
        identity = torch.eye(matrix.shape[1], dtype=matrix.dtype, device=matrix.device)
        self.kept = torch.addcmul(identity, matrix, self.length, value=-1)

    def __call__(self, linear: Tensor, x: Tensor, count: int) -> Tensor:
        """x after so many steps from a first x: (B, N, K) twice → (B, N, K)."""
        drift, ahead, theta = -self.length * linear, x, 1.0
        for _ in range(count):
            last, x = x, torch.baddbmm(drift, ahead, self.kept).clamp_(min=0)
            before, theta = theta, (1 + math.sqrt(1 + 4 * theta**2)) / 2
            ahead = torch.lerp(last, x, 1 + (before - 1) / theta)
        return x
