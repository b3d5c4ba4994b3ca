"""Weight decay once a batch, however many optimizer steps the batch takes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adadelta, Adagrad, Adam, Adamax, AdamW, NAdam, Optimizer, RAdam, RMSprop

_COUPLED = (SGD, Adadelta, Adagrad, Adam, Adamax, NAdam, RAdam, RMSprop)
_DECOUPLED = tuple(cls for cls in (AdamW, getattr(torch.optim, "Muon", None)) if cls is not None)


def is_decoupled(optimizer: Optimizer) -> bool | None:
    """Whether its weight decay acts on the parameters and not on the gradients; None where that is not known."""
    said = {group["decoupled_weight_decay"] for group in optimizer.param_groups if "decoupled_weight_decay" in group}
    if len(said) == 1:
        return bool(said.pop())
    own = getattr(optimizer, "decoupled_weight_decay", None)
    if isinstance(own, bool):
        return own
    if isinstance(optimizer, _DECOUPLED):
        return True
    return False if isinstance(optimizer, _COUPLED) else None


@contextmanager
def once_a_batch(optimizer: Optimizer, moved: set[int]) -> Iterator[None]:
    """Within it the optimizer's step decays parameters that have a gradient and are not yet in ``moved``.

    Decoupled decay scales them by 1 - lr·decay before the step, coupled decay adds decay·θ to the gradient: what the
    optimizer itself would do. Its own decay is zero meanwhile. Afterwards they are in ``moved``. A step that a gradient
    scaler leaves out decays nothing.
    """
    decoupled = is_decoupled(optimizer)
    decays = [(group, group["weight_decay"]) for group in optimizer.param_groups if group.get("weight_decay")]

    def decay(*_: Any) -> None:
        found = getattr(optimizer, "found_inf", None)  # Of fused optimizers, which leave the step out by themselves.
        if found is not None and bool(found):
            return
        for group, rate in decays:
            fresh: list[Tensor] = [p for p in group["params"] if p.grad is not None and id(p) not in moved]
            moved.update(map(id, fresh))
            if not fresh:
                continue
            with torch.no_grad():
                if decoupled:
                    torch._foreach_mul_(fresh, 1 - group["lr"] * rate)
                else:
                    sign = -1 if group.get("maximize") else 1
                    torch._foreach_add_([p.grad for p in fresh if p.grad is not None], fresh, alpha=sign * rate)

    hook = optimizer.register_step_pre_hook(decay)
    try:
        for group, _ in decays:
            group["weight_decay"] = 0.0
        yield
    finally:
        hook.remove()
        for group, rate in decays:
            group["weight_decay"] = rate
