"""Hard Gram matrices for the solvers, and how far their answers are from the optimality conditions."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from motet.solvers import conflict_averse, fair_fixed_point, min_norm_point, project_on_dual_cone

TASKS = (*range(1, 13), 40)
TOLERANCE = 1e-6
KINDS = (
    "independent",
    "two camps",
    "dependent",
    "duplicates",
    "opposites",
    "stationary",
    "zero rows",
    "nearly parallel",
)
COUNT = len(TASKS) * len(KINDS) * 3 * 2
"""Kinds of matrices: by tasks, by what is special about them, by the spread of their norms and by their dtype."""


class Answer(NamedTuple):
    """What a solver made of a stack of B matrices."""

    weights: Tensor
    """(B, …)"""
    converged: Tensor
    """(B,) bool"""
    residual: Tensor
    """(B,): the violation of the optimality conditions of the problem with gradients of unit length, by definition."""
    solvable: Tensor
    """(B,) bool: whether there is a solution that float64 can hold."""


def grams(each: int, tasks: tuple[int, ...] = TASKS, seed: int = 0) -> Iterator[Tensor]:
    """Stacks of ``each`` Gram matrices (each, K, K) in float64.

    The norms of each kind spread over 1, over 1e-3 … 1e3 and over 1e-12 … 1e12; half of all are products of float32
    gradients and positive semidefinite to their rounding only.
    """
    generator = torch.Generator().manual_seed(seed)
    for count in tasks:
        for kind in KINDS:
            for spread in (0, 3, 12):
                for dtype in (torch.float64, torch.float32):
                    rows = _rows(kind, each, count, generator)
                    exponents = 2 * torch.rand(each, count, 1, generator=generator, dtype=torch.float64) - 1
                    rows = (rows * 10 ** (spread * exponents)).to(dtype)
                    products = (rows @ rows.mT).double()
                    yield (products + products.mT) / 2


def _rows(kind: str, each: int, tasks: int, generator: torch.Generator) -> Tensor:
    def normal(*shape: int) -> Tensor:
        return torch.randn(each, *shape, generator=generator, dtype=torch.float64)

    width = 2 * tasks + 3
    rows = normal(tasks, width)
    if kind == "two camps":
        side = 1.0 - 2.0 * (torch.arange(tasks) % 2)
        return side[:, None] * normal(1, width) + 0.3 * rows
    if kind == "dependent":
        return normal(tasks, (tasks + 1) // 2) @ normal((tasks + 1) // 2, width)
    if kind == "duplicates":
        rows[:, 1::2] = 2 * rows[:, ::2][:, : tasks // 2]
    elif kind == "opposites":
        rows[:, 1::2] = -rows[:, ::2][:, : tasks // 2]
    elif kind == "stationary":
        shares = torch.rand(each, 1, tasks - 1, generator=generator, dtype=torch.float64)
        rows[:, -1] = -(shares @ rows[:, :-1])[:, 0]
    elif kind == "zero rows":
        rows[:, :: 2 if tasks > 1 else 1] = 0
    elif kind == "nearly parallel":
        return normal(1, width) + 1e-4 * rows
    return rows


class _Units(NamedTuple):
    """Gradients brought to unit length, apart from the solvers' own way of doing so."""

    cosines: Tensor
    norms: Tensor
    live: Tensor

    def progress(self, v: Tensor) -> Tensor:
        return (self.cosines @ v.unsqueeze(-1)).squeeze(-1)

    def gap(self, x: Tensor, progress: Tensor, levels: Tensor) -> Tensor:
        """The least over some levels t (…, L) of max |min(x, progress - t/norm)|: by how much the tasks with x fall
        short of the same gain t, or others have less."""
        slack = progress.unsqueeze(-2) - levels.unsqueeze(-1) / self.norms.unsqueeze(-2)
        gaps = torch.minimum(x.unsqueeze(-2), slack).abs() * self.live.unsqueeze(-2)
        return gaps.amax(-1).amin(-1)


def _units(gram: Tensor) -> _Units:
    squares = gram.diagonal(dim1=-2, dim2=-1)
    live = squares > 0
    norms = torch.where(live, squares, 1.0).sqrt()
    cosines = (gram / norms.unsqueeze(-1) / norms.unsqueeze(-2)).clamp(-1, 1)  # rounding takes duplicates beyond 1
    return _Units(torch.where(live.unsqueeze(-1), cosines, torch.eye(gram.shape[-1])), norms, live)


def project(gram: Tensor, targets: Tensor) -> Answer:
    """x ≥ 0, C(v + x) ≥ 0 and complementary, for every target v of unit gradients."""
    weights, converged = project_on_dual_cone(gram, targets)
    units = _units(gram)
    v = targets * units.norms.unsqueeze(-2)
    x = (weights - targets) * units.norms.unsqueeze(-2)
    linear = v @ units.cosines
    # A mean that cancels to rounding leaves nothing to be accurate about.
    scale = torch.maximum(linear.abs().amax(-1, keepdim=True), 1e-9 * v.amax(-1, keepdim=True))
    x, slack = x / scale, (linear + x @ units.cosines) / scale
    residual = torch.minimum(x, slack).abs().amax(-1) / x.amax(-1).clamp(min=1)
    return Answer(weights, converged, residual.amax(-1), torch.ones_like(converged))


def upgrad(gram: Tensor) -> Answer:
    """All rows of the identity over K are projected."""
    tasks = gram.shape[-1]
    return project(gram, torch.eye(tasks, dtype=gram.dtype) / tasks)


def dual_proj(gram: Tensor) -> Answer:
    """The mean is projected."""
    tasks = gram.shape[-1]
    return project(gram, torch.full((1, tasks), 1 / tasks, dtype=gram.dtype))


def mgda(gram: Tensor) -> Answer:
    """All tasks gain wᵀGw, or more without a weight."""
    weights, converged = min_norm_point(gram)
    units = _units(gram)
    v = weights * units.norms
    progress = units.progress(v)
    square = (v * progress).sum(-1, keepdim=True)
    gap = units.gap(v, progress, torch.cat([units.norms * progress, square, 0 * square], -1))
    residual = torch.where(units.live.all(-1), gap / v.amax(-1), 0.0)
    return Answer(weights, converged, residual, torch.ones_like(converged))


def cagrad(gram: Tensor, c: float) -> Answer:
    """All tasks gain the same, or more without a change; its length is c|g₀|, or less at a stationary point."""
    weights, converged = conflict_averse(gram, c)
    units = _units(gram)
    tasks = gram.shape[-1]
    largest = units.norms.amax(-1, keepdim=True)
    mean = units.norms * units.live / tasks / largest
    x = (weights - 1 / tasks) * units.norms / largest
    start, progress = units.progress(mean), units.progress(mean + x)
    scale = torch.maximum(torch.maximum(x.amax(-1), start.abs().amax(-1)), 1e-9 * mean.amax(-1)).clamp(min=1e-300)
    gain = torch.where(units.live, progress * units.norms, torch.inf).amin(-1, keepdim=True).nan_to_num(posinf=0.0)
    residual = units.gap(x, progress, torch.cat([units.norms * progress, 0 * gain], -1)) / scale
    radius = c * (mean * start).sum(-1).clamp(min=0).sqrt()
    length = (x * units.progress(x)).sum(-1).clamp(min=0).sqrt()
    stationary = (length <= radius) & (gain.squeeze(-1) / units.norms.amin(-1) <= TOLERANCE * scale)
    stationary |= radius <= 1e-9 * mean.amax(-1)
    off = torch.where(stationary, 0.0, (length - radius).abs() / radius.clamp(min=1e-300))
    return Answer(weights, converged, torch.maximum(residual, off), torch.ones_like(converged))


def fair(gram: Tensor, alpha: float) -> Answer:
    """Gw = w^(-1/α), unless 0 is in the hull of the gradients, or norms span more than 1e6 and α is not 1."""
    weights, converged = fair_fixed_point(gram, alpha)
    units = _units(gram)
    v = weights * units.norms
    error = (units.progress(v).log() + v.log() / alpha - (1 / alpha - 1) * units.norms.log()).abs()
    error = torch.where(units.live, error, 0.0).amax(-1).nan_to_num(torch.inf)
    shortest, _ = min_norm_point(units.cosines)
    solvable = (shortest * units.progress(shortest)).sum(-1) * gram.shape[-1] > 1e-5
    least = torch.where(units.live, units.norms, torch.inf).amin(-1)
    if alpha != 1:
        solvable &= torch.where(units.live, units.norms, 0.0).amax(-1) <= 1e6 * least
    return Answer(weights, converged, error, solvable)


SOLVERS: dict[str, Callable[[Tensor], Answer]] = {
    "mgda": mgda,
    "upgrad": upgrad,
    "dual-proj": dual_proj,
    "cagrad c=0.4": lambda gram: cagrad(gram, 0.4),
    "cagrad c=1.5": lambda gram: cagrad(gram, 1.5),
    "nash-mtl": lambda gram: fair(gram, 1.0),
    "fair-grad alpha=2": lambda gram: fair(gram, 2.0),
    "fair-grad alpha=8": lambda gram: fair(gram, 8.0),
}


def main(matrices: int) -> None:
    """Print the table of all solvers over about so many matrices."""
    each = -(-matrices // COUNT)
    print(f"{each * COUNT} matrices of {', '.join(map(str, TASKS))} tasks: {', '.join(KINDS)}; norms over 1, 1e±3 and")
    print("1e±12; float64 and float32\n")
    print("| solver | finite % | solvable | converged % of these | residual ≤ 1e-6 | largest residual |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, solve in SOLVERS.items():
        total = finite = solvable = converged = met = 0
        worst = 0.0
        for gram in grams(each):
            answer = solve(gram)
            total += len(gram)
            finite += int(answer.weights.flatten(1).isfinite().all(1).sum())
            solvable += int(answer.solvable.sum())
            converged += int((answer.converged & answer.solvable).sum())
            residual = answer.residual[answer.solvable]
            met += int((residual <= TOLERANCE).sum())
            worst = max(worst, float(residual.amax()) if len(residual) else 0.0)
        shares = [
            f"{100 * part / whole:.2f}" for part, whole in ((finite, total), (converged, solvable), (met, solvable))
        ]
        print(f"| {name} | {shares[0]} | {solvable} | {shares[1]} | {shares[2]} | {worst:.1e} |", flush=True)
