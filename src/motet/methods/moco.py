"""MoCo, multi-objective correction of gradient bias: Fernando et al., ICLR 2023."""

from torch import Tensor

from motet.linalg import as_double, combine, gram
from motet.methods.base import JacobianMethod, register
from motet.methods.simplex import project_on_simplex, recall_weights


@register("moco", year=2023, cost="jacobian")
class MoCo(JacobianMethod):
    r"""MGDA's direction from gradients tracked over the steps, whose weights take one step at a time.

    With yₖ following the noisy gradients gₖ, and the projection Π on the simplex,

        Y ← Y - βₜ(Y - J),  λ ← Π(λ - γₜ(YYᵀ + ρI)λ),  d = Yᵀλ,  βₜ = β/t^σ,  γₜ = γ/t^σ.

    Args:
        beta: β in (0, 1], step of the tracked gradients. 0.5 is LibMTL's, from the authors.
        gamma: γ > 0, step of λ. It multiplies squared norms: losses 10 times as large want a hundredth of it.
        rho: ρ ≥ 0, which pulls λ towards equal weights.
        decay: σ ≥ 0, at which β and γ fall with the number t of steps. 0.5 in the authors' code.

    Shapes:
        jacobian (K, P) → direction (P,).

    Scale:
        No law: the step of λ depends on the gradients' size.

    Cost:
        The whole Jacobian at every step and as much again in state.

    Note:
        As in the authors' code, Y starts at zero, which shortens the first steps, and d is made of Y, not of the step's
        own gradients. LibMTL first brings every gradient to the length of its loss and takes a softmax in place of the
        projection. A task counts its own steps; γ falls with those of the task that has made most. The weights of
        the present tasks sum to 1. At K = 1 this is plain smoothing.
    """

    same_rows = True

    def __init__(self, beta: float = 0.5, gamma: float = 0.1, rho: float = 0.0, decay: float = 0.5) -> None:
        super().__init__()
        if not 0 < beta <= 1:
            raise ValueError(f"beta is MoCo's step of the tracked gradients and must be in (0, 1], not {beta}")
        if not (gamma > 0 and rho >= 0 and decay >= 0):
            raise ValueError(
                f"gamma of MoCo must be positive, rho and decay must not be negative, not {gamma}, {rho} and {decay}"
            )
        self.beta = beta
        self.gamma = gamma
        self.rho = rho
        self.decay = decay

    def direction(self, jacobian: Tensor) -> Tensor:
        jacobian = jacobian.detach()
        tasks = len(jacobian)
        steps = self.recall("steps", as_double(jacobian[:, 0]), 0.0) + 1
        tracked = self.recall("tracked", jacobian, 0.0)
        tracked = tracked.lerp(jacobian, (self.beta / steps**self.decay).to(jacobian)[:, None])
        # Kept as Kλ, so that a task which joins counts as one of the others does.
        weights = recall_weights(self.recall("share", steps, 1.0))
        slope = gram(tracked) @ weights + self.rho * weights
        weights = project_on_simplex(weights - self.gamma / steps.amax() ** self.decay * slope)
        direction = combine(weights, tracked)
        # One gradient that is not finite shows in every entry; once tracked, it would in every later step.
        if direction.isfinite().all():
            self.remember("steps", steps)
            self.remember("tracked", tracked)
            self.remember("share", tasks * weights)
        return direction
