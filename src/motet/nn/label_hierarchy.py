"""Predictions of fine classes that agree with those of coarse classes."""

from collections.abc import Sequence

import torch
from torch import Tensor


def label_hierarchy_loss(parent_logits: Tensor, child_logits: Tensor, mapping: Sequence[int] | Tensor) -> Tensor:
    r"""How far the prediction of a parent task is from what a child task's prediction implies.

    Each class of the child belongs to one class of the parent. With R (child classes, parent classes) 1 where it does,

        L = mean_b KL(p_parent ‖ p_child R),

    which is 0 if and only if the child's probabilities, added up over each parent's class, are the parent's. Neither
    is taken for the truth: the gradient goes to both. No label is needed, so that rows where one of the two is
    unlabelled count too.

    Args:
        parent_logits: (B, C).
        child_logits: (B, C').
        mapping: For each class of the child the class of the parent, C' whole numbers, or R itself. Every class of the
            parent has a child, since its probability were zero else.

    Returns:
        A scalar ≥ 0, in float32 at least; 0 for B = 0. Classes may be masked by logits of -inf; it is infinite where
        the parent gives a class some probability and all of its children are masked.

    Raises:
        ValueError: if the shapes or the mapping do not fit.

    Cost:
        O(B(C + C')). A mapping on a device other than the CPU is read back to be checked: keep it on the CPU.

    Note:
        Reconstruction: the paper speaks of hierarchical task relationships and divergence penalties only. The other
        direction of the divergence, or one with the parent detached, are as good readings.

    >>> digit, parity = torch.zeros(1, 10), torch.zeros(1, 2)
    >>> label_hierarchy_loss(parity, digit, [0, 1] * 5).item()
    0.0
    """
    if parent_logits.ndim != 2 or child_logits.ndim != 2 or len(parent_logits) != len(child_logits):
        shapes = f"{tuple(parent_logits.shape)} and {tuple(child_logits.shape)}"
        raise ValueError(f"parent_logits and child_logits must be (B, C) and (B, C'), not {shapes}")
    groups = _read(mapping, parent_logits.shape[1], child_logits.shape[1]).to(child_logits.device)
    high = torch.promote_types(parent_logits.dtype, torch.float32)
    parent, child = parent_logits.to(high).log_softmax(1), child_logits.to(high).log_softmax(1)
    # The logarithm of a sum within each group, relative to the group's largest: improbable classes do not underflow.
    index = groups.expand_as(child)
    top = torch.full_like(parent, -torch.inf).scatter_reduce(1, index, child.detach(), "amax")
    top = top.where(top > -torch.inf, 0.0)
    total = torch.zeros_like(parent).scatter_add(1, index, (child - top.gather(1, index)).exp())
    # A class that is masked by a logit of -inf has no part in the sum, and 0·∞ none in the gradient.
    known = total > 0
    implied = (top + total.where(known, 1.0).log()).where(known, -torch.inf)
    possible = parent > -torch.inf
    terms = parent.exp() * (parent.where(possible, 0.0) - implied.where(possible, 0.0))
    return terms.where(possible, 0.0).sum() / max(len(parent), 1)


def _read(mapping: Sequence[int] | Tensor, parents: int, children: int) -> Tensor:
    """The parent's class of each of the child's classes: (children,) int64, on the CPU."""
    given = torch.as_tensor(mapping).cpu()
    if given.ndim == 2:
        if given.shape != (children, parents) or not bool(((given == 0) | (given == 1)).all()):
            raise ValueError(f"mapping must be a 0/1 matrix ({children}, {parents}), not {tuple(given.shape)}")
        if not bool((given.sum(1) == 1).all()):
            raise ValueError("mapping must give each class of the child one class of the parent: one 1 in each row")
        given = given.to(torch.int64).argmax(1)
    if given.shape != (children,) or given.is_floating_point():
        raise ValueError(f"mapping must be {children} whole numbers, one for each class of the child")
    given = given.to(torch.int64)
    if not torch.equal(given.unique(), torch.arange(parents)):
        raise ValueError(
            f"mapping must give every class of the parent, 0 to {parents - 1}, at least one of the child's"
        )
    return given
