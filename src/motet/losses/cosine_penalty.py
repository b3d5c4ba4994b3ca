"""A penalty on the angles between the tasks' gradients: Suteu & Guo, 2019, arXiv 1912.06844."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor


def gradient_cosine_penalty(
    losses: Mapping[str, Tensor | None] | Sequence[Tensor | None], shared: Iterable[Tensor] | torch.nn.Module
) -> Tensor:
    r"""Σ_{i<j} cos²(gᵢ, gⱼ) of the tasks' gradients with respect to the shared parameters.

    It is least, zero, where all gradients are orthogonal: tasks that neither disturb nor repeat each other. Add it,
    times a factor, to the losses, and call ``backward`` on the sum.

    Args:
        losses: A scalar loss for every task; None for one that is absent.
        shared: The trunk's parameters, or the trunk. Frozen ones are passed over.

    Returns:
        A scalar in the losses' dtype with a graph down to all parameters; zero for fewer than two tasks. A gradient of
        zero has no angle and adds nothing.

    Raises:
        ValueError: if no shared parameter requires a gradient, or a loss uses none of them.

    Cost:
        K backward passes that keep their graphs, and the backward pass through them: three to four times K backward
        passes in all, and the memory of K.

    Note:
        The penalty's gradient is a second derivative: piecewise linear models, such as those of ReLU, have one
        through the losses' curvature and the heads only. cos² punishes agreement as it does conflict, as in the paper.

    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> penalty = gradient_cosine_penalty([w[0] ** 2, w.sum() ** 2], [w])
    >>> round(penalty.item(), 3)
    0.5
    """
    values = losses.values() if isinstance(losses, Mapping) else losses
    present = [loss for loss in values if loss is not None]
    given = shared.parameters() if isinstance(shared, torch.nn.Module) else shared
    parameters = [parameter for parameter in given if parameter.requires_grad]
    if not parameters:
        raise ValueError("none of the shared parameters requires a gradient, so the tasks' gradients have no angles")
    if len(present) < 2:
        return present[0].new_zeros(()) if present else parameters[0].new_zeros(())
    rows = [_gradient(loss, parameters, index) for index, loss in enumerate(present)]
    # One parameter at a time: no copy of all gradients in one matrix.
    gram = torch.zeros((), dtype=torch.promote_types(present[0].dtype, torch.float32), device=present[0].device)
    for parts in zip(*rows, strict=True):
        block = torch.stack([part.flatten() for part in parts]).to(gram)
        gram = gram + block @ block.T
    squares = gram.diagonal()
    live = squares > 0
    # The root has no derivative at 0, and where() alone would still send NaN there.
    lengths = torch.where(live, squares, 1.0).sqrt()
    cosines = gram / lengths / lengths[:, None]
    pairs = cosines.square().triu(1).where(live & live[:, None], 0.0)
    return pairs.sum().to(present[0].dtype)


def _gradient(loss: Tensor, parameters: list[Tensor], index: int) -> list[Tensor]:
    found = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
    if all(part is None for part in found):
        raise ValueError(f"loss {index} uses none of the shared parameters")
    return [
        torch.zeros_like(parameter) if part is None else part for part, parameter in zip(found, parameters, strict=True)
    ]
