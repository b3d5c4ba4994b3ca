"""What gates look at, and the mixture that they make of experts."""

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from motet.nn.precision import at_least_float32
from motet.nn.sharing.widths import gives, takes


class Context(nn.Module):
    """What gates see of an input: the user's module, else the input itself or its mean over positions.

    An image (B, C, H, W) gives (B, C), a sequence (B, T, D) gives (B, D), by what the experts' first layer takes. An
    input is never flattened: gates of the size of an image have more parameters than the experts.

    Args:
        gate: Module x → (B, D'). Its width is its ``out_features``, else that of its last layer.
        expert: What takes the same input.
    """

    def __init__(self, gate: nn.Module | None, expert: nn.Module) -> None:
        super().__init__()
        self.gate = gate
        if gate is not None:
            width = gives(gate)
            if width is None:
                raise ValueError("the width of what gate= gives is unknown: set gate.out_features")
            self.width, self.dim = width, -1
            return
        found = takes(expert)
        if found is None:
            raise ValueError(
                "what the experts take is unknown, since their first layer does not tell its width or takes tokens: "
                "give gate=, a module from x to (B, D)"
            )
        self.width, self.dim = found

    def forward(self, x: Tensor) -> Tensor:
        """(B, …) → (B, D)."""
        if self.gate is not None:
            context: Tensor = self.gate(x)
        elif not x.is_floating_point():
            raise ValueError(f"gates can't average {x.dtype} inputs: give gate=, a module from x to (B, D)")
        elif x.ndim > 2:
            kept = self.dim % x.ndim
            context = x.mean([dim for dim in range(1, x.ndim) if dim != kept])
        else:
            context = x
        if context.ndim != 2 or context.shape[1] != self.width:
            what = "gate= makes of" if self.gate is not None else "the mean over positions makes of"
            raise ValueError(
                f"the gates take (B, {self.width}), and {what} an input of shape {tuple(x.shape)} "
                f"{tuple(context.shape)}: "
                + ("set gate.out_features" if self.gate is not None else "give gate=, a module from x to (B, D)")
            )
        return context


def run(experts: nn.ModuleList, x: Tensor) -> Tensor:
    """All experts' outputs: (B, E, …)."""
    outputs = [expert(x) for expert in experts]
    shapes = {tuple(output.shape) for output in outputs}
    if len(shapes) > 1:
        raise ValueError(f"all experts must give outputs of one shape, and these give {sorted(shapes)}")
    return torch.stack(outputs, 1)


def probabilities(logits: Tensor, dim: int = -1) -> Tensor:
    """Softmax, in float32 at least."""
    return at_least_float32(logits).softmax(dim)


def mix(gates: Tensor, outputs: Tensor) -> Tensor:
    """Σₑ gₑ fₑ for one task: (B, E) and (B, E, …) → (B, …).

    For one task at a time, since a product for all would hand each task's gate a gradient of zeros from the others,
    and optimizers with momentum or weight decay would move it.
    """
    return torch.einsum("be,be...->b...", gates.to(outputs.dtype), outputs)


def combine(weights: Tensor, outputs: Sequence[Tensor]) -> Tensor:
    """Σᵢ wᵢ hᵢ, with the same weights for all samples: (N,) and N times (B, …) → (B, …)."""
    mixed: Tensor = reduce(torch.add, (w * h for w, h in zip(weights.to(outputs[0].dtype), outputs, strict=True)))
    return mixed


def taps(*tensors: Tensor) -> list[Tensor]:
    """Those that have a gradient, each once: raw inputs are no features."""
    return list({id(tensor): tensor for tensor in tensors if tensor.requires_grad}.values())
