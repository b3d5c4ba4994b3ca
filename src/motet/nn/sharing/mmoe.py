"""Multi-gate mixture of experts: Ma et al., KDD 2018."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from motet.nn.sharing.base import Info, Owned, Sharing
from motet.nn.sharing.copying import Source, fresh
from motet.nn.sharing.gating import Context, mix, probabilities, run, taps
from motet.nn.sharing.widths import gives


class MMoE(Sharing):
    r"""Experts for all tasks, and a gate a task that mixes them.

        zₖ = Σₑ gₖₑ(x) fₑ(x),    gₖ(x) = softmax(Wₖ c(x)).

    Args:
        expert: Factory, or a module that is copied and initialised anew.
        tasks: K names.
        experts: E ≥ 1. The paper uses 8.
        gate: c, a module x → (B, D') that all gates share. None: x itself if it is (B, D), else its mean over all
            dimensions but the batch and the channels.

    Shapes:
        x (B, …) → {task: (B, …)} as an expert's output; info["gates"] (B, K, E), rows sum to 1.

    Cost:
        E experts, one after another.

    Note:
        One expert is hard sharing. For inputs that are no vectors the paper has no gates: the mean over positions is
        a reconstruction.
    """

    def __init__(
        self, expert: Source, tasks: Sequence[str], experts: int = 8, *, gate: nn.Module | None = None
    ) -> None:
        super().__init__(tasks)
        if not experts >= 1:
            raise ValueError(f"experts must be at least 1, not {experts}")
        self.experts = fresh(expert, experts, "expert")
        self.context = Context(gate, self.experts[0])
        self.gates = nn.ModuleList(nn.Linear(self.context.width, experts, bias=False) for _ in self.tasks)
        self.out_features = gives(self.experts[0])

    def forward(self, x: Tensor) -> tuple[dict[str, Tensor], Info]:
        """See the class."""
        context, outputs = self.context(x), run(self.experts, x)
        gates = [probabilities(gate(context)) for gate in self.gates]
        features = [mix(gate, outputs) for gate in gates]
        info: Info = {"regularisers": {}, "features": taps(outputs, context), "gates": torch.stack(gates, 1)}
        return dict(zip(self.tasks, features, strict=True)), info

    def owned(self, index: int) -> Owned:
        """Its gate."""
        return [self.gates[index]]
