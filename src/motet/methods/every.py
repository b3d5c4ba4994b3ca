"""Every, weights that are kept for n steps: Navon et al., ICML 2022, §4.3, arXiv 2202.01017."""

import torch
from torch import Tensor

from motet.linalg import as_double
from motet.methods.base import Method
from motet.methods.wrapper import Wrapper


class Every(Wrapper):
    r"""Ask a method for weights every n-th step and keep them in between.

    A step in between needs no task's gradient, so it costs a plain one: with a route of cost c the mean is
    1 + (c - 1)/n. Nash-MTL was published this way.

    Args:
        n: Steps from one question to the next, ≥ 1.
        method: The method, or its name. One that gives weights from gradients.

    Shapes:
        As the method's.

    Note:
        A task that is new is asked for at once, with all that are present. A promise of no conflict holds in the
        steps that ask. Random methods draw, and methods with averages over steps count, in those steps only.
    """

    def __init__(self, n: int, method: Method | str) -> None:
        super().__init__(method)
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ValueError(f"n, the steps between two questions, must be a whole number of at least 1, not {n!r}")
        self._needs_weights("there is nothing to keep: wrap a method on the Gram matrix")
        if self.needs == "losses":
            raise ValueError(f"{self.method!r} needs no gradients, so that there is nothing to save")
        if self.two_samples:
            raise ValueError(f"{self.method!r} learns from every batch: it can't be asked now and then")
        self.n = n
        self.no_conflict = self.no_conflict and n == 1

    def known_weights(self, losses: Tensor) -> Tensor | None:
        age = self.recall("age", as_double(losses), float(self.n))
        # On the host, where a Balancer's losses are.
        if (age >= self.n).any():
            return None
        self.remember("age", age + 1)
        return self.recall("kept", as_double(losses), 1.0)

    def weights(self, given: Tensor) -> Tensor:
        return self._keep(self.method.weights(given))

    def sample_weights(self, signal: Tensor, noise: Tensor) -> Tensor:
        return self._keep(self.method.sample_weights(signal, noise))

    def _keep(self, weights: Tensor) -> Tensor:
        self.recall("age", weights, float(self.n))
        self.recall("kept", weights, 1.0)
        fine = weights.isfinite()
        self.remember("kept", torch.where(fine, weights, 1.0))
        self.remember("age", torch.where(fine, 1.0, float(self.n)).to(weights))
        return weights
