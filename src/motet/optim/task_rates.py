"""Learning rates of the tasks' own parameters, as factors on what the optimizer and its scheduler say."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

_RATE = "task_rate"


class TaskRates:
    r"""Multiply the learning rate of each task's own parameters by a factor, during the optimizer's steps only.

    The parameters of each task get a param group of their own, with the options of the one that they were in. Between
    steps ``group["lr"]`` is what the scheduler or the user has set; within ``step()`` it is that times the factor, by
    the optimizer's step hooks. The factors are kept in the groups, so that they are in ``optimizer.state_dict()``.

    A factor on a task's *loss* would do nothing to its head under Adam and its relatives, whose steps do not depend on
    the scale of the gradients.

    Args:
        optimizer: Any torch optimizer, before it is given a scheduler or a state.
        parameters: The tasks' own parameters, as a module or an iterable of tensors; those that need no gradient and
            are not the optimizer's are passed over.

    Raises:
        ValueError: for a parameter that is not the optimizer's or is two tasks', a task without any, and an optimizer
            that has a scheduler or rates already.

    Note:
        Decoupled weight decay, as AdamW's, is lr times decay, and so is multiplied too. Load an optimizer's state after
        this has been made, since it holds the split groups.

    >>> import torch
    >>> heads = torch.nn.ModuleDict({"a": torch.nn.Linear(4, 1), "b": torch.nn.Linear(4, 1)})
    >>> optimizer = torch.optim.AdamW(heads.parameters(), lr=0.1)
    >>> rates = TaskRates(optimizer, heads)
    >>> rates.set({"a": 0.5, "b": 1.5})
    >>> rates.factors
    {'a': 0.5, 'b': 1.5}
    """

    def __init__(self, optimizer: Optimizer, parameters: Mapping[str, nn.Module | Iterable[Tensor]]) -> None:
        if any("initial_lr" in group for group in optimizer.param_groups):
            raise ValueError(
                "the optimizer has a scheduler, which knows its param groups by number: make TaskRates before it"
            )
        if any(_RATE in group for group in optimizer.param_groups):
            raise ValueError("the optimizer has task rates already: remove() those first, or use them")
        self.optimizer = optimizer
        self._groups: dict[str, list[int]] = {task: [] for task in parameters}
        self._held: list[tuple[dict[str, Any], Any]] = []
        for number, group in enumerate(self._split(self._owners(parameters))):
            if group is not None:
                optimizer.param_groups[number][_RATE] = 1.0
                self._groups[group].append(number)
        self._handles = (
            optimizer.register_step_pre_hook(self._multiply),
            optimizer.register_step_post_hook(self._restore),
        )

    @property
    def factors(self) -> dict[str, float]:
        """The tasks' factors."""
        groups = self.optimizer.param_groups
        return {task: float(groups[numbers[0]].get(_RATE, 1.0)) for task, numbers in self._groups.items()}

    def set(self, factors: Mapping[str, float | Tensor]) -> None:
        """Set the factors of some tasks or all, as `motet.Balancer.learning_rates`: positive numbers.

        Raises:
            ValueError: for an unknown task or a factor that is not positive and finite; none is changed then.
        """
        found = {task: float(factor) for task, factor in factors.items()}
        for task, factor in found.items():
            if task not in self._groups:
                raise ValueError(f"there is no task {task!r} here: {', '.join(self._groups)}")
            if not 0 < factor < float("inf"):
                raise ValueError(f"the factor of task {task!r} must be positive and finite, not {factor}")
        for task, factor in found.items():
            for number in self._groups[task]:
                self.optimizer.param_groups[number][_RATE] = factor

    def remove(self) -> None:
        """Leave the optimizer's learning rates alone from now on. The groups stay split."""
        self._restore()
        for handle in self._handles:
            handle.remove()
        for group in self.optimizer.param_groups:
            group.pop(_RATE, None)

    def _owners(self, parameters: Mapping[str, nn.Module | Iterable[Tensor]]) -> dict[Tensor, str]:
        """Whose each of the optimizer's parameters is."""
        known = {p for group in self.optimizer.param_groups for p in group["params"]}
        owners: dict[Tensor, str] = {}
        for task, given in parameters.items():
            own = list(given.parameters() if isinstance(given, nn.Module) else given)
            for p in own:
                if not isinstance(p, Tensor):
                    raise TypeError(f"the parameters of task {task!r} must be tensors, not {type(p).__name__}")
                if p in known and owners.setdefault(p, task) != task:
                    raise ValueError(
                        f"a parameter of shape {tuple(p.shape)} is of both {owners[p]!r} and {task!r}: leave shared "
                        "ones out"
                    )
                if p not in known and p.requires_grad:
                    raise ValueError(
                        f"a parameter of task {task!r}, of shape {tuple(p.shape)}, is not one of the optimizer's"
                    )
            if not any(p in known for p in own):
                raise ValueError(f"task {task!r} has no parameter in the optimizer: leave it out")
        return owners

    def _split(self, owners: Mapping[Tensor, str]) -> list[str | None]:
        """Give each task's parameters groups of their own; whose each group is, in the order of the optimizer's."""
        optimizer = self.optimizer
        of: list[str | None] = []
        moved: list[tuple[str, dict[str, Any]]] = []
        for group in optimizer.param_groups:
            names = group.get("param_names")
            parts: dict[str | None, list[int]] = {}
            for number, p in enumerate(group["params"]):
                parts.setdefault(owners.get(p), []).append(number)
            first = None if None in parts or not parts else next(iter(parts))
            of.append(first)
            whole = group["params"]
            stay: list[Tensor] = []
            stay_names: list[str] = []
            for task, numbers in parts.items():
                chosen = [whole[number] for number in numbers]
                if task == first:
                    stay, stay_names = chosen, [names[number] for number in numbers] if names is not None else []
                    continue
                given = chosen if names is None else [(names[number], whole[number]) for number in numbers]
                options = {key: value for key, value in group.items() if key not in ("params", "param_names")}
                assert task is not None
                moved.append((task, options | {"params": given}))
            if parts:
                group["params"] = stay
                if names is not None:
                    group["param_names"] = stay_names
        for task, group in moved:
            optimizer.add_param_group(group)
            of.append(task)
        return of

    def _multiply(self, *_: Any) -> None:
        self._restore()  # After a step that raised.
        for group in self.optimizer.param_groups:
            if group.get(_RATE, 1.0) != 1.0:
                self._held.append((group, group["lr"]))
                group["lr"] = group["lr"] * group[_RATE]

    def _restore(self, *_: Any) -> None:
        for group, lr in self._held:
            group["lr"] = lr
        self._held.clear()
