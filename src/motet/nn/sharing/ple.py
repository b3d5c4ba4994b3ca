"""Progressive layered extraction: Tang et al., RecSys 2020."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from motet.nn.sharing.base import Info, Owned, Sharing
from motet.nn.sharing.copying import Source, fresh
from motet.nn.sharing.copying import stages as members
from motet.nn.sharing.gating import Context, mix, probabilities, run, taps
from motet.nn.sharing.widths import gives


class PLE(Sharing):
    r"""Levels of experts of which some are a task's own, so that what only one task needs disturbs no other.

    At level l task k mixes its own experts and the shared ones, and, below the last level, a common gate mixes all:

        hₖˡ = gₖˡ(hₖˡ⁻¹) · [fₖˡ(hₖˡ⁻¹), fₛˡ(hₛˡ⁻¹)],    hₛˡ = gₛˡ(hₛˡ⁻¹) · [f₁ˡ(h₁ˡ⁻¹), …, f_Kˡ(h_Kˡ⁻¹), fₛˡ(hₛˡ⁻¹)],

    with h⁰ = x, g(h) = softmax(W c(h)) and zₖ = hₖᴸ.

    Args:
        levels: One expert for each of the L levels: factories, or modules that are copied and initialised anew.
        tasks: K names.
        shared: Shared experts at each level, ≥ 1.
        own: Each task's own experts at each level, ≥ 0. Their numbers are tuned in the paper; 1 and 1 is the least.
        gate: c of the first level, a module x → (B, D'). Elsewhere, and without it, c is the mean over all dimensions
            but the batch and the channels.

    Shapes:
        x (B, …) → {task: (B, …)}; info["gates"]: for each level (B, K, own + shared), the task's own experts first.

    Cost:
        L (K·own + shared) experts, one after another.

    Note:
        One level is `CGC`. With one shared expert and none of the tasks' own it is hard sharing. A task's own experts
        below the last level reach other tasks through hₛ: they count as shared. So do, with ``own=0``, the tasks' gates
        more than one level below the last, although they reach one task alone.
    """

    def __init__(
        self,
        levels: Sequence[Source],
        tasks: Sequence[str],
        shared: int = 1,
        own: int = 1,
        *,
        gate: nn.Module | None = None,
    ) -> None:
        super().__init__(tasks)
        if not shared >= 1:
            raise ValueError(f"shared is the number of shared experts and must be at least 1, not {shared}")
        if not own >= 0:
            raise ValueError(f"own is the number of a task's own experts and must be at least 0, not {own}")
        sources = members(levels, "levels")
        self.levels: Any = nn.ModuleList(
            _Level(source, len(self.tasks), shared, own, None if number else gate, number == len(sources) - 1, number)
            for number, source in enumerate(sources)
        )
        end: Any = self.levels[-1]
        self.out_features = gives(end.shared[0])

    def forward(self, x: Tensor) -> tuple[dict[str, Tensor], Info]:
        """See the class."""
        hidden, common = [x] * len(self.tasks), x
        gates: list[Tensor] = []
        beneath: list[Tensor] = []
        for level in self.levels:
            last = beneath  # What the tasks' own gates of the level before took.
            contexts, outputs, shared, gate, hidden, common = level(hidden, common)
            beneath = [*contexts, *outputs, shared]
            gates.append(gate)
        given = [x] if isinstance(x, Tensor) else []  # An input of several tensors is for the experts and the gate.
        ends = [*last, shared] if len(self.levels) > 1 else [*contexts, *taps(*given), shared]
        info: Info = {"regularisers": {}, "features": taps(*ends), "gates": gates}
        return dict(zip(self.tasks, hidden, strict=True)), info

    def owned(self, index: int) -> Owned:
        """Its experts and gate of the last level, and its gate before, which feeds nothing else."""
        last = self.levels[-1]
        return [last.own[index], last.gates[index], *(level.gates[index] for level in self.levels[-2:-1])]


class CGC(PLE):
    """Customised gate control, one level of `PLE`: Tang et al., RecSys 2020.

    Args:
        expert: Factory, or a module that is copied and initialised anew.
        tasks: K names.
        shared, own, gate: As for `PLE`.
    """

    def __init__(
        self, expert: Source, tasks: Sequence[str], shared: int = 1, own: int = 1, *, gate: nn.Module | None = None
    ) -> None:
        super().__init__([expert], tasks, shared, own, gate=gate)


class _Level(nn.Module):
    """Experts and gates of one level."""

    def __init__(
        self, source: Source, tasks: int, shared: int, own: int, gate: nn.Module | None, last: bool, number: int
    ) -> None:
        super().__init__()
        experts = list(fresh(source, shared + own * tasks, f"levels[{number}]"))
        self.shared = nn.ModuleList(experts[:shared])
        groups = (experts[shared + own * task : shared + own * (task + 1)] for task in range(tasks))
        self.own = nn.ModuleList(nn.ModuleList(group) for group in groups)
        self.context = Context(gate, experts[0])
        width = self.context.width
        self.gates = nn.ModuleList(nn.Linear(width, own + shared, bias=False) for _ in range(tasks))
        self.common = None if last else nn.Linear(width, own * tasks + shared, bias=False)

    def forward(
        self, hidden: list[Tensor], common: Tensor
    ) -> tuple[list[Tensor], list[Tensor], Tensor, Tensor, list[Tensor], Tensor]:
        """Contexts, own and shared experts' outputs, gates, and the next level's inputs."""
        same = all(h is common for h in hidden)
        context = self.context(common) if same or self.common is not None else None
        contexts = [context if context is not None and h is common else self.context(h) for h in hidden]
        shared = run(self.shared, common)
        outputs = [run(group, h) for group, h in zip(self.own, hidden, strict=True) if len(group)]  # type: ignore[arg-type]
        gates = [probabilities(gate(c)) for gate, c in zip(self.gates, contexts, strict=True)]
        pools = [torch.cat([own, shared], 1) for own in outputs] or [shared] * len(hidden)
        mixed = [mix(gate, pool) for gate, pool in zip(gates, pools, strict=True)]
        if self.common is not None:
            assert context is not None
            weights = probabilities(self.common(context))
            common = mix(weights, torch.cat([*outputs, shared], 1))
        return contexts, outputs, shared, torch.stack(gates, 1), mixed, common
