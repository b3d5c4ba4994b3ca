"""The two products that every method and every route needs: the Gram matrix, and a weighted sum of rows."""

import torch
from torch import Tensor

# Rows are read in blocks of this many columns: no K x P copy is made where they must be converted, and products of
# long float32 rows are added up in float64, which keeps the Gram matrix to 1e-7 whatever their length.
_BLOCK = 1 << 16


def gram(jacobian: Tensor) -> Tensor:
    """G = J Jᵀ in float64, from rows of any floating dtype.

    Half-precision rows are converted to float32 block by block: their products would not survive
    in their own dtype, and a converted copy of the whole Jacobian would double the memory.

    Shapes:
        jacobian (K, P) → gram (K, K).
    """
    wide = torch.promote_types(jacobian.dtype, torch.float32)
    total = as_double(torch.zeros(len(jacobian), len(jacobian), device=jacobian.device, dtype=wide))
    for part in jacobian.split(_BLOCK, dim=1):
        block = part.to(wide)
        total += block @ block.T
    return total


def combine(weights: Tensor, rows: Tensor) -> Tensor:
    """Σₖ wₖ rₖ in the rows' dtype and shape, half precision by way of float32: (K,), (K, …) → (…)."""
    if rows.dtype in (torch.float32, torch.float64):
        total: Tensor = torch.tensordot(weights.to(rows), rows, dims=1)
        return total
    flat = rows.reshape(len(rows), -1)
    parts = [weights.to(part.device, torch.float32) @ part.float() for part in flat.split(_BLOCK, dim=1)]
    return torch.cat(parts).to(rows.dtype).view(rows.shape[1:])


def cosines(gram: Tensor) -> Tensor:
    """Cosines between the tasks' gradients: (K, K) → (K, K). A task of zero gradient has cosine 0 with all."""
    norms = gram.diagonal().clamp(min=0).sqrt()
    inverse = torch.where(norms > 0, 1 / norms, torch.zeros_like(norms))
    return (gram * inverse[:, None] * inverse[None, :]).clamp(-1, 1)


def as_double(tensor: Tensor) -> Tensor:
    """float64 where the device has it; Apple's GPUs do not."""
    return tensor if tensor.device.type == "mps" else tensor.double()
