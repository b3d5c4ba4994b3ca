"""DSelect-k, sparse gates that are differentiable: Hazimeh et al., NeurIPS 2021, arXiv 2106.03760."""

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from motet.nn.masking import entropy
from motet.nn.precision import at_least_float32
from motet.nn.sharing.base import Info, Owned, Sharing
from motet.nn.sharing.copying import Source, fresh
from motet.nn.sharing.gating import Context, mix, run, taps
from motet.nn.sharing.widths import gives


def smooth_step(t: Tensor, gamma: float = 1.0) -> Tensor:
    """S(t) = 0 up to -γ/2, 1 from γ/2 on, and -2t³/γ³ + 3t/(2γ) + ½ between: exactly 0 and 1, with a slope of 0 there.

    >>> smooth_step(torch.tensor([-0.5, -0.25, 0.0, 0.25, 0.5])).tolist()
    [0.0, 0.15625, 0.5, 0.84375, 1.0]
    """
    t = (t / gamma).clamp(-0.5, 0.5)
    return 0.5 + t * (1.5 - 2 * t.square())


class DSelectK(Sharing):
    r"""Mixture of experts whose gates choose at most k experts a task, by binary codes.

    With E experts, m = ⌈log₂ E⌉ and the bits of each expert's number,

        r(z)ₑ = Π_{bits j of e that are 1} S(zⱼ) · Π_{that are 0} (1 - S(zⱼ)),
        gₖ = Σᵢ softmax(αₖ)ᵢ r(zₖᵢ),    i = 1 … k,

    so once every S(z) is 0 or 1, each of a task's k codes names one expert. ``regularisers["entropy"]`` is
    Σₖᵢ H(r(zₖᵢ)), the mean over the batch, and 0 then; the caller adds it with a coefficient λ that is tuned.

    Args:
        expert: Factory, or a module that is copied and initialised anew.
        tasks: K names.
        experts: E ≥ 1.
        k: Codes a task, 1 ≤ k ≤ E.
        gate: As for `MMoE`; α and z are linear in c(x).
        static: α and z are parameters and not functions of x, so that every input of a task meets the same experts.
        gamma: γ > 0, the width of S. z starts uniformly in ±γ/100, near the steepest slope.

    Shapes:
        x (B, …) → {task: (B, …)}; info["gates"] (B, K, E), rows sum to 1.

    Cost:
        E experts, one after another, also those that no gate chooses.

    Note:
        If E is no power of 2, codes from E on name no expert. The authors' code adds a penalty on their share, without
        which a gate may vanish; here such a code names the expert whose number lacks its highest bit, so that gates
        always sum to 1 and 2ᵐ - E of the experts begin with twice the share of the others.
    """

    def __init__(
        self,
        expert: Source,
        tasks: Sequence[str],
        experts: int = 8,
        k: int = 2,
        *,
        gate: nn.Module | None = None,
        static: bool = False,
        gamma: float = 1.0,
    ) -> None:
        super().__init__(tasks)
        if not experts >= 1:
            raise ValueError(f"experts must be at least 1, not {experts}")
        if not 1 <= k <= experts:
            raise ValueError(f"k is the number of experts a task may choose, from 1 to {experts}, not {k}")
        if not gamma > 0:
            raise ValueError(f"gamma is the width of the smooth step and must be positive, not {gamma}")
        if static and gate is not None:
            raise ValueError("static gates do not look at the input: leave gate= out")
        self.experts = fresh(expert, experts, "expert")
        self.k, self.gamma, self.bits = k, gamma, max(1, (experts - 1).bit_length())
        self.context = None if static else Context(gate, self.experts[0])
        outputs = k * (self.bits + 1)
        self.gates: Any
        if self.context is None:
            self.gates = nn.ParameterList(torch.empty(outputs) for _ in self.tasks)
        else:
            width = self.context.width
            self.gates = nn.ModuleList(nn.Linear(width, outputs) for _ in self.tasks)
        for parameter in self.gates.parameters():
            nn.init.uniform_(parameter, -gamma / 100, gamma / 100)
        self.out_features = gives(self.experts[0])

    def forward(self, x: Tensor) -> tuple[dict[str, Tensor], Info]:
        """See the class."""
        seen = [] if self.context is None else [self.context(x)]
        outputs = run(self.experts, x)
        logits = [gate(*seen) if seen else gate.expand(len(outputs), -1) for gate in self.gates]
        found = [self._choose(row) for row in logits]
        features = {task: mix(gate, outputs) for task, (gate, _) in zip(self.tasks, found, strict=True)}
        penalty = torch.stack([penalty for _, penalty in found]).sum()
        gates = torch.stack([gate for gate, _ in found], 1)
        return features, {
            "regularisers": {"entropy": penalty},
            "features": taps(outputs, *seen),
            "gates": gates,
        }

    def _choose(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """One task's gate (B, E) and the entropy of its codes."""
        alpha, z = at_least_float32(logits).split([self.k, self.k * self.bits], -1)
        codes = self._codes(smooth_step(z.unflatten(-1, (self.k, self.bits)), self.gamma))
        return (alpha.softmax(-1)[..., None] * codes).sum(1), entropy(codes).sum(-1).mean()

    def _codes(self, on: Tensor) -> Tensor:
        """r: (B, k, m) → (B, k, E)."""
        numbers = torch.arange(2**self.bits, device=on.device)
        factors = [
            torch.where((numbers >> bit) % 2 == 1, on[..., bit, None], 1 - on[..., bit, None])
            for bit in range(self.bits)
        ]
        # A product by hand: that of torch asks the device for zeros in its backward pass.
        whole = reduce(torch.mul, factors)
        count = len(self.experts)
        named, beyond = whole.split([count, 2**self.bits - count], -1)
        before = 2 ** (self.bits - 1)
        lower = count - before  # Numbers from E on, less 2^(m-1), are E - 2^(m-1) … 2^(m-1) - 1.
        first, shortened, rest = named.split([lower, before - lower, lower], -1)
        return torch.cat([first, shortened + beyond, rest], -1)

    def owned(self, index: int) -> Owned:
        """Its gate."""
        return [self.gates[index]]
