"""GCond, gradient surgery on accumulated gradients with arbitration: 2025, arXiv 2509.07252."""

import torch
from torch import Tensor

from motet.linalg import as_double, combine, gram
from motet.methods.base import JacobianMethod, register
from motet.solvers import unit_diagonal
from motet.solvers.threads import one_thread

_NORM_BETA = 0.95
_STABILITY, _STRENGTH = 0.8, 0.2
_GONE = 1e-6
"""Of its square: what a resolved gradient must keep to be looked at. Less is rounding."""
_TIE = 1e-6
_BLOCK = 1 << 18


@register("gcond", year=2025, cost="jacobian")
class GCond(JacobianMethod):
    r"""Average gradients over steps, then settle the worst conflict, again and again, by how bad it is; sum up.

    For the pair i, j of averaged gradients ḡ with the smallest cosine c < 0, and the better of the two the winner:

        c < critical:           the loser is dropped,
        critical ≤ c < main:    the loser's projection on the winner is taken out of it,
        main ≤ c < 0:           each gives up its projection on the other.

    The score is 0.8 max(0, cos(gₜ, ḡₜ₋₁)) + 0.2 r/(rᵢ + rⱼ): a gradient that keeps its direction wins, and one that is
    long by its own standards, r = |ḡₜ| over the moving average of that.

    Args:
        beta: Smoothing of the gradients over steps, in [0, 1). 0 keeps none, and no gradient is then stable.
        thresholds: critical and main, -1 ≤ critical ≤ main ≤ 0. -0.8 and -0.5 as in the authors' code.

    Shapes:
        jacobian (K, P) → direction (P,).

    Scale:
        All losses times c from the start give c times the direction.

    Cost:
        The whole Jacobian and as much again in state, one transfer of K×K numbers to the host, and up to 2K passes over
        them there.

    Note:
        Reconstruction. The authors accumulate many batches a step; here every batch makes a step, and a moving average,
        corrected for its start at zero, stands in. Scores are of the unresolved gradients; equal ones go to the
        longer gradient. The authors' momentum and trust ratio belong to the optimizer and are left out, and so are
        their rule for a task that wins several times, on which text and code differ, and the smooth blend of the
        three zones that their later code prefers. 2K conflicts are settled at most; some may be left.
    """

    scale = 1.0
    same_rows = True

    def __init__(self, beta: float = 0.9, thresholds: tuple[float, float] = (-0.8, -0.5)) -> None:
        super().__init__()
        if not 0 <= beta < 1:
            raise ValueError(f"beta is GCond's smoothing and must be at least 0 and below 1, not {beta}")
        if not -1 <= thresholds[0] <= thresholds[1] <= 0:
            raise ValueError(f"thresholds of GCond must ascend from -1 to 0, critical before main, not {thresholds}")
        self.beta = beta
        self.thresholds = thresholds

    def direction(self, jacobian: Tensor) -> Tensor:
        jacobian = jacobian.detach()
        before = self.recall("average", jacobian, 0.0)
        along = _row_products(jacobian, before).clamp(min=0)
        sizes = (_row_products(jacobian, jacobian) * _row_products(before, before)).sqrt()
        stability = torch.where(sizes > 0, along / sizes, 0.0)
        average = before.lerp_(jacobian, 1 - self.beta)
        like = as_double(jacobian[:, 0])
        steps = self.recall("steps", like, 0.0) + 1
        bias = 1 - self.beta**steps
        products = gram(average) / bias / bias[:, None]
        norms = products.diagonal().clamp(min=0).sqrt()
        usual = self.recall("norms", like, 0.0).lerp(norms, 1 - _NORM_BETA)
        level = usual / (1 - _NORM_BETA**steps)
        strength = torch.where(level > 0, norms / level, 1.0)
        weights = settle(products, stability, strength, self.thresholds)
        direction = combine(weights / bias, average)
        # One gradient that is not finite shows in every entry; kept in the average, it would in every later step.
        if direction.isfinite().all():
            for name, values in {"average": average, "steps": steps, "norms": usual}.items():
                self.remember(name, values)
        return direction


def _row_products(one: Tensor, other: Tensor) -> Tensor:
    """The products of rows k of two matrices, without a copy of either: (K, P), (K, P) → (K,)."""
    dtype = torch.promote_types(one.dtype, torch.float32)
    pairs = zip(one.split(_BLOCK, dim=1), other.split(_BLOCK, dim=1), strict=True)
    return as_double(torch.stack([torch.linalg.vecdot(a.to(dtype), b.to(dtype)) for a, b in pairs]).sum(0))


@one_thread
def settle(products: Tensor, stability: Tensor, strength: Tensor, thresholds: tuple[float, float]) -> Tensor:
    """Weights of the sum of the resolved gradients: Gram matrix (K, K), stability (K,), strength (K,) → (K,)."""
    unit = unit_diagonal(products.cpu())
    norms, stability, strength = unit.norms, stability.cpu(), strength.cpu()
    tasks = len(norms)
    resolved = torch.eye(tasks, dtype=norms.dtype)  # row i: what gradient i is made of, in units of the originals
    for _ in range(2 * tasks):
        inner = resolved @ unit.cosines @ resolved.T
        squares = inner.diagonal()
        there = squares > _GONE
        lengths = torch.where(there, squares, 1.0).sqrt()
        cosines = (inner / lengths / lengths[:, None]).where(there & there[:, None], 0.0).fill_diagonal_(0.0)
        first, second = divmod(int(cosines.argmin()), tasks)
        worst = float(cosines[first, second])
        if worst > -_TIE:
            break
        ahead = _STABILITY * (stability[first] - stability[second]) + _STRENGTH * (
            strength[first] - strength[second]
        ) / (strength[first] + strength[second])
        wins = norms[first] >= norms[second] if ahead.abs() <= _TIE else ahead > 0
        winner, loser = (first, second) if wins else (second, first)
        taken = resolved[winner] * inner[winner, loser] / squares[winner]
        if worst < thresholds[0]:
            resolved[loser] = 0.0
        elif worst < thresholds[1]:
            resolved[loser] -= taken
        else:
            given = resolved[loser] * inner[winner, loser] / squares[loser]
            resolved[loser] -= taken
            resolved[winner] -= given
    weights, _ = unit.finish(norms @ resolved / norms, torch.tensor(True))
    return weights.to(products.device)
