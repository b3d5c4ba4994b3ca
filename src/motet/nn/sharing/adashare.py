"""AdaShare: Sun et al., NeurIPS 2020, arXiv 1911.12423."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from motet.nn.precision import at_least_float32
from motet.nn.sharing.base import Info, Owned, Sharing
from motet.nn.sharing.copying import stages as members
from motet.nn.sharing.widths import gives


class AdaShare(Sharing):
    r"""One trunk of residual blocks, and a policy a task that says which of them it executes.

        hₖˡ = hₖˡ⁻¹ + uₖˡ (fˡ(hₖˡ⁻¹) - hₖˡ⁻¹),    uₖˡ ∈ {0, 1},    αₖˡ = P(uₖˡ = 1) = σ(vₖˡ),

    where fˡ is the whole block, its shortcut included. In training u = [v + λ > 0] with logistic noise λ, the
    difference of two Gumbel variables, and gradients through σ((v + λ)/τ), the straight-through estimator. In eval mode
    uₖˡ = [αₖˡ ≥ ½], and tasks compute in common what they have in common from the start.

    The regularisers, for L blocks with a policy:

        sparsity = Σₖₗ log αₖˡ,    sharing = Σ_{j<k} Σₗ (L - l)/L |αⱼˡ - αₖˡ|,    l = 0 … L - 1.

    Args:
        blocks: Sequential or list of modules, used as they are, not copied, each with an output of its input's shape.
        tasks: K names.
        fixed: Positions of blocks that every task executes: stems, and those that change the shape.
        temperature: τ > 0. The paper lets it fall while training: assign ``temperature`` every epoch.

    Shapes:
        x (B, …) → {task: (B, …)}; info["policies"] (K, L) of what was executed, info["probabilities"] (K, L) of α.

    Cost:
        In training K trunks from the first block with a policy on. In eval mode one wait for the device.

    Note:
        Reconstruction: v starts at 0, draws hold for the whole batch and come from torch's global generator. The paper
        also trains the last blocks' policies first and retrains with sampled policies, both left to the caller. Blocks
        that change the shape have no policy here. Batch norms in blocks see each task's inputs one after another.

        No tensor lies between what is shared and what is a task's own, so that routes at the features see no conflict:
        use ``Balancer(…, route="exact")`` with ``shared=`` `shared_parameters`.
    """

    def __init__(
        self,
        blocks: nn.Sequential | Sequence[nn.Module],
        tasks: Sequence[str],
        fixed: Collection[int] = (),
        *,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(tasks)
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, not {temperature}")
        self.blocks = nn.ModuleList(members(blocks, "blocks"))  # type: ignore[arg-type]
        for number in fixed:
            if not 0 <= number < len(self.blocks):
                raise ValueError(f"fixed holds positions from 0 to {len(self.blocks) - 1}, not {number}")
        self.temperature = temperature
        self.free = [number for number in range(len(self.blocks)) if number not in fixed]
        self.stem = self.free[0] if self.free else len(self.blocks)
        self.logits = nn.ParameterList(torch.zeros(len(self.free)) for _ in self.tasks)
        self.out_features = gives(nn.Sequential(*self.blocks))

    def forward(self, x: Tensor) -> tuple[dict[str, Tensor], Info]:
        """See the class."""
        logits = [at_least_float32(row) for row in self.logits]
        v = torch.stack(logits)
        if self.training:
            # Task by task, so that no task's loss gives another's policy a gradient, be it of zeros.
            drawn = [self._draw(row) for row in logits]
            policies = torch.stack(drawn)
            for block in self.blocks[: self.stem]:
                x = block(x)
            features = [self._drawn(x, policy) for policy in drawn]
        else:
            policies = (v >= 0).to(v)
            features = self._chosen(x, policies.bool().tolist())
        depth = len(self.free)
        weights = torch.arange(depth, 0, -1, device=v.device).to(v) / max(depth, 1)
        pairs = (v.sigmoid()[:, None] - v.sigmoid()).abs() @ weights
        info: Info = {
            "regularisers": {"sparsity": nn.functional.logsigmoid(v).sum(), "sharing": pairs.sum() / 2},
            "features": features,
            "policies": policies,
            "probabilities": v.sigmoid(),
        }
        return dict(zip(self.tasks, features, strict=True)), info

    def _draw(self, v: Tensor) -> Tensor:
        """u of one task: (L,), in {0, 1}, with the gradient of its soft version."""
        first, second = v.new_empty(2, len(v)).exponential_().log()
        noisy: Tensor = v + first - second
        soft = (noisy / self.temperature).sigmoid()
        return (noisy > 0).to(v) - soft.detach() + soft

    def _drawn(self, h: Tensor, policy: Tensor) -> Tensor:
        """All blocks from the first with a policy on, each weighted with its u."""
        for number in range(self.stem, len(self.blocks)):
            output = self.blocks[number](h)
            if number in self.free:
                self._check(number, h, output)
                u = policy[self.free.index(number)].to(h.dtype)
                output = h + u * (output - h)
            h = output
        return h

    def _chosen(self, x: Tensor, policies: list[list[bool]]) -> list[Tensor]:
        """Only the blocks that a task executes, once for all tasks with the same way to them."""
        known: dict[tuple[int, ...], Tensor] = {(): x}
        ways = []
        for policy in policies:
            way: tuple[int, ...] = ()
            for number, block in enumerate(self.blocks):
                if number in self.free and not policy[self.free.index(number)]:
                    continue
                before, way = way, (*way, number)
                if way not in known:
                    known[way] = block(known[before])
                    if number in self.free:
                        self._check(number, known[before], known[way])
            ways.append(way)
        return [known[way] for way in ways]

    @staticmethod
    def _check(number: int, h: Tensor, output: Tensor) -> None:
        if output.shape != h.shape:
            raise ValueError(
                f"blocks[{number}] makes {tuple(output.shape)} of {tuple(h.shape)}, so it can't be skipped: "
                f"add {number} to fixed="
            )

    def owned(self, index: int) -> Owned:
        """Its policy."""
        return [self.logits[index]]
