"""Preference, any method with some tasks that matter more: Lin et al., NeurIPS 2019, arXiv 1912.12854."""

from collections.abc import Sequence

import torch
from torch import Tensor

from motet.linalg import as_double
from motet.methods.base import Method
from motet.methods.wrapper import Wrapper


class Preference(Wrapper):
    r"""Give a method rₖLₖ in place of Lₖ: losses and gradients of the tasks times their preference.

    ``Preference(Sum(), r)`` is the weighted sum. What r does depends on the method: MGDA turns towards the tasks of
    small gradients, so a *larger* rₖ lowers task k's weight there; Nash-MTL ignores any scale. Methods that
    have preferences of their own (`EPO`, `PMTL`, `STCH`, `COSMOS`) end where the preference says.

    Args:
        method: The method, or its name.
        r: One positive number a task, in the order of the tasks; brought to a mean of 1.

    Shapes:
        As the method's.

    Note:
        Heads get their own gradient, unscaled, unless the method weights losses. Methods between the two, on
        log-losses say, get log Lₖ + log rₖ.
    """

    def __init__(self, method: Method | str, r: Sequence[float] | Tensor) -> None:
        super().__init__(method)
        values = torch.as_tensor(r, dtype=torch.float64).detach().clone()
        if values.dim() != 1 or not len(values) or not (values.isfinite() & (values > 0)).all():
            raise ValueError(f"r must hold one positive number a task, not {r}")
        self.r = (values / values.mean()).tolist()
        self._r = values / values.mean()
        self.symmetric = self.symmetric and bool((values == values[0]).all())
        if self.lower_bound:
            raise ValueError(
                f"{self.method!r} needs losses above {self.lower_bound:g}, and those times a preference may not be"
            )
        if self.two_samples:
            raise ValueError(f"{self.method!r} weighs two batches: give it its main tasks instead")

    def loss_weights(self, losses: Tensor) -> Tensor | None:
        return self.method.loss_weights(self._scaled(losses))

    def observe(self, losses: Tensor) -> None:
        self.method.observe(self._scaled(losses))

    def known_weights(self, losses: Tensor) -> Tensor | None:
        known = self.method.known_weights(self._scaled(losses))
        return None if known is None else self._scaled(known)

    def weights(self, given: Tensor) -> Tensor:
        if given.dim() == 1:
            return self._scaled(self.method.weights(self._scaled(given)))
        r = self.chosen(self._r, as_double(given.detach()).diagonal(dim1=-2, dim2=-1).movedim(-1, 0))
        return self._scaled(self.method.weights(as_double(given.detach()) * r[:, None] * r[None, :]))

    def sample_weights(self, signal: Tensor, noise: Tensor) -> Tensor:
        r = self.chosen(self._r, as_double(signal.detach())[0])
        scale = r[:, None] * r[None, :]
        return self._scaled(self.method.sample_weights(as_double(signal) * scale, as_double(noise) * scale))

    def direction(self, jacobian: Tensor) -> Tensor:
        jacobian = jacobian.detach()
        return self.method.direction(jacobian * self.chosen(self._r, jacobian[:, 0])[:, None])

    def update(self, losses: Tensor) -> None:
        """Take the losses after the step, times the preference."""
        self.method.update(self._scaled(losses))

    def _scaled(self, values: Tensor) -> Tensor:
        values = as_double(values.detach())
        return values * self.chosen(self._r, values)
