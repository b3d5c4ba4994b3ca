"""Training without a sparsity penalty: the start of a path, and the refit on its support."""

from collections.abc import Sequence

import torch
from torch import Tensor

from motet.estimators.network import Layout, backward, clip, forward
from motet.estimators.solver import Criterion, Objective

BETAS = (0.9, 0.999)
EVERY = 5  # steps between two validations


def concordances(pairs: Sequence[Criterion], scores: Tensor) -> Tensor:
    """C-index per task (K,), NaN where an outcome has no comparable pair among these rows."""
    values = [p.concordance(scores[:, k]) if p.total > 0 else torch.nan for k, p in enumerate(pairs)]
    return torch.tensor(values, dtype=torch.float64)


def train(
    layout: Layout,
    flat: Tensor,
    X: Tensor,
    objective: Objective,
    bound: float,
    *,
    steps: int,
    lr: float,
    ridge: float = 0.0,
    validation: tuple[Tensor, Sequence[Criterion]] | None = None,
    patience: int = 40,
) -> Tensor:
    """Adam on all rows at once, heads within their balls.

    With validation rows the best network by their mean concordance is returned, and training ends `patience` steps
    after it; without, all steps are taken. `ridge` is ρ of ρ/2·‖W‖².
    """
    flat, best, kept, since = flat.clone(), -torch.inf, flat, 0
    mean, square = torch.zeros_like(flat), torch.zeros_like(flat)
    for step in range(1, steps + 1):
        passed = forward(layout, flat, X)
        gradient, _ = backward(layout, flat, X, passed, objective.losses(passed.scores, value=False)[1])
        layout.split(gradient).first.add_(layout.split(flat).first, alpha=ridge)
        mean.lerp_(gradient, 1 - BETAS[0])
        square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        scale = (square / (1 - BETAS[1] ** step)).sqrt_().add_(1e-8)
        flat = clip(layout, flat.addcdiv(mean, scale, value=-lr / (1 - BETAS[0] ** step)), bound)
        if validation is None or step % EVERY:
            continue
        value = float(concordances(validation[1], forward(layout, flat, validation[0]).scores).nanmean())
        if value > best:
            best, kept, since = value, flat, step
        elif step - since >= patience:
            break
    return flat if validation is None else kept
