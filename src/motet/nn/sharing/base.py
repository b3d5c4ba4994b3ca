"""What every sharing architecture is: inputs to one feature a task, and which parameters are whose."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

Info = dict[str, Any]
Owned = Iterable[nn.Module | nn.Parameter]


class Sharing(nn.Module, ABC):
    """A trunk for several tasks: x → ({task: features}, info).

    ``info`` is a plain dict. Always in it:

    - ``"regularisers"``: {name: scalar}. None is added to a loss by anybody but the caller.
    - ``"features"``: the tensor or tensors in which the shared part ends and the tasks' own parts begin, as
      ``Balancer.backward(features=…)`` wants them.

    and what an architecture has to show: ``"gates"``, ``"stitches"``, ``"masks"``, ``"branches"``, ``"policies"``.

    Args:
        tasks: The tasks' names, each once.

    Attributes:
        tasks: These names.
        out_features: Width of every task's features, or their number of channels; None where the modules do not tell.

    Note:
        A parameter is shared if the outputs of two tasks can depend on it, otherwise it is its task's own. With one
        task the same parts count as shared.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        if isinstance(tasks, str):
            raise TypeError(f"tasks must be a list of names; write tasks=[{tasks!r}]")
        self.tasks = tuple(tasks)
        self.out_features: int | None = None
        if not self.tasks:
            raise ValueError("tasks is empty: name at least one task")
        for task in self.tasks:
            if not isinstance(task, str):
                raise TypeError(f"a task's name must be a string, not {task!r}")
            if self.tasks.count(task) > 1:
                raise ValueError(f"tasks names {task!r} twice")

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[dict[str, Tensor], Info]:
        """(B, …) → {task: (B, …)}, info."""

    def owned(self, index: int) -> Owned:  # noqa: ARG002
        """Modules and parameters that are for the task with this index alone."""
        return ()

    def task_parameters(self, task: str) -> list[nn.Parameter]:
        """The parameters that act on this task alone.

        Raises:
            ValueError: for an unknown task.
        """
        if task not in self.tasks:
            raise ValueError(f"there is no task {task!r} here: {', '.join(self.tasks)}")
        found: dict[int, nn.Parameter] = {}
        for part in self.owned(self.tasks.index(task)):
            new = part.parameters() if isinstance(part, nn.Module) else [part]
            found |= {id(parameter): parameter for parameter in new}
        return list(found.values())

    def shared_parameters(self) -> list[nn.Parameter]:
        """All others: ``Balancer.backward(losses, shared=model.trunk.shared_parameters())``."""
        own = {id(parameter) for task in self.tasks for parameter in self.task_parameters(task)}
        return [parameter for parameter in self.parameters() if id(parameter) not in own]


def parameters_per_task(model: nn.Module) -> dict[str, int]:
    """How many numbers are shared (``""``) and how many are each task's own, heads included.

    Args:
        model: A `Sharing`, or a `SharedModel` with its heads.

    >>> from motet.nn.sharing import HardSharing
    >>> parameters_per_task(HardSharing(nn.Linear(3, 4), ["a", "b"]))
    {'': 16, 'a': 0, 'b': 0}
    """
    sharing = model if isinstance(model, Sharing) else getattr(model, "trunk", None)
    if not isinstance(sharing, Sharing):
        raise TypeError(f"parameters are counted of a Sharing or a SharedModel, not of a {type(model).__name__}")
    counts = {"": sum(parameter.numel() for parameter in sharing.shared_parameters())}
    for index, task in enumerate(sharing.tasks):
        own = sharing.task_parameters(task)
        if model is not sharing:
            own += model.heads[index].parameters()  # type: ignore[index, union-attr]
        counts[task] = sum(parameter.numel() for parameter in {id(p): p for p in own}.values())
    return counts
