"""Look-ahead inter-task affinity, by definition and at the features: Fifty et al., NeurIPS 2021, arXiv 2109.04617.

What Selective Task Group Updates (ICLR 2025, arXiv 2502.11986) approximates while it trains, at its full cost: a
reference for the cheaper estimates, and a measurement of a model that is not being trained.
"""

import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.grad_mode import _unsafe_preserve_version_counter

from motet.incoming import host_values, read_features, read_losses, read_shared, task_names
from motet.linalg import as_double
from motet.routes import Features, NoPathError
from motet.routes.forward_mode import untouched

_REPEATS = 1e-3
"""By how much of itself a loss may differ between two evaluations at the same parameters: the kernels' rounding."""


def lookahead_affinity(
    closure: Callable[[], Mapping[str, Tensor | None]],
    shared: Iterable[Tensor] | nn.Module,
    lr: float,
    *,
    tasks: Sequence[str] | None = None,
) -> Tensor:
    """What one gradient step of the shared parameters for one task does to every task's loss.

    With Θs' = Θs - η ∇Lᵢ, the step of plain gradient descent for task i alone, and heads Θₖ that stay,

        A_{i→k} = 1 - Lₖ(Θs', Θₖ) / Lₖ(Θs, Θₖ) = η gᵢ·gₖ / Lₖ + O(η²),  g = ∇_{Θs} L.

    Positive: task i's step lowered the loss of task k.

    The affinity of a group G is the row of a loss that is the sum of its tasks' losses, and with the heads among
    ``shared`` it is the proximal affinity B_{G→k} of a step of plain gradient descent.

    Args:
        closure: Evaluates all tasks' losses on one and the same batch, None for a task that is absent. It is called
            2K + 1 times, each time with the same random draws, and must neither call ``backward()`` nor draw a batch.
        shared: The parameters that move, or the module that holds them.
        lr: The step length η, > 0. The map is proportional to it to first order.
        tasks: All tasks in the map's order; those of the closure in its order, if not given.

    Returns:
        A on the host: (K, K) float64, row = source, column = target. NaN in row and column of a task that is absent or
        whose loss is a constant, and in the column of one whose loss is zero, of which no share can be lost.

    Raises:
        ValueError, TypeError: for losses or parameters that are none, for a loss that is not finite before or after a
            step, and if the closure does not give the same losses twice. Parameters, buffers, random generators and
            ``.grad`` are as before whether it returns or raises, also if the closure does.

    Cost:
        2K + 1 forward and K backward passes; memory of one pass and two copies of the shared parameters. One transfer
        to the host per source.

    Note:
        Losses may be negative: the change is divided by |Lₖ|, which for positive losses is the definition.
    """
    parameters, lr = read_shared(shared), _step_length(lr)
    if not parameters:
        raise ValueError("shared is None: name the parameters that move, such as model.trunk.parameters()")
    given, start = _evaluate(closure, parameters)
    names = _names(given, tasks)
    index = torch.tensor([names.index(task) for task in start], dtype=torch.long)
    affinity = torch.full((len(names), len(names)), torch.nan, dtype=torch.float64)
    for row, source in zip(index, start, strict=True):
        gradients, before = _gradients(closure, parameters, source, start)
        with _moved(parameters, gradients, lr):
            after = _same_tasks(start, _evaluate(closure, parameters)[1])
        values = torch.stack([*host_values(_joined(start, before, after)).values()]).view(3, -1)
        _check(list(start), source, values, gradients, lr)
        affinity[row, index] = _share(values[1] - values[2], values[1])
    return affinity


def feature_affinity(losses: Mapping[str, Tensor | None], features: Any, lr: float) -> Tensor:
    """The look-ahead affinity to first order, as if the features z were the shared parameters:

        η ⟨∂Lᵢ/∂z, ∂Lₖ/∂z⟩ / |Lₖ|.

    It costs no forward pass and leaves out the trunk's Jacobian: a linear trunk without bias whose inputs are
    orthonormal makes it exact, and any other changes lengths, and signs too, where samples share directions of the
    trunk. What the losses take from the trunk past the features does not count.

    Args:
        losses: Scalars with their graph, which is kept; None for a task that is absent.
        features: What lies between trunk and heads: a tensor, or a list or dict of tensors.
        lr: The step length η, > 0.

    Returns:
        (K, K) float64 on the host, in the order of ``losses``, row = source, column = target. NaN as in
        `lookahead_affinity`.

    Raises:
        ValueError, TypeError: for losses or features that are none, a loss or gradient that is not finite, and a loss
            that does not depend on the features.

    Cost:
        One backward pass of the heads, or one a task where heads share parameters. One transfer to the host.
    """
    lr, taps = _step_length(lr), read_features(features)
    if not taps:
        raise ValueError("features is empty: give the tensor between trunk and heads")
    if not all(tap.requires_grad for tap in taps):
        raise ValueError("the features require no gradient: is the trunk frozen, or were they detached?")
    present, _ = read_losses(losses, (), fixed=False)
    names = list(losses)
    affinity = torch.full((len(names), len(names)), torch.nan, dtype=torch.float64)
    if not present:
        return affinity
    try:
        products = Features(list(present.values()), [[] for _ in present], taps, retain=True).gram()
    except NoPathError as error:
        task = list(present)[error.tasks[0]]
        raise ValueError(f"the loss of task {task!r} does not use the features") from None
    column = torch.stack([as_double(loss.detach()).to(products) for loss in present.values()])
    products, values = torch.cat([products, column[None]]).cpu().double().split(len(present))
    for task, value, square in zip(present, values[0], products.diagonal(), strict=True):
        if not value.isfinite():
            raise ValueError(f"the loss of task {task!r} is {value:g}, not a finite number")
        if not square.isfinite():
            raise ValueError(f"the gradient of task {task!r} at the features is not finite")
    index = torch.tensor([names.index(task) for task in present])
    affinity[index[:, None], index] = _share(lr * products, values)
    return affinity


def _share(decrease: Tensor, before: Tensor) -> Tensor:
    return torch.where(before == 0, torch.nan, decrease / before.abs())


def _step_length(lr: float) -> float:
    if not 0 < lr < math.inf:
        raise ValueError(f"lr is the length of the step and must be positive and finite, not {lr}")
    return float(lr)


def _names(given: Mapping[str, Tensor | None], tasks: Sequence[str] | None) -> list[str]:
    names = task_names(list(given) if tasks is None else tasks)
    for task in given:
        if task not in names:
            near = difflib.get_close_matches(task, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"tasks= names {', '.join(names)}"
            raise ValueError(f"the closure gives a loss of task {task!r}, which is unknown: {hint}")
    return names


def _evaluate(
    closure: Callable[[], Mapping[str, Tensor | None]], parameters: Sequence[Tensor]
) -> tuple[Mapping[str, Tensor | None], dict[str, Tensor]]:
    """What the closure gives, and its values without graph. With gradients on, as in every other evaluation: else
    attention and other layers may take kernels that round differently, and losses may need derivatives themselves."""
    with untouched(parameters), torch.enable_grad():
        given = closure()
        present, _ = read_losses(given, (), fixed=False)
    return dict.fromkeys(given), {task: loss.detach() for task, loss in present.items()}


def _gradients(
    closure: Callable[[], Mapping[str, Tensor | None]],
    parameters: Sequence[Tensor],
    source: str,
    start: Mapping[str, Tensor],
) -> tuple[tuple[Tensor | None, ...], dict[str, Tensor]]:
    """One task's gradient, None where it does not use a parameter, and all losses. Buffers are put back only after
    the backward pass, which may read them."""
    with untouched(parameters), torch.enable_grad():
        present = _same_tasks(start, read_losses(closure(), (), fixed=False)[0])
        gradients = torch.autograd.grad(present[source], parameters, allow_unused=True)
    return gradients, {task: loss.detach() for task, loss in present.items()}


def _same_tasks(start: Mapping[str, Tensor], found: dict[str, Tensor]) -> dict[str, Tensor]:
    if found.keys() != start.keys():
        task = min(found.keys() ^ start.keys())
        raise ValueError(
            f"the closure gives a loss of task {task!r} in some of its calls only: "
            "it must evaluate the same batch in every call"
        )
    return {task: found[task] for task in start}


@contextmanager
def _moved(parameters: Sequence[Tensor], gradients: Sequence[Tensor | None], lr: float) -> Iterator[None]:
    """Within it the parameters are at Θ - lr g, afterwards at Θ again, bit for bit and as if never written to."""
    moved = [(p, g) for p, g in zip(parameters, gradients, strict=True) if g is not None]
    kept = [p.detach().clone() for p, _ in moved]
    with ExitStack() as stack:
        for parameter, _ in moved:
            stack.enter_context(_unsafe_preserve_version_counter(parameter))
        try:
            with torch.no_grad():
                for parameter, gradient in moved:
                    parameter.add_(gradient, alpha=-lr)
            # An autocast around the call holds half-precision copies of the parameters, here and below outdated ones.
            torch.clear_autocast_cache()
            yield
        finally:
            with torch.no_grad():
                for (parameter, _), value in zip(moved, kept, strict=True):
                    parameter.copy_(value)
            torch.clear_autocast_cache()


def _joined(*losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{turn}{task}": loss for turn, values in enumerate(losses) for task, loss in values.items()}


def _check(names: Sequence[str], source: str, values: Tensor, gradients: Sequence[Tensor | None], lr: float) -> None:
    """Raise for losses that are not finite, or not the same before the step as at the start."""
    for task, (start, before, after) in zip(names, values.T.tolist(), strict=True):
        if not math.isfinite(start + before):
            raise ValueError(f"the loss of task {task!r} is {before:g}, not a finite number")
        if abs(before - start) > _REPEATS * abs(start):
            raise ValueError(
                f"the loss of task {task!r} was {start:g} and then {before:g} at the same parameters: the closure must "
                "evaluate the same batch in every call, and draw random numbers from the global generators only"
            )
        if not math.isfinite(after):
            if not all(bool(gradient.isfinite().all()) for gradient in gradients if gradient is not None):
                raise ValueError(f"the gradient of task {source!r} is not finite")
            raise ValueError(
                f"a step of lr={lr:g} for task {source!r} makes the loss of task {task!r} {after:g}: take a smaller lr"
            )
