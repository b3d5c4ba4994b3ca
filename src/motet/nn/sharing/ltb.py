"""Learning to branch: Guo et al., ICML 2020, arXiv 2006.01895."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from motet.nn.precision import at_least_float32
from motet.nn.sharing.base import Info, Owned, Sharing
from motet.nn.sharing.copying import Source, fresh
from motet.nn.sharing.copying import stages as members
from motet.nn.sharing.gating import combine, taps
from motet.nn.sharing.widths import gives


class LTB(Sharing):
    r"""A tree of layers that is learned: every node draws which node of the stage before is its parent.

        xⱼˡ = Σᵢ dᵢⱼ fᵢˡ⁻¹(xᵢˡ⁻¹),    dⱼ = one-hot of argmaxᵢ (θᵢⱼ + Gᵢⱼ),    G Gumbel noise,

    with gradients through softmax((θ + G)/τ), the straight-through estimator. The nodes of the first stage take x; the
    tasks are the children of the last. In eval mode dⱼ is one-hot at the largest θ: a tree, of which only the nodes
    that a task needs are computed.

    Args:
        stages: Sequential or list of L stages: modules, which are copied and initialised anew for every node, or
            factories.
        tasks: K names.
        nodes: Nodes a stage, ≥ 1. None: K.
        temperature: τ > 0. The paper lets it fall while training: assign ``temperature`` every epoch.

    Shapes:
        x (B, …) → {task: (B, …)}; info["branches"]: for stages 2 … L (nodes, nodes), and last (K, nodes): dⱼ as rows.

    Cost:
        In training nodes trunks. In eval mode one wait for the device a stage.

    Note:
        Reconstruction: θ starts at 0, draws hold for the whole batch, come from torch's global generator, and are
        discrete in the forward pass from the start. Retraining the tree from scratch, as the paper does afterwards, is
        left to the caller.
    """

    def __init__(
        self,
        stages: nn.Sequential | Sequence[Source],
        tasks: Sequence[str],
        nodes: int | None = None,
        *,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(tasks)
        count = len(self.tasks) if nodes is None else nodes
        if not count >= 1:
            raise ValueError(f"nodes is the number of nodes a stage and must be at least 1, not {nodes}")
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, not {temperature}")
        self.temperature = temperature
        copies = [fresh(stage, count, f"stages[{number}]") for number, stage in enumerate(members(stages))]
        self.stages: Any = nn.ModuleList(copies)
        children = [count] * (len(self.stages) - 1) + [len(self.tasks)]
        # A vector for every child, since the last stage's are the tasks' own.
        self.logits: Any = nn.ModuleList(nn.ParameterList(torch.zeros(count) for _ in range(n)) for n in children)
        self.out_features = gives(nn.Sequential(*(node for node, *_ in copies)))

    def forward(self, x: Tensor) -> tuple[dict[str, Tensor], Info]:
        """See the class."""
        logits = [[at_least_float32(row) for row in rows] for rows in self.logits]
        if self.training:
            # Child by child, so that no task's loss gives another's logits a gradient, be it of zeros.
            draw, tau = nn.functional.gumbel_softmax, self.temperature
            branches = [[draw(row, tau, hard=True) for row in rows] for rows in logits]
            features, ends = self._draw(x, branches)
        else:
            chosen = [torch.stack(rows).argmax(-1) for rows in logits]
            width, like = len(self.stages[0]), logits[0][0]
            branches = [list(nn.functional.one_hot(row, width).to(like)) for row in chosen]
            features, ends = self._tree(x, [row.tolist() for row in chosen])
        shown = [torch.stack(list(rows)) for rows in branches]
        info: Info = {"regularisers": {}, "features": taps(*ends), "branches": shown}
        return dict(zip(self.tasks, features, strict=True)), info

    def _draw(self, x: Tensor, branches: list[list[Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
        """All nodes, each weighted with its d."""
        inputs = [x] * len(self.stages[0])
        for nodes, branch in zip(self.stages, branches, strict=True):
            outputs = [node(h) for node, h in zip(nodes, inputs, strict=True)]
            inputs = [combine(row, outputs) for row in branch]
        return inputs, outputs

    def _tree(self, x: Tensor, parents: list[list[int]]) -> tuple[list[Tensor], list[Tensor]]:
        """Only those that a task descends from."""
        known: dict[tuple[int, int], Tensor] = {}

        def output(stage: int, node: int) -> Tensor:
            if (stage, node) not in known:
                h = output(stage - 1, parents[stage - 1][node]) if stage else x
                known[stage, node] = self.stages[stage][node](h)
            return known[stage, node]

        last = len(self.stages) - 1
        features = [output(last, node) for node in parents[last]]
        return features, [h for (stage, _), h in known.items() if stage == last]

    def owned(self, index: int) -> Owned:
        """What chooses its node of the last stage."""
        return [self.logits[-1][index]]
