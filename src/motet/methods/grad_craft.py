"""GradCraft, magnitudes first and then all conflicts of a task at once: Bai et al., KDD 2024, arXiv 2407.19682."""

import torch
from torch import Tensor

from motet.linalg import as_double
from motet.methods.base import GramMethod, register
from motet.solvers import unit_diagonal
from motet.solvers.threads import one_thread
from motet.solvers.unit_diagonal import ROUNDING


@register("grad-craft", year=2024, cost="gram")
class GradCraft(GramMethod):
    r"""Bring gradients towards the longest one's length, then turn each out of all its conflicts at once.

    First ĝᵢ = (τ maxⱼ|gⱼ| / |gᵢ| + 1 - τ) gᵢ. Then, with Ĝᵢ the rows that have ĝⱼ·ĝᵢ < 0, the shortest change that
    gives the cosine ε with all of them at once,

        g̃ᵢ = ĝᵢ + Ĝᵢᵀx,  ĜᵢĜᵢᵀ x = ε|ĝᵢ||ĝⱼ| - Ĝᵢĝᵢ,

    and the update is the mean of the g̃ᵢ. PCGrad takes the conflicts one by one, and may bring back those it has solved.

    Args:
        tau: τ in [0, 1]: 0 leaves the lengths, 1 makes them equal.
        epsilon: ε in [0, 1), what remains of each angle short of a right one.

    Shapes:
        gram (K, K) → weights (K,).

    Scale:
        All losses times c leave the weights as they are. With τ = 1 a loss times c leaves the direction.

    Cost:
        K eigendecompositions of K×K side by side: about six milliseconds at K = 40 on one CPU thread.

    Note:
        Reconstruction in what is open: the authors tune τ and ε by data set, and the defaults are chosen here. Their
        code can smooth the norms over steps, and as released does not. Where the conflicting gradients are linearly
        dependent it inverts a singular matrix; here x solves least squares with the smallest Σ(xⱼ|ĝⱼ|)². The sum of the
        turned gradients may still conflict with a task, and a turned one with a task it had agreed with.
    """

    scale = 1.0

    def __init__(self, tau: float = 0.5, epsilon: float = 0.0) -> None:
        super().__init__()
        if not (0 <= tau <= 1 and 0 <= epsilon < 1):
            raise ValueError(f"GradCraft needs tau in [0, 1] and epsilon in [0, 1), not {tau} and {epsilon}")
        self.tau = tau
        self.epsilon = epsilon

    @one_thread
    def weights(self, gram: Tensor) -> Tensor:
        unit = unit_diagonal(as_double(gram.detach()))
        tasks = len(unit.norms)
        norms = unit.norms * unit.live
        lengths = self.tau * norms.amax() + (1 - self.tau) * norms
        conflicts = unit.cosines < 0
        # In units of the adjusted lengths a gradient is turned by y: C_i y = ε - c_i over its conflicts.
        values, vectors = torch.linalg.eigh(unit.cosines * (conflicts[:, :, None] & conflicts[:, None, :]))
        inverse = torch.where(values > tasks * ROUNDING, 1 / values, 0.0)
        wanted = torch.where(conflicts, self.epsilon - unit.cosines, 0.0)
        turn = (vectors * inverse[:, None, :]) @ (vectors.mT @ wanted[:, :, None])
        share = lengths + lengths @ turn.squeeze(2)
        weights, self.converged = unit.finish(share / unit.norms / tasks, unit.finite)
        return torch.where(unit.live | ~unit.finite, weights, 1 / tasks)
