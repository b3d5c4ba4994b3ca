"""A mean that moves, seen through noise, and how well momentum follows it: the tracking fixtures."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from motet.optim import APTSGD

SEEDS, DIMENSION, PERIOD = 5, 20, 200
FIXED = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


def targets(case: str, steps: int, generator: torch.Generator) -> Tensor:
    """Means μ_t of norm one, (steps, SEEDS, DIMENSION): static, flip or jump every PERIOD steps, or rotate by 0.1."""
    first = torch.nn.functional.normalize(
        torch.randn(steps // PERIOD + 1, SEEDS, DIMENSION, generator=generator, dtype=torch.float64), dim=-1
    )
    t = torch.arange(steps)
    if case == "static":
        return first[:1].expand(steps, -1, -1)
    if case == "flip":
        return first[:1] * (1 - 2 * (t // PERIOD % 2)).view(-1, 1, 1)
    if case == "jump":
        return first[t // PERIOD]
    angle = 0.1 * t.view(-1, 1, 1)
    mu = torch.zeros(steps, SEEDS, DIMENSION, dtype=torch.float64)
    mu[..., :1], mu[..., 1:2] = angle.cos(), angle.sin()
    return mu


def gradients(case: str, noise: float, steps: int = 2000) -> tuple[Tensor, Tensor]:
    """μ and d = μ + ξ with E‖ξ‖² = noise²."""
    generator = torch.Generator().manual_seed(7)
    mu = targets(case, steps, generator)
    xi = torch.randn(mu.shape, generator=generator, dtype=torch.float64)
    return mu, mu + noise / math.sqrt(DIMENSION) * xi


def fixed_error(mu: Tensor, d: Tensor) -> dict[float, float]:
    """Mean squared tracking error of every fixed β, by the recursion itself."""
    betas = torch.tensor(FIXED, dtype=torch.float64).view(-1, 1, 1)
    m, errors = d[0].expand(len(FIXED), -1, -1), []
    for mu_t, d_t in zip(mu, d, strict=True):
        m = betas * m + (1 - betas) * d_t
        errors.append((m - mu_t).square().sum(-1).mean(-1))
    return dict(zip(FIXED, torch.stack(errors).mean(0).tolist(), strict=True))


def tracking_error(mu: Tensor, d: Tensor, groups: Mapping[str, dict[str, object]]) -> dict[str, float]:
    """Mean squared tracking error of APTSGD's momentum; a parameter is a seed, so the scope is a tensor."""
    made = {name: [torch.nn.Parameter(torch.zeros_like(row)) for row in d[0]] for name in groups}
    optimizer = APTSGD(
        [{"params": made[name], "scope": "tensor", **options} for name, options in groups.items()], lr=0.0
    )
    total = dict.fromkeys(groups, 0.0)
    for mu_t, d_t in zip(mu, d, strict=True):
        for params in made.values():
            for p, row in zip(params, d_t, strict=True):
                p.grad = row
        optimizer.step()
        for name, params in made.items():
            m = torch.stack([optimizer.state[p]["momentum_buffer"] for p in params])
            total[name] += float((m - mu_t).square().sum(-1).mean()) / len(d)
    return total
