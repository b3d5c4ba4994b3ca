"""What a Balancer is given, checked: losses, features, shared parameters."""

import difflib
import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from motet.linalg import as_double


def task_names(tasks: Sequence[str]) -> list[str]:
    """The names of all tasks, each once.

    Raises:
        ValueError: for names that are no strings, or one that is there twice.
        TypeError: for a string in place of a list.
    """
    if isinstance(tasks, str):
        raise TypeError(f"tasks must be a list of names; write tasks=[{tasks!r}]")
    names = list(tasks)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"a task's name must be a string, not {name!r}")
    if len(set(names)) < len(names):
        raise ValueError(f"a task is named twice: {', '.join(names)}")
    return names


def read_losses(
    losses: Mapping[str, Tensor | None], known: Collection[str], fixed: bool
) -> tuple[dict[str, Tensor], list[str]]:
    """The losses that have a gradient as 0-dim tensors, and the tasks whose loss is a constant.

    Raises:
        TypeError: for losses that are no dict, names that are no strings, values that are no tensors.
        ValueError: for no loss at all, an unknown task, a loss that is no scalar, and if no loss has a gradient where
            none is known to have had one.
    """
    if not isinstance(losses, Mapping):
        raise TypeError(f"losses must be a dict of task names and scalars, not {type(losses).__name__}")
    if not losses:
        raise ValueError("losses is empty: give a scalar or None for every task")
    present: dict[str, Tensor] = {}
    constant: list[str] = []
    for task, loss in losses.items():
        if not isinstance(task, str):
            raise TypeError(f"a task's name must be a string, not {task!r}")
        if fixed and task not in known:
            near = difflib.get_close_matches(task, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it knows {', '.join(known)}"
            raise ValueError(f"there is no task {task!r}: {hint}")
        if loss is None:
            continue
        if not isinstance(loss, Tensor):
            raise TypeError(f"the loss of task {task!r} must be a tensor, not {type(loss).__name__}")
        if loss.numel() != 1:
            raise ValueError(
                f"the loss of task {task!r} has shape {tuple(loss.shape)}: reduce it to a scalar, as .mean() does"
            )
        if loss.requires_grad:
            present[task] = loss.reshape(())
        else:
            constant.append(task)
    if constant and not present and not known:
        raise ValueError(
            f"no loss depends on any parameter ({', '.join(map(repr, constant))}): "
            "was the forward pass run under torch.no_grad()?"
        )
    return present, constant


def host_values(losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The losses' values as float64 on the host, in one transfer."""
    if not losses:
        return {}
    device = next(iter(losses.values())).device
    stacked = torch.stack([as_double(loss.detach().reshape(())).to(device) for loss in losses.values()])
    return dict(zip(losses, stacked.cpu().double().unbind(), strict=True))


def read_features(features: Any) -> list[Tensor]:
    """The tensors between trunk and heads, from one, a list, a dict, or None.

    Raises:
        TypeError: for anything else.
    """
    if features is None:
        return []
    if isinstance(features, Tensor):
        return [features]
    if not isinstance(features, Iterable):
        raise TypeError("features must be a tensor, or a list or dict of tensors")
    taps = list(features.values() if isinstance(features, Mapping) else features)
    if not all(isinstance(tap, Tensor) for tap in taps):
        raise TypeError("features must be a tensor, or a list or dict of tensors")
    return taps


def read_shared(shared: Iterable[Tensor] | nn.Module | None) -> list[Tensor]:
    """The shared parameters that are trained, each once.

    Raises:
        TypeError: for a single tensor, or things that are no tensors.
        ValueError: if none is trained, or one is computed from others.
    """
    if shared is None:
        return []
    if isinstance(shared, Tensor):
        raise TypeError("shared must be the trunk's parameters; a tensor between trunk and heads goes to features=")
    if not isinstance(shared, nn.Module | Iterable):
        raise TypeError("shared must be the trunk's parameters, such as model.trunk.parameters()")
    parameters = {id(p): p for p in (shared.parameters() if isinstance(shared, nn.Module) else shared)}
    if not all(isinstance(parameter, Tensor) for parameter in parameters.values()):
        raise TypeError("shared must be the trunk's parameters, such as model.trunk.parameters()")
    trained = [parameter for parameter in parameters.values() if parameter.requires_grad]
    if not trained:
        raise ValueError("no shared parameter requires a gradient: is the whole trunk frozen, or the list empty?")
    for parameter in trained:
        if not parameter.is_leaf:
            raise ValueError(
                f"shared holds a tensor of shape {tuple(parameter.shape)} that is computed from others: "
                "pass parameters, and what lies between trunk and heads as features="
            )
    return trained


def read_second(
    second: Callable[[], Mapping[str, Tensor | None]] | Mapping[str, Tensor | None],
    tasks: Sequence[str],
    known: Collection[str],
) -> list[Tensor | None]:
    """The tasks' losses on a second batch, from a dict or a function that makes one: K, None for those without.

    Raises:
        TypeError: for anything else.
        ValueError: if a loss is of no known task, no scalar, or not finite.
    """
    given = second() if callable(second) else second
    found, _ = read_losses(given, known, fixed=True)
    for task, value in host_values(found).items():
        if not value.isfinite():
            raise ValueError(f"the validation loss of task {task!r} is {value:g}, not a finite number")
    return [found.get(task) for task in tasks]


def read_blocks(
    shared: Any, trained: Sequence[Tensor], granularity: Literal["module", "tensor"]
) -> tuple[list[str], list[int]]:
    """Names and lengths of the runs of shared parameters that have weights of their own.

    Raises:
        ValueError: for modules, where no module was given.
    """
    if not isinstance(shared, nn.Module):
        if granularity == "module":
            raise ValueError("granularity='module' needs shared=model.trunk, the module itself, not its parameters")
        return [f"tensor {index}" for index in range(len(trained))], [1] * len(trained)
    names = {id(parameter): name for name, parameter in shared.named_parameters()}
    own = [names[id(parameter)] for parameter in trained]
    if granularity == "module":
        own = [name.rpartition(".")[0] or "trunk" for name in own]
    runs = [(name, len(list(run))) for name, run in itertools.groupby(own)]
    return [name for name, _ in runs], [length for _, length in runs]


def read_assignment(assignment: Any, tasks: Sequence[str]) -> Tensor:
    """The task of every sample as numbers: (B,), from numbers or names; -1 for a sample of no task.

    Raises:
        TypeError: for anything else.
        ValueError: for a number out of range or an unknown name, with the sample.
    """
    if isinstance(assignment, str):
        raise TypeError("assignment must hold a task for every sample, not one name")
    if not isinstance(assignment, Tensor) and any(isinstance(task, str) for task in assignment):
        index = {task: number for number, task in enumerate(tasks)}
        for sample, task in enumerate(assignment):
            if task not in index:
                near = difflib.get_close_matches(str(task), index, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(index)}"
                raise ValueError(f"assignment gives sample {sample} to the unknown task {task!r}: {hint}")
        return torch.tensor([index[task] for task in assignment])
    numbers = assignment.detach() if isinstance(assignment, Tensor) else torch.as_tensor(assignment)
    if numbers.dim() != 1 or numbers.is_floating_point() or numbers.is_complex() or numbers.dtype == torch.bool:
        raise TypeError(
            f"assignment must hold one whole number a sample, not {numbers.dtype} of shape {tuple(numbers.shape)}"
        )
    numbers = numbers.long()
    wrong = (numbers < -1) | (numbers >= len(tasks))
    if wrong.any():
        sample = int(wrong.nonzero()[0])
        raise ValueError(
            f"assignment gives sample {sample} to task number {int(numbers[sample])}, and there are {len(tasks)} "
            "losses, numbered from 0 in their order; -1 is for a sample of no task"
        )
    return numbers
