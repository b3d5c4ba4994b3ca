"""Hard parameter sharing: Caruana, Multitask learning, Machine Learning 1997."""

from collections.abc import Sequence

from torch import Tensor, nn

from motet.nn.sharing.base import Info, Sharing
from motet.nn.sharing.widths import gives


class HardSharing(Sharing):
    """One trunk for all tasks: zₖ = f(x).

    Args:
        trunk: Any module; it is used as it is, not copied.
        tasks: The tasks' names.

    Shapes:
        x (B, …) → {task: f(x)}, the same tensor for every task.
    """

    def __init__(self, trunk: nn.Module, tasks: Sequence[str]) -> None:
        super().__init__(tasks)
        self.trunk = trunk
        self.out_features = gives(trunk)

    def forward(self, x: Tensor) -> tuple[dict[str, Tensor], Info]:
        """See the class."""
        z = self.trunk(x)
        return dict.fromkeys(self.tasks, z), {"regularisers": {}, "features": z}
