"""Features of each task from one representation, with a learned influence of task on task."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from motet.nn.hierarchy import log_prior
from motet.nn.precision import at_least_float32

SMALL = 1e-6
"""Mean squares of projections, and squared norms of branches, below this count as none in the penalties."""


class TaskBranching(nn.Module):
    r"""A shared projection for all tasks, a private one of low rank for each, and a matrix of who gets whose.

        c = φ(W z),   pₖ = Aₖ Bₖ z,   tₖ = c + Σⱼ Γₖⱼ pⱼ,   Γ = diag(s) Π,   Π = softmax(Θ) over each row

    c is common to all tasks. pⱼ is what task j found on its own, Πₖⱼ the share that task k takes of it, sₖ how much
    task k takes in all. Aₖ starts at 0, so that the block starts as plain hard sharing, tₖ = c. It is so again, bit for
    bit, wherever Γ = 0: ``branching.strength`` set to 0 switches the branches off.

    Args:
        dim: D, width of the representation.
        tasks: The tasks' names, anything.
        rank: r of the private projections, ≥ 1. 8 by reconstruction.
        hierarchy: How the tasks are related, which is where Θ starts: Π⁰ₖⱼ ∝ exp(-dist(k, j)/κ) over the distances of
            `motet.nn.hierarchy.task_distances`. A list of groups, nested dicts, or each child's parent. Without one
            Π⁰ = 0.8 I + 0.2/K.
        features: Dt, width of a task's features; dim by default.
        signed: Π = tanh(Θ), whose rows have no sum, so that a task can also push another away. The start is the same,
            but for shares above 0.99, which tanh reaches at a flat place only.
        kappa: κ, > 0, the distance over which influence falls by e.

    Shapes:
        z (B, D) → {task: (B, Dt)} and info with "influence" Π (K, K), row = who takes, "strength" s (K,), "prior" Π⁰
        (K, K), and "regularisers", scalars ≥ 0 that are added to nothing:

        "divergence": mean_k KL(Πₖ ‖ Π⁰ₖ), 0 iff Π = Π⁰. Signed: ½ mean_k ‖Πₖ - Π⁰ₖ‖².
        "consistency": Σₖⱼ Sₖⱼ ‖pₖ - pⱼ‖² / (2 Σₖ ‖pₖ‖² + ε) over the batch, S = (Π + Πᵀ)/2 without its diagonal, 0 iff
        tasks that influence each other have equal projections. Signed: of the positive part of Π.
        "redundancy": mean over k ≠ j of (1 - Sₖⱼ/max S) cos²(AₖBₖ, AⱼBⱼ), 0 iff the maps of unrelated tasks are
        orthogonal.

        One task: Π = [1], and all three are 0.

    Scale:
        The penalties do not change if all projections are multiplied by a number, down to 10⁻³ on average, where ε
        takes over: a penalty that is a ratio of two small numbers has a large gradient.

    Cost:
        O(BKr(D + Dt) + BK²Dt), without a loop over tasks; "redundancy" O(K²r²(D + Dt)).

    Note:
        Reconstruction. The paper's words are a dual-path factorisation to identify common elements in task projections,
        influence matrices, hierarchical relationships, and penalties for divergence and consistency; its equations were
        not available. Open are φ, here ReLU; what is factorised, here the private path alone, with a matrix of full
        rank for the shared one; whether influence depends on the sample, here it does not; and on which side of the
        penalties the prior stands.

        A task that is absent from a batch has zeros as gradient of its own A, B, Θ and s, not None, for these are one
        tensor for all tasks: momentum and weight decay go on moving them.

    >>> branching = TaskBranching(16, ["grade", "stage", "msi"], hierarchy=[["grade", "stage"], ["msi"]])
    >>> features, info = branching(torch.ones(4, 16))
    >>> features["msi"].shape, info["influence"][0].argmax().item()
    (torch.Size([4, 16]), 0)
    """

    prior_logits: Tensor

    def __init__(
        self,
        dim: int,
        tasks: Sequence[str],
        rank: int = 8,
        hierarchy: Any = None,
        *,
        features: int | None = None,
        signed: bool = False,
        kappa: float = 1.0,
    ) -> None:
        super().__init__()
        self.tasks = _names(tasks)
        self.features = dim if features is None else features
        for name, value in (("dim", dim), ("rank", rank), ("features", self.features)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"TaskBranching: {name} must be a whole number of at least 1, not {value!r}")
        self.dim, self.rank, self.signed = dim, rank, signed
        count = len(self.tasks)
        prior = log_prior(self.tasks, hierarchy, kappa)
        if self._tanh:
            prior = prior.exp().clamp(max=0.99).atanh()
        self.shared = nn.Sequential(nn.Linear(dim, self.features), nn.ReLU())
        self.down = nn.Parameter(torch.randn(count, rank, dim) / dim**0.5)
        """Bₖ: (K, r, D)."""
        self.up = nn.Parameter(torch.zeros(count, self.features, rank))
        """Aₖ: (K, Dt, r)."""
        # A vector, not a matrix, so that optimizers for matrices, as Muon, do not take logits for a linear map.
        self.logits = nn.Parameter(prior.to(self.down.dtype).flatten())
        """Θ by rows: (K·K,)."""
        self.strength = nn.Parameter(torch.ones(count))
        """s: (K,)."""
        self.register_buffer("prior_logits", self.logits.detach().clone())

    @property
    def _tanh(self) -> bool:
        return self.signed and len(self.tasks) > 1

    def influence(self, logits: Tensor | None = None) -> Tensor:
        """Π (K, K) of these logits, by default the present ones: row k is what task k takes of each."""
        theta = at_least_float32(self.logits if logits is None else logits).view(len(self.tasks), -1)
        return theta.tanh() if self._tanh else theta.softmax(dim=1)

    def forward(self, z: Tensor) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """(B, D) → {task: (B, Dt)}, info."""
        if z.ndim != 2 or z.shape[1] != self.dim:
            raise ValueError(f"TaskBranching: z must be (B, {self.dim}), not {tuple(z.shape)}")
        common = self.shared(z)
        count = len(self.tasks)
        inner = nn.functional.linear(z, self.down.flatten(0, 1)).unflatten(1, (count, self.rank))
        private = torch.einsum("bkr,ktr->bkt", inner, self.up)
        influence = self.influence()
        gamma = self.strength[:, None] * influence
        taken = torch.einsum("kj,bjt->kbt", gamma.to(private.dtype), private)
        info = {
            "influence": influence,
            "strength": self.strength.clone(),  # else what was kept would change with the next step
            "prior": self.influence(self.prior_logits),
            "regularisers": self._penalties(private, influence),
        }
        return dict(zip(self.tasks, (common + taken).unbind(), strict=True)), info

    def _penalties(self, private: Tensor, influence: Tensor) -> dict[str, Tensor]:
        """The three penalties of projections p (B, K, Dt) and Π (K, K), out of autocast: Gram matrices cancel."""
        with torch.autocast(private.device.type, enabled=False):
            consistency, redundancy = self._likeness(private, influence)
            return {"divergence": self._divergence(influence), "consistency": consistency, "redundancy": redundancy}

    def _likeness(self, private: Tensor, influence: Tensor) -> tuple[Tensor, Tensor]:
        count = len(self.tasks)
        others = 1 - torch.eye(count, dtype=influence.dtype, device=influence.device)
        positive = influence.clamp(min=0) if self._tanh else influence
        related = (positive + positive.T) / 2 * others
        p = at_least_float32(private)
        # Mean squares and not sums: ε then means the same for any batch size.
        gram = torch.einsum("bkt,bjt->kj", p, p) / max(p.shape[0] * p.shape[2], 1)
        spread = related.sum(1) @ gram.diagonal() - (related * gram).sum()
        consistency = spread / (gram.diagonal().sum() + SMALL)
        # ⟨AₖBₖ, AⱼBⱼ⟩ = Σ (AₖᵀAⱼ) ⊙ (BₖBⱼᵀ), from one Gram matrix of all rK columns and one of all rK rows.
        up, down = at_least_float32(self.up).transpose(1, 2).flatten(0, 1), at_least_float32(self.down).flatten(0, 1)
        alike = ((up @ up.T) * (down @ down.T)).unflatten(0, (count, -1)).unflatten(2, (count, -1)).sum((1, 3))
        size = alike.diagonal() + SMALL
        unrelated = (1 - related / related.amax().clamp(min=torch.finfo(related.dtype).tiny)) * others
        redundancy = (unrelated * alike.square() / (size[:, None] * size)).sum() / max(count * (count - 1), 1)
        return consistency, redundancy

    def _divergence(self, influence: Tensor) -> Tensor:
        if self._tanh:
            return (influence - self.influence(self.prior_logits)).square().sum(1).mean() / 2
        shape = (len(self.tasks), -1)
        now, prior = (at_least_float32(x).view(shape).log_softmax(1) for x in (self.logits, self.prior_logits))
        return (influence * (now - prior)).sum(1).mean()

    def extra_repr(self) -> str:
        """What torch shows of the block."""
        mode = ", signed" if self.signed else ""
        return f"{self.dim}, {len(self.tasks)} tasks, rank={self.rank}, features={self.features}{mode}"


def _names(tasks: Sequence[str]) -> tuple[str, ...]:
    if isinstance(tasks, str):
        raise ValueError(f"TaskBranching: tasks must be a list of names; write [{tasks!r}]")
    names = tuple(tasks)
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"TaskBranching: a task's name must be a string, not {name!r}")
    if not names:
        raise ValueError("TaskBranching: tasks is empty, and a branching needs at least one task")
    if len(set(names)) < len(names):
        raise ValueError(f"TaskBranching: a task is named twice: {', '.join(names)}")
    return names
