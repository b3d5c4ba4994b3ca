"""What one batch of `GroupedUpdates` did."""

from dataclasses import dataclass, field

from torch import Tensor

from motet.grouping.affinity import Affinity
from motet.step import BalancerStep, TaskVector


@dataclass(frozen=True)
class GroupedStep:
    """One batch.

    Attributes:
        groups: The groups in the order in which they were updated, of the tasks that took part.
        losses: Of the tasks of this batch before its first update, (n,), also by name.
        measured: Whether the affinity learnt from this batch.
        regrouped: Whether the partition was looked for anew before it.
        skipped: Tasks left out because their loss or gradient was not finite.
        passes: Forward passes over the batch, those without gradients and forward-mode ones too.
        updates: What the method did for each group; empty for the plain sum, which needs no method.
    """

    groups: tuple[tuple[str, ...], ...]
    losses: TaskVector
    measured: bool
    regrouped: bool
    skipped: tuple[str, ...]
    passes: int
    updates: tuple[BalancerStep, ...] = ()
    _affinity: Affinity | None = field(default=None, repr=False)

    @property
    def affinity(self) -> Tensor:
        """The affinity map as it is now, (K, K): row = source, column = target."""
        assert self._affinity is not None
        return self._affinity.matrix
