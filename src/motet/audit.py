"""How far a cheap route's picture of the tasks' gradients is from the exact one."""

from dataclasses import dataclass

import torch
from torch import Tensor

from motet.linalg import as_double, cosines


@dataclass(frozen=True)
class Audit:
    """One comparison of a route with the exact Gram matrix of the same step.

    Attributes:
        route: The route.
        cosine_error: Mean absolute difference between the cosines of two tasks, as the route sees and as they are;
            NaN for a single task.
        norm_correlation: Correlation of the logarithms of the gradients' norms; NaN where there is none.
        update_cosine: Cosine between the update that was made and the one that the method makes of the exact Gram
            matrix.
        worst_cosine: Least cosine between the update that was made and any task's gradient.
        worst_cosine_exact: The same for the exact route's update.
    """

    route: str
    cosine_error: float
    norm_correlation: float
    update_cosine: float
    worst_cosine: float
    worst_cosine_exact: float

    def __str__(self) -> str:
        return (
            f"audit of the route {self.route!r}: cosines off by {self.cosine_error:.3f} in the mean, log-norms "
            f"correlate {self.norm_correlation:.2f}, the update has cosine {self.update_cosine:.3f} with the exact one "
            f"and at worst {self.worst_cosine:.3f} with a task's gradient (exact: {self.worst_cosine_exact:.3f})"
        )


def compare(route: str, seen: Tensor, weights: Tensor, gram: Tensor, exact_weights: Tensor) -> Audit:
    """Compare the Gram matrix that a route saw and the weights it led to with the exact ones.

    Args:
        route: The route.
        seen: Its Gram matrix: (K, K).
        weights: The weights of the update that was made: (K,).
        gram: The exact Gram matrix: (K, K).
        exact_weights: The weights that the method gives for it: (K,).
    """
    gram, seen = as_double(gram), as_double(seen).to(gram.device)
    made, due = weights.to(gram), exact_weights.to(gram)
    pairs = torch.triu_indices(len(gram), len(gram), offset=1)
    off = (cosines(seen) - cosines(gram))[pairs[0], pairs[1]].abs().mean()
    logs = torch.stack([matrix.diagonal().clamp(min=1e-300).log() for matrix in (seen, gram)])
    centred = logs - logs.mean(1, keepdim=True)
    spread = centred.norm(dim=1).prod()
    return Audit(
        route,
        float(off),
        float((centred[0] @ centred[1]) / spread) if spread > 0 else float("nan"),
        float((made @ gram @ due) / (_length(gram, made) * _length(gram, due)).clamp(min=1e-300)),
        _worst(gram, made),
        _worst(gram, due),
    )


def _length(gram: Tensor, weights: Tensor) -> Tensor:
    return (weights @ gram @ weights).clamp(min=0).sqrt()


def _worst(gram: Tensor, weights: Tensor) -> float:
    norms = gram.diagonal().clamp(min=0).sqrt()
    live = norms > 0
    if not live.any():
        return 0.0
    progress = (gram @ weights) / (norms * _length(gram, weights)).clamp(min=1e-300)
    return float(progress[live].min())
