"""IMGrad, injecting imbalance sensitivity: Zhou et al., IJCAI 2025, arXiv 2503.08006."""

import torch
from torch import Tensor

from motet.linalg import as_double
from motet.methods.base import GramMethod, register
from motet.methods.conic_grad import shortest
from motet.solvers import conflict_averse

_LEAST = 1e-4


@register("im-grad", year=2025, cost="gram")
class IMGrad(GramMethod):
    r"""CAGrad that turns to the worst task the more, the further the mean gradient g₀ is from MGDA's g_m.

    With q = cos(g₀, g_m), ω on the simplex minimises

        (3/2 - q) g_ω·g₀ + q c |g₀||g_ω|,  and  d = g₀ + c|g₀|/|g_ω| g_ω.

    Args:
        c: Length of the change in multiples of |g₀|, ≥ 0. 0.8 is that of the authors' runs.

    Shapes:
        gram (K, K) → weights 1/K + c|g₀|/|g_ω| ω (K,).

    Scale:
        All losses times c leave the weights as they are.

    Cost:
        As CAGrad, and MGDA's quadratic programme.

    Note:
        The objective is that of the authors' code. It is CAGrad's with the radius qc/(3/2 - q), for which it is solved
        here; q = 3/4 is CAGrad. As q falls to 0, its value at a Pareto-stationary point, ω goes to the task that
        gains least from g₀; q is taken as no less than about 1.5e-4. The code divides d by 1 + c² and multiplies it by
        K; this does not, as in `CAGrad`. Even with large c tasks may lose, since ω is not the best for this length.
        Tasks with a zero gradient are left out of the minimum and of g_m.
    """

    scale = 1.0

    def __init__(self, c: float = 0.8) -> None:
        super().__init__()
        if not c >= 0:
            raise ValueError(f"c is the length of IMGrad's change and must not be negative, not {c}")
        self.c = c

    def weights(self, gram: Tensor) -> Tensor:
        gram = as_double(gram.detach())
        progress, size = gram.mean(1), gram.mean().clamp(min=0).sqrt()
        mgda = shortest(gram.nan_to_num(posinf=0.0, neginf=0.0))
        product = size * (mgda @ gram @ mgda).clamp(min=0).sqrt()
        q = torch.where(product > 0, (mgda @ progress) / torch.where(product > 0, product, 1.0), 0.0).clamp(0, 1)
        share = (q / (1.5 - q)).clamp(min=_LEAST)
        weights, self.converged = conflict_averse(gram, self.c * float(share))
        change = weights - 1 / len(weights)
        reached = (change @ gram @ change).clamp(min=0).sqrt()
        # The solver stops short of the radius only where 0 is in the hull, and then its change is as long as it helps.
        full = reached > 0.5 * share * self.c * size
        return 1 / len(weights) + change * torch.where(full, self.c * size / torch.where(full, reached, 1.0), 1.0)
