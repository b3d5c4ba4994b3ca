"""Cross-stitch networks: Misra et al., CVPR 2016, arXiv 1604.03539."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from motet.nn.sharing.base import Info, Owned, Sharing
from motet.nn.sharing.copying import Source, fresh
from motet.nn.sharing.copying import stages as members
from motet.nn.sharing.gating import combine, taps
from motet.nn.sharing.widths import gives


class CrossStitch(Sharing):
    r"""One network a task, mixed after every stage by learned matrices αˡ.

        hₖˡ = fₖˡ(x̃ₖˡ⁻¹),    x̃ₖˡ = Σⱼ αₖⱼˡ hⱼˡ,    zₖ = x̃ₖᴸ.

    Args:
        stages: Sequential or list of L stages: modules, which are copied and initialised anew for every task, or
            factories. All that lies between two stitches is one stage.
        tasks: K names.
        alpha: αₖₖ at the start, in [0, 1]; the others of a row share the rest, so that rows sum to 1. 0.9 is among the
            paper's values. 1 starts with independent networks, 1/K with the mean of all.

    Shapes:
        x (B, …) → {task: (B, …)}; info["stitches"] (L, K, K), row k for task k.

    Cost:
        K trunks.

    Note:
        Reconstruction in this: one α for a pair of tasks and a stage, where the paper's units have one for every
        channel, and two networks, where this takes any number. The paper starts from trained single-task networks
        (load them into ``columns[k]``) and gives α a rate 10² to 10³ times that of the networks: ``stitches`` for a
        param group of its own. Rows are not kept convex while training.
    """

    def __init__(self, stages: nn.Sequential | Sequence[Source], tasks: Sequence[str], alpha: float = 0.9) -> None:
        super().__init__(tasks)
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha is a task's own share at the start and must lie in [0, 1], not {alpha}")
        count = len(self.tasks)
        copies = [fresh(stage, count, f"stages[{number}]") for number, stage in enumerate(members(stages))]
        self.columns: Any = nn.ModuleList(nn.ModuleList(column) for column in zip(*copies, strict=True))
        start = torch.full((count, count), (1 - alpha) / max(1, count - 1)).fill_diagonal_(alpha if count > 1 else 1.0)
        # A row each, since the last stage's are the tasks' own.
        self.stitches: Any = nn.ModuleList(nn.ParameterList(row.clone() for row in start) for _ in copies)
        self.out_features = gives(nn.Sequential(*(stage for stage, *_ in copies)))

    def forward(self, x: Tensor) -> tuple[dict[str, Tensor], Info]:
        """See the class."""
        inputs, hidden, stitches = [x] * len(self.tasks), [x], []
        for number, rows in enumerate(self.stitches):
            hidden = [column[number](h) for column, h in zip(self.columns, inputs, strict=True)]
            inputs = [combine(row, hidden) for row in rows]
            stitches.append(torch.stack(list(rows)))
        info: Info = {"regularisers": {}, "features": taps(*hidden), "stitches": torch.stack(stitches)}
        return dict(zip(self.tasks, inputs, strict=True)), info

    def owned(self, index: int) -> Owned:
        """Its row of the last stitch; all before flows into every task."""
        return [self.stitches[-1][index]]
