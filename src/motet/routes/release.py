"""Give back what a graph holds, as an ordinary backward pass does, without its work."""

from collections.abc import Sequence

import torch
from torch import Tensor


def release(losses: Sequence[Tensor], below: Sequence[Tensor]) -> None:
    """Free the tensors that the graph between ``losses`` and ``below`` has saved.

    A graph that was gone through with ``retain_graph`` keeps all activations until the last loss is forgotten, which in
    a training loop is after the next forward pass: twice the memory. A backward pass of undefined gradients visits
    every node and computes nothing, but lets go of what it holds.
    """
    nodes = {node for loss in losses if (node := loss.grad_fn) is not None}
    handles = [node.register_prehook(lambda gradients: (None,) * len(gradients)) for node in nodes]
    try:
        torch.autograd.grad(list(losses), list(below), allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
