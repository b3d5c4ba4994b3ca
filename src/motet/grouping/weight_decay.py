"""Weight decay once a batch, however many optimizer steps the batch takes."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.optim import SGD, Adadelta, Adafactor, Adagrad, Adam, Adamax, AdamW, NAdam, Optimizer, RAdam, RMSprop

_COUPLED = (SGD, Adadelta, Adagrad, Adam, Adamax, NAdam, RAdam, RMSprop)
_DECOUPLED = tuple(cls for cls in (AdamW, Adafactor, getattr(torch.optim, "Muon", None)) if cls is not None)


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
    optimizer itself would do. Its own decay is zero meanwhile. Afterwards they are in ``moved``.
    """
    decoupled = is_decoupled(optimizer)
    decays = []
    try:
        for group in optimizer.param_groups:
            fresh: list[Tensor] = [p for p in group["params"] if p.grad is not None and id(p) not in moved]
            moved.update(map(id, fresh))
            decay = group.get("weight_decay", 0)
            if not decay:
                continue
            decays.append((group, decay))
            group["weight_decay"] = 0.0
            if not fresh:
                continue
            with torch.no_grad():
                if decoupled:
                    torch._foreach_mul_(fresh, 1 - group["lr"] * decay)
                else:
                    sign = -1 if group.get("maximize") else 1
                    torch._foreach_add_([p.grad for p in fresh if p.grad is not None], fresh, alpha=sign * decay)
        yield
    finally:
        for group, decay in decays:
            group["weight_decay"] = decay
