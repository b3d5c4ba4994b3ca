"""COSMOS, scalable Pareto front approximation: Ruchte & Grabocka, ICDM 2021, arXiv 2103.13392."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from motet.methods.base import LossMethod, register
from motet.methods.preferred import ray, read_preference, shares, uneven


@register("cosmos", year=2021, cost="losses")
class COSMOS(LossMethod):
    r"""Descend a weighted sum of the losses, and turn their vector towards a ray.

        r·L - λ cos(L, v),  so  w = r - λ (v/|v| - cos(L, v) L/|L|) / |L|.

    Args:
        preference: r, one positive number a task; None: equal.
        lambda_: λ ≥ 0, in units of the losses. 0 gives the weighted sum; the paper uses 0.01 to 8 by data set.
        ray: Where the vector of losses is turned: "paper" has v = r, "inverse" v = 1/r.
        alpha: Draw r in every step from a Dirichlet distribution with this parameter, > 0, for a model that is given
            r as an input. None: r is fixed.
        generator: What r is drawn from. None: an own one, seeded as torch was last seeded.

    Shapes:
        losses (K,) → weights (K,).

    Scale:
        None: λ is in units of the losses.

    Cost:
        None beyond the plain step.

    Note:
        In the paper r has two meanings: a large rₖ makes the sum press on task k, and makes the cosine want a *large*
        loss of it. The inverse ray lets both want a small one, as elsewhere in motet; with equal preference there is
        no difference. A weight is negative where λ outweighs rₖ for a task that is ahead of its ray: its loss is
        raised, its head's too. Start from a small λ. With ``alpha``, ask for r by `draw` before the forward
        pass; the next step uses it. A step without one draws its own.
    """

    lower_bound = 0.0

    def __init__(
        self,
        preference: Sequence[float] | None = None,
        lambda_: float = 1.0,
        ray: Literal["paper", "inverse"] = "paper",
        alpha: float | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if not lambda_ >= 0:
            raise ValueError(f"lambda_ of COSMOS weighs the cosine and must not be negative, not {lambda_}")
        if ray not in ("paper", "inverse"):
            raise ValueError(f"ray of COSMOS is 'paper' or 'inverse', not {ray!r}")
        if alpha is not None and (not alpha > 0 or preference is not None):
            raise ValueError(f"alpha of COSMOS draws the preference: positive and without one given, not {alpha}")
        self._preference = read_preference(self, preference)
        self.preference = None if self._preference is None else self._preference.tolist()
        self.symmetric = not uneven(self._preference)
        self.lambda_, self.ray, self.alpha = lambda_, ray, alpha
        self._drawn: Tensor | None = None
        if alpha is not None:
            self.use_generator(generator)

    def draw(self, tasks: int) -> Tensor:
        """The preference of the next step, for the model's input: (tasks,), float64, summing to 1.

        Raises:
            ValueError: if the preference is fixed.
        """
        if self.alpha is None:
            raise ValueError("COSMOS draws a preference only with alpha")
        # torch's Dirichlet can't be given a generator, and numpy's can be given a seed from this one.
        seed = int(torch.randint(2**62, (), generator=self.generator, device=self.generator.device))  # type: ignore[union-attr]
        drawn = np.random.default_rng(seed).dirichlet(np.full(tasks, self.alpha))
        self._drawn = torch.from_numpy(drawn).clamp(min=1e-6)
        self._drawn /= self._drawn.sum()
        return self._drawn.clone()

    def weights(self, losses: Tensor) -> Tensor:
        losses = self.above_bound(losses)
        if self.alpha is not None and self._drawn is None:
            self.draw(len(losses) if self._count is None else self._count)
        r = shares(self, self._preference if self.alpha is None else self._drawn, losses)
        self._drawn = None
        v = r / torch.linalg.vector_norm(r) if self.ray == "paper" else ray(r)
        length: Tensor = torch.linalg.vector_norm(losses)
        unit = losses / length
        return r - self.lambda_ * (v - (unit @ v) * unit) / length
