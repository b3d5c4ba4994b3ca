"""Losses and gradients that a method must cope with, and the step that is made with them."""

import math

import torch
from torch import Tensor

from motet.linalg import combine, gram
from motet.methods import Method

TASKS, WIDTH = 5, 13


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers in float64, the same for a seed whatever else has been drawn."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def conflicting(tasks: int = TASKS, seed: int = 0) -> Tensor:
    """Two camps that pull one way and the other along one direction, and go their own ways otherwise: (K, 13)."""
    side = 1.0 - 2.0 * (torch.arange(tasks) % 2)
    return side[:, None] * normal(1, WIDTH, seed=seed) + 0.3 * normal(tasks, WIDTH, seed=seed + 1000)


def some_losses(method: Method, tasks: int = TASKS, seed: int = 0) -> Tensor:
    """Positive losses of the order of one, above the method's bound: (K,), float64."""
    above = torch.rand(tasks, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.1
    return above + max(method.lower_bound or 0.0, 0.0)


def row_cases() -> dict[str, Tensor]:
    """Jacobians by what is special about them: (K, P) in float64."""
    usual, camps = normal(TASKS, WIDTH), conflicting()
    return {
        "ordinary gradients": usual,
        "conflicting gradients": camps,
        "one task": usual[:1],
        "two tasks": usual[:2],
        "two opposite gradients": torch.stack([usual[0], -usual[0]]),
        "tasks with zero gradients": usual * torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0])[:, None],
        "all gradients zero": torch.zeros_like(usual),
        "duplicated gradients": usual[[0, 0, 1, 1, 1]],
        "more tasks than parameters": normal(9, 4),
        "gradients of rank 2": normal(TASKS, 2) @ normal(2, WIDTH, seed=1),
        "gradient norms from 1e-12 to 1e12": camps * torch.logspace(-12, 12, TASKS, dtype=torch.float64)[:, None],
        "gradients times 1e-6": camps * 1e-6,
        "gradients times 1e6": camps * 1e6,
    }


def solvable_cases() -> dict[str, Tensor]:
    """Jacobians of full rank, on which a promise or a definition has no way out: (K, P) in float64."""
    cases: dict[str, Tensor] = {}
    for tasks, seed in ((2, 11), (3, 12), (TASKS, 13), (8, 14)):
        spread = torch.logspace(-1.5, 1.5, tasks, dtype=torch.float64)[:, None]
        cases |= {
            f"{tasks} gradients at random": normal(tasks, WIDTH, seed=seed),
            f"{tasks} gradients in strong conflict": conflicting(tasks, seed=seed),
            f"{tasks} gradients in conflict, one 1000 times another": conflicting(tasks, seed=seed) * spread,
        }
    return cases


def loss_cases(bound: float | None) -> dict[str, Tensor]:
    """Losses that a method with this lower bound must accept: (K,) in float64."""
    floor = bound or 0.0
    least = max(1e-12, 1e-5 * abs(floor))  # what float32 can tell from the bound
    above = {
        "ordinary losses": torch.linspace(0.1, 1.1, TASKS, dtype=torch.float64),
        "equal losses": torch.ones(TASKS, dtype=torch.float64),
        "one loss": torch.ones(1, dtype=torch.float64),
        "twenty losses": torch.linspace(0.1, 2.0, 20, dtype=torch.float64),
        f"losses {least:.0e} to 1e12 above {floor:g}": torch.logspace(-12, 12, TASKS).double().clamp(min=least),
    }
    none = torch.zeros(TASKS)
    unbounded = {"zero losses and no lower_bound": none, "negative losses and no lower_bound": none - 1}
    return {what: floor + excess for what, excess in above.items()} | (unbounded if bound is None else {})


def scaled_losses(method: Method, losses: Tensor, factor: float) -> Tensor:
    """The losses times a factor, or, for a method with a bound of its own, what exceeds it: (K,) → (K,)."""
    bound = method.lower_bound or 0.0
    return bound + (losses - bound) * factor


def ask(method: Method, losses: Tensor, rows: Tensor) -> Tensor:
    """The update of the trunk as a Balancer makes it: losses (K,) and their gradients (K, P) → (P,)."""
    method.observe(losses)
    known = method.known_weights(losses)
    factors = None if method.needs == "losses" else method.loss_weights(losses)
    if factors is not None:
        rows = factors.to(rows)[:, None] * rows
    if known is not None:
        return combine(known, rows)
    if method.needs == "jacobian":
        return method.direction(rows)
    return combine(method.weights(losses if method.needs == "losses" else gram(rows)), rows)


def step(method: Method, losses: Tensor, rows: Tensor) -> Tensor:
    """What `ask` gives, and feedback on it: (K,), (K, P) → (P,)."""
    direction = ask(method, losses, rows)
    method.update(losses - 0.1 * (losses - (method.lower_bound or 0.0)).abs())
    return direction


def steps(method: Method, first: int, last: int, order: Tensor | None = None) -> Tensor:
    """The updates of steps first … last - 1 on changing losses and gradients, the tasks in an order: (steps, 13)."""
    order = torch.arange(TASKS) if order is None else order
    numbers = range(first, last)
    return torch.stack([step(method, some_losses(method, seed=n)[order], conflicting(seed=n)[order]) for n in numbers])


def difference(one: Tensor, other: Tensor) -> float:
    """Largest difference over the largest entry of the other; 0 where the other is not finite itself."""
    if torch.equal(one, other) or not other.isfinite().all():
        return 0.0
    off = float((one - other).abs().max() / other.abs().max().clamp(min=1e-300))
    return off if math.isfinite(off) else math.inf
