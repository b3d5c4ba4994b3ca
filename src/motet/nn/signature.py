"""What a bag's graph looks like, as numbers for each instance and each bag."""

import torch
from torch import Tensor

from motet.nn.graph import InstanceGraph
from motet.nn.masking import segment_ids, segment_mean


def node_signature(matrix: Tensor, degree: Tensor, moved: Tensor, graph: InstanceGraph) -> Tensor:
    """φᵢ = [log(1 + dᵢ), ‖Gₜᵢ - xᵢ‖²/D for each step t, Σⱼ Sᵢⱼ²]: (ΣN, T + 2). Permuted as the instances are."""
    i, j = graph.edges
    square = matrix.square()
    diagonal = torch.zeros_like(degree).index_add(0, i, square).index_add(0, j, square)
    return torch.cat([degree.log1p()[:, None], moved, diagonal[:, None]], 1)


def bag_signature(nodes: Tensor, offsets: Tensor) -> Tensor:
    """[mean φ, std φ, log n] of each bag: (B, 2(T + 2) + 1). Zeros for an empty bag."""
    mean = segment_mean(nodes, offsets)
    spread = segment_mean((nodes - mean[segment_ids(offsets, len(nodes))]).square(), offsets)
    size = offsets.diff().clamp(min=1).to(nodes.dtype).log()
    # The root of a spread of zero has no finite gradient without the addend.
    return torch.cat([mean, (spread + 1e-8).sqrt() - 1e-4, size[:, None]], 1)
