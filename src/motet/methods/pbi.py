"""PBI, penalty-based boundary intersection: Zhang & Li, IEEE Trans. Evol. Comput. 2007 (MOEA/D)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from motet.linalg import as_double
from motet.methods.base import LossMethod, register
from motet.methods.preferred import ray, read_preference, shares, uneven


@register("pbi", year=2007, cost="losses")
class PBI(LossMethod):
    r"""Descend along a ray, with a penalty for being beside it.

    The unit vector v lies along 1/r, on which all rₖ(Lₖ - zₖ) are equal. With d₁ = (L - z)·v, p = L - z - d₁v

        d₁ + θ|p|,  so  w = v + θ p/|p|.

    Args:
        preference: r, one positive number a task; None: equal. Twice the preference means half the loss.
        theta: θ ≥ 0. 0 gives the weighted sum of the losses by v. 5 is the paper's.
        reference: z, one value a task below all its losses; None: zeros.

    Shapes:
        losses (K,) → weights (K,).

    Scale:
        All losses times c leave the weights as they are, if there is no reference.

    Cost:
        None beyond the plain step.

    Note:
        A weight is negative where θ outweighs vₖ for a task that is ahead of the ray: its loss is raised, its head's
        too. On the ray |p| has no derivative: w = v there, and within 1e-12 of |L - z| it is drawn towards that. The
        paper's vector is v itself, as is the ``weights`` of TorchJD's PBI.
    """

    scale: float | None = 1.0

    def __init__(
        self,
        preference: Sequence[float] | None = None,
        theta: float = 5.0,
        reference: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if not theta >= 0:
            raise ValueError(f"theta of PBI weighs the distance to the ray and must not be negative, not {theta}")
        self._preference = read_preference(self, preference)
        self.preference = None if self._preference is None else self._preference.tolist()
        self._reference = None if reference is None else torch.as_tensor(reference, dtype=torch.float64)
        if self._reference is not None and (self._reference.dim() != 1 or not self._reference.isfinite().all()):
            raise ValueError(f"reference of PBI is one finite number a task, not {reference}")
        self.theta = theta
        self.reference = None if self._reference is None else self._reference.tolist()
        self.symmetric = not (uneven(self._preference) or uneven(self._reference))
        self.scale = 1.0 if reference is None else None

    def weights(self, losses: Tensor) -> Tensor:
        losses = as_double(losses.detach())
        if self._reference is not None:
            losses = losses - self.chosen(self._reference, losses)
        v = ray(shares(self, self._preference, losses))
        size = losses.abs().amax()
        losses = losses / torch.where(size > 0, size, 1.0)
        beside = losses - (losses @ v) * v
        length = torch.maximum(beside.norm(), 1e-12 * losses.norm())
        return v + self.theta * beside / torch.where(length > 0, length, 1.0)
