"""GradDrop, gradient sign dropout: Chen et al., NeurIPS 2020, arXiv 2010.06808."""

import torch
from torch import Tensor

from motet.methods.base import JacobianMethod, register


@register("grad-drop", year=2020, cost="jacobian")
class GradDrop(JacobianMethod):
    r"""In every coordinate keep the gradients of one sign only, drawn by how much of the mass has it.

    With the purity P = ½(1 + Σₖgₖ / Σₖ|gₖ|) and u uniform in [0, 1]: the positive gₖ are summed where u < P, the
    negative ones elsewhere. The mean over u is the plain sum where all signs agree.

    Args:
        generator: What to draw u from. None makes an own one, seeded as torch was; its state is saved.

    Shapes:
        jacobian (K, P) → direction (P,).

    Scale:
        All losses times c give c times the direction.

    Cost:
        The whole Jacobian, and P random numbers drawn where the generator lives: on the CPU by default.

    Note:
        The paper lets a share of a task's gradient leak through; here, as by default in TorchJD, none does.
        Given the same u the direction is TorchJD's.
    """

    scale = 1.0

    def __init__(self, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.use_generator(generator)

    def direction(self, jacobian: Tensor) -> Tensor:
        assert self.generator is not None
        draw = torch.rand(jacobian.shape[1], generator=self.generator, device=self.generator.device)
        return keep_one_sign(jacobian.detach(), draw.to(jacobian.device))


def keep_one_sign(jacobian: Tensor, draw: Tensor) -> Tensor:
    """Sum of the entries of the sign that ``draw`` in [0, 1] picks: (K, P), (P,) → (P,)."""
    positive, negative = jacobian.clamp(min=0).sum(0), jacobian.clamp(max=0).sum(0)
    # u < P without a division: P = positive / (positive - negative), and an all-zero column gives zero.
    return torch.where(draw * (positive - negative) < positive, positive, negative)
