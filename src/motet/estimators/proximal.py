"""Proximal operators of penalties that remove whole features, and their optimality residuals.

Each takes rows v_q (one group per row), the strengths λa_q and a step size η, and returns the minimiser of
½‖w - v‖² + η·penalty(w) exactly: the threshold carries η, and zeros are zeros.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


def group_lasso(v: Tensor, strength: Tensor, step: float) -> Tensor:
    """(1 - ηλa_q/‖v_q‖)₊ v_q, the prox of ηλ Σ a_q‖w_q‖.

    Shapes:
        v (p, H), strength λa (p,) → (p, H).
    """
    norms = v.norm(dim=1)
    factor: Tensor = (1 - step * strength / norms).clamp(min=0).nan_to_num(nan=0.0)
    return v * factor.unsqueeze(1)


def group_mcp(v: Tensor, strength: Tensor, step: float, gamma: float = 3.0) -> Tensor:
    """Prox of η times the minimax concave penalty of ‖w_q‖, which stops shrinking beyond γλa_q.

    P(r) = λr - r²/(2γ) up to r = γλ and γλ²/2 beyond. For η < γ the answer is γ/(γ-η)·soft(v, ηλ) inside of γλ
    and v outside. From η = γ on the objective is concave inside, so a row is kept whole or removed: the threshold is
    λ√(γη).
    """
    norms = v.norm(dim=1)
    if step < gamma:
        inside = gamma / (gamma - step) * group_lasso(v, strength, step)
        return torch.where((norms > gamma * strength).unsqueeze(1), v, inside)
    kept: Tensor = norms > strength * (gamma * step) ** 0.5
    return v * kept.unsqueeze(1)


def hierarchy(v: Tensor, strength: Tensor, step: float, skip: int = 1, reach: float = 10.0) -> Tensor:
    """Prox of ηλ‖β_q‖ under ‖θ_q‖_∞ ≤ M‖β_q‖: a feature enters the hidden layer only with its linear skip.

    Lemhadri, Ruan, Abraham & Tibshirani, LassoNet, JMLR 2021. With |u| sorted downwards and s of its entries on the
    bound, the optimum has ‖β‖ = x_s‖v‖ for x_s = (‖v‖ + M Σ_{i≤s}|u|_(i) - ηλ)₊ / ((1 + sM²)‖v‖); the right s is the
    first whose bound M x_s‖v‖ covers the next entry.

    Args:
        v: Rows (θ_q, β_q), the skip's weights last.
        strength: λa_q.
        step: η.
        skip: K, the number of skip weights in a row.
        reach: M, how much larger than the skip a hidden weight may be.
    """
    hidden, linear = v[:, :-skip], v[:, -skip:]
    size = linear.norm(dim=1, keepdim=True)
    magnitude = hidden.abs()
    ordered = magnitude.sort(dim=1, descending=True).values
    zero = torch.zeros_like(size)
    gathered = torch.cat([zero, ordered.cumsum(1)], 1)  # (p, H + 1): sums over s = 0…H
    held = torch.arange(gathered.shape[1], device=v.device, dtype=v.dtype)
    lengths = (size + reach * gathered - step * strength.unsqueeze(1)).clamp(min=0) / (1 + held * reach**2)
    covered = reach * lengths >= torch.cat([ordered, zero], 1)
    length = lengths.gather(1, covered.to(torch.uint8).argmax(1, keepdim=True))
    # Where v_q = 0 every direction of β is as good: the first task's.
    direction = torch.where(size > 0, linear / size, torch.eye(1, skip, dtype=v.dtype, device=v.device))
    return torch.cat([hidden.sign() * magnitude.minimum(reach * length), direction * length], 1)


@dataclass(frozen=True)
class Penalty:
    """A penalty on the rows of the first layer.

    Args:
        name: "group_lasso", "group_mcp", or "lassonet", the hierarchy with a linear skip.
        gamma: Of group_mcp, > 1: where shrinkage ends. Smaller is nearer to counting features. 3 is usual.
        reach: M of lassonet, > 0. Its authors' 10.
        skip: K, the last K numbers of a row, for lassonet.
    """

    name: Literal["group_lasso", "group_mcp", "lassonet"] = "group_lasso"
    gamma: float = 3.0
    reach: float = 10.0
    skip: int = 1

    def __post_init__(self) -> None:
        if self.name not in ("group_lasso", "group_mcp", "lassonet"):
            raise ValueError(f"penalty is group_lasso, group_mcp or lassonet, not {self.name!r}")
        if not self.gamma > 1:
            raise ValueError(f"gamma of group_mcp must be above 1, not {self.gamma}")
        if not self.reach > 0:
            raise ValueError(f"reach of lassonet must be positive, not {self.reach}")

    def prox(self, rows: Tensor, strength: Tensor, step: float) -> Tensor:
        """The minimiser of ½‖w - rows‖² + η·penalty(w)."""
        if self.name == "group_mcp":
            return group_mcp(rows, strength, step, self.gamma)
        if self.name == "lassonet":
            return hierarchy(rows, strength, step, self.skip, self.reach)
        return group_lasso(rows, strength, step)

    def value(self, rows: Tensor, strength: Tensor) -> float:
        """The penalty of rows, without lassonet's constraint."""
        if self.name == "lassonet":
            rows = rows[:, -self.skip :]
        norms, strength = rows.norm(dim=1).double(), strength.double()
        if self.name == "group_mcp":
            r = norms.minimum(self.gamma * strength)
            return float((strength * r - r.square() / (2 * self.gamma)).sum())
        return float(strength @ norms)

    def residual(self, rows: Tensor, gradient: Tensor, strength: Tensor, step: float = 1e-3) -> Tensor:
        """r_q = ‖w_q - prox(w_q - η∇_q)‖/η, 0 exactly where row q is stationary: (p,), in the gradient's units.

        For a zero row of the group lasso it is (‖∇_q‖ - λa_q)₊; for a live row longer than ηλa_q,
        ‖∇_q + λa_q w_q/‖w_q‖‖. A large η would let short rows pass that should be zero.
        """
        moved: Tensor = (rows - self.prox(rows - step * gradient, strength, step)).norm(dim=1)
        return moved / step
