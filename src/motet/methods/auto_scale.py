"""AutoScale, fixed weights from a look at the gradients: Yang et al., 2025, arXiv 2508.13979."""

import torch
from torch import Tensor

from motet.linalg import as_double
from motet.methods.base import GramMethod, register
from motet.methods.warmup import shares


@register("auto-scale", year=2025, cost="gram")
class AutoScale(GramMethod):
    r"""Weights that make the gradients equally long over the first steps, and are kept from then on.

    The similarity of two gradients' magnitudes, 2|a||b|/(|a|² + |b|²), is greatest where they are equal. Of all
    fixed weights those that give it are w ∝ 1/m, Σw = K, with m the geometric mean of the gradient's length over the
    task's first ``probe`` steps, during which the mean so far is used.

    Args:
        probe: Steps in which a task's gradients are looked at, ≥ 1.

    Shapes:
        gram (K, K) → weights (K,), summing to K.

    Scale:
        All losses times c leave the weights as they are; one loss times c, from the start, leaves the direction.

    Cost:
        The Gram matrix for ``probe`` steps, and nothing beyond the plain step from then on, on any route.

    Note:
        Reconstruction: the paper has two phases, and finds that good weights go with a high magnitude similarity, a
        low condition number and balanced losses. That phase one takes the weights of the greatest similarity
        in closed form, the geometric mean, and 100 steps, are choices here; the condition number and the losses are
        left out. The paper weights losses, which scales the heads as well; here they get their own gradient.
        A task that never had a gradient keeps weight 1.
    """

    scale = 1.0

    def __init__(self, probe: int = 100) -> None:
        super().__init__()
        if isinstance(probe, bool) or not isinstance(probe, int) or probe < 1:
            raise ValueError(f"probe of AutoScale is a whole number of steps and at least 1, not {probe!r}")
        self.probe = probe

    def weights(self, gram: Tensor) -> Tensor:
        norms = as_double(gram.detach()).diagonal().clamp(min=0).sqrt()
        level, looks = self.recall("log_norm", norms, 0.0), self.recall("looks", norms, 0.0)
        steps = self.recall("steps", norms, 0.0)
        counts = (norms > 0) & norms.isfinite() & (steps < self.probe)
        level = torch.where(counts, level + (norms.log() - level) / (looks + 1), level)
        self.remember("log_norm", level)
        self.remember("looks", looks + counts)
        self.remember("steps", steps + 1)
        return shares(-level, looks + counts > 0)

    def known_weights(self, losses: Tensor) -> Tensor | None:
        like = as_double(losses.detach())
        # On the host, where a Balancer's losses are.
        if (self.recall("steps", like, 0.0) < self.probe).any():
            return None
        return shares(-self.recall("log_norm", like, 0.0), self.recall("looks", like, 0.0) > 0)
