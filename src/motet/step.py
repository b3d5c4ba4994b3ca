"""What a Balancer's step reports: weights by name, Gram matrix, cosines and cost; and the error it may end in."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from motet.audit import Audit
from motet.linalg import cosines


class TaskVector(Tensor):
    """One value a task: a plain (K,) tensor in arithmetic, and a mapping from task to value for people and logs.

    >>> weights = TaskVector.of(torch.tensor([0.25, 0.75]), ("depth", "normals"))
    >>> float(weights["normals"])
    0.75
    >>> {task: float(weight) for task, weight in weights.items()}
    {'depth': 0.25, 'normals': 0.75}
    >>> float(weights.sum())
    1.0
    """

    # Results of arithmetic have no names, so they are plain tensors.
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]
    tasks: tuple[str, ...]

    @classmethod
    def of(cls, values: Tensor, tasks: Sequence[str]) -> "TaskVector":
        """Name the entries of a (K,) tensor."""
        vector = values.detach().as_subclass(cls)
        vector.tasks = tuple(tasks)
        return vector

    def __getitem__(self, key: Any) -> Tensor:
        if isinstance(key, str):
            if key not in self.tasks:
                raise KeyError(f"no task {key!r} here: {', '.join(self.tasks)}")
            key = self.tasks.index(key)
        return super().__getitem__(key)

    def __contains__(self, key: Any) -> bool:
        return key in self.tasks if isinstance(key, str) else super().__contains__(key)

    def __deepcopy__(self, memo: dict[int, Any]) -> "TaskVector":
        return TaskVector.of(self.clone(), self.tasks)

    def keys(self) -> tuple[str, ...]:
        """The tasks' names."""
        return self.tasks

    def values(self) -> tuple[Tensor, ...]:  # type: ignore[override]
        """The values, one a task."""
        return self.unbind()

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """Pairs of a task's name and its value."""
        return zip(self.tasks, self.unbind(), strict=True)


class NonFiniteError(ArithmeticError):
    """A loss or a gradient is NaN or infinite. No ``.grad`` was touched; ``tasks`` names the culprits."""

    def __init__(self, message: str, tasks: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.tasks = tuple(tasks)


@dataclass(frozen=True)
class StepCost:
    """What one `Balancer.backward` took, in passes.

    Attributes:
        route: "none" where one backward pass of the weighted sum was enough, "known" where the weights of the tasks'
            gradients were known without them.
        trunk_backwards: Passes through the whole trunk, of one task or of all together.
        head_backwards: Passes through heads alone.
        products: On the probe route, products with the tasks' gradients, each about as long as a backward pass.
    """

    route: str
    trunk_backwards: int
    head_backwards: int
    products: int = 0


@dataclass(frozen=True)
class BalancerStep:
    """What one `Balancer.backward` did.

    Attributes:
        tasks: The tasks that took part, in the order of the vectors and matrices here.
        weights: Weight of every task's own gradient in the trunk's: (K,), also by name; None for methods
            whose direction is no combination of the gradients.
        gram: Gram matrix of the tasks' gradients as the route knows them, at the features times the number of
            samples: (K, K), or None where no route was needed.
        skipped: Tasks left out because their loss or gradient was not finite.
        converged: False where the method's solver stopped at its iteration limit.
        block_weights: With ``granularity`` "module" or "tensor" the weights for every block of the trunk: (L, K);
            `weights` is then None.
        blocks: The names of those blocks.
        audit: In steps of ``audit_every`` how far the route is from the exact one.
    """

    tasks: tuple[str, ...]
    weights: TaskVector | None
    gram: Tensor | None
    cost: StepCost
    skipped: tuple[str, ...] = ()
    converged: bool | Tensor = field(default=True, repr=False)
    block_weights: Tensor | None = field(default=None, repr=False)
    blocks: tuple[str, ...] = ()
    audit: Audit | None = None

    @property
    def cosines(self) -> Tensor | None:
        """Cosines between the tasks' gradients: (K, K), or None where no route was needed."""
        return None if self.gram is None else cosines(self.gram)
