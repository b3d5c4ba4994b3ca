"""EMA, smoothed weights (CR-MOGM): Zhou et al., NeurIPS 2022."""

import torch
from torch import Tensor

from motet.methods.base import Method
from motet.methods.wrapper import Wrapper


class EMA(Wrapper):
    r"""Average a method's weights over the steps: w̄ₜ = β w̄ₜ₋₁ + (1 - β) wₜ, from w̄₁ = w₁ on.

    Weights that jump from batch to batch make the update biased and its length uneven; averaged ones converge where
    the plain ones need not.

    Args:
        method: The method, or its name. One that gives weights.
        beta: β, at least 0 (no smoothing) and below 1.

    Shapes:
        As the method's.

    Note:
        TorchJD's ``CRMOGM`` with ``alpha`` = β. The paper lets β grow to 1 as the learning rate falls: set `beta`. A
        promise of no conflict is the plain weights', and does not hold for the average.
    """

    def __init__(self, method: Method | str, beta: float = 0.9) -> None:
        super().__init__(method)
        if not 0 <= beta < 1:
            raise ValueError(f"beta is the share of the former weights and must be at least 0 and below 1, not {beta}")
        self._needs_weights("there is nothing to average: wrap a method on losses or on the Gram matrix")
        self.beta = beta
        self.no_conflict = self.no_conflict and beta == 0

    def known_weights(self, losses: Tensor) -> Tensor | None:
        known = self.method.known_weights(losses)
        return None if known is None else self._smooth(known)

    def weights(self, given: Tensor) -> Tensor:
        return self._smooth(self.method.weights(given))

    def pair_weights(self, joint: Tensor) -> Tensor:
        return self._smooth(self.method.pair_weights(joint).view(2, -1).T).T.reshape(-1)

    def sample_weights(self, signal: Tensor, noise: Tensor) -> Tensor:
        return self._smooth(self.method.sample_weights(signal, noise))

    def _smooth(self, weights: Tensor) -> Tensor:
        """(K, …) → (K, …), a task's first weight as it is."""
        former, seen = self.recall("average", weights, 0.0), self.recall("seen", weights, 0.0)
        average = torch.where(seen > 0, self.beta * former + (1 - self.beta) * weights, weights)
        # Weights that are not finite end the step with an error, and later ones must not know of them.
        fine = average.isfinite()
        self.remember("average", torch.where(fine, average, former))
        self.remember("seen", torch.where(fine, 1.0, seen))
        return average
