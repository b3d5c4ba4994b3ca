"""Adam for the few numbers that a method learns, one row a task, inside the method's own state."""

import torch
from torch import Tensor

from motet.methods.base import Method

_MEAN, _SQUARE, _EPS = 0.9, 0.999, 1e-8


def adam_step(
    method: Method, name: str, gradient: Tensor, lr: float, decay: float = 0.0, learns: Tensor | None = None
) -> None:
    """Move the state ``name`` of the present tasks by one step of Adam (Kingma & Ba, 2015), as torch's.

    Every task counts its own steps, so that an absent task's row and its bias correction stay as they are. So do
    those of a task whose gradient is not finite.

    Args:
        gradient: (K,), of the present tasks.
        decay: Factor of the L2 term that is added to the gradient.
        learns: (K,) bool: the tasks to move, or None for all present ones.
    """
    value = method.recall(name, gradient, 0.0)
    mean = method.recall(f"{name}_mean", gradient, 0.0)
    square = method.recall(f"{name}_square", gradient, 0.0)
    steps = method.recall(f"{name}_steps", gradient, 0.0)
    finite = gradient.isfinite()
    learns = finite if learns is None else learns & finite
    gradient = gradient + decay * value
    new_steps = steps + 1
    new_mean = _MEAN * mean + (1 - _MEAN) * gradient
    new_square = _SQUARE * square + (1 - _SQUARE) * gradient**2
    unbiased = new_mean / (1 - _MEAN**new_steps)
    scale = (new_square / (1 - _SQUARE**new_steps)).sqrt() + _EPS
    method.remember(name, torch.where(learns, value - lr * unbiased / scale, value))
    method.remember(f"{name}_mean", torch.where(learns, new_mean, mean))
    method.remember(f"{name}_square", torch.where(learns, new_square, square))
    method.remember(f"{name}_steps", torch.where(learns, new_steps, steps))
