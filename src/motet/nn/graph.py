"""The graph of a batch of bags: who is joined, how strongly, and its normalised matrix S."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from motet.nn.masking import segment_ids
from motet.nn.neighbours import tolerance


@dataclass(frozen=True, eq=False)
class InstanceGraph:
    """A graph without direction on N instances, and the rows of its symmetric matrix.

    Args:
        edges: (2, E), each pair once.
        rows: (2E,), each instance as often as it has neighbours.
        columns: (2E,), the neighbours of instance 0, then those of 1, and so on.
        bounds: (N + 1,), where each instance's neighbours start and end in ``columns``.
        entry: (2E,), the edge that each entry of ``columns`` stands for.
        degrees: (N,), how many neighbours each instance has.
    """

    edges: Tensor
    rows: Tensor
    columns: Tensor
    bounds: Tensor
    entry: Tensor
    degrees: Tensor

    @classmethod
    def of(cls, edges: Tensor, rows: int) -> InstanceGraph:
        """From edges that name each pair once."""
        i, j = edges
        source, target = torch.cat([i, j]), torch.cat([j, i])
        order = (source * rows + target).argsort()
        degrees = torch.bincount(source, minlength=rows)
        bounds = torch.cat([degrees.new_zeros(1), degrees.cumsum(0)])
        entry = torch.where(order < len(i), order, order - len(i))
        return cls(edges, source[order], target[order], bounds, entry, degrees)

    @property
    def starts(self) -> Tensor:
        """Where each instance's neighbours start: (N,)."""
        return self.bounds[:-1]


def log_similarity(embedding: Tensor, graph: InstanceGraph, neighbours: int) -> Tensor:
    """log Wᵢⱼ = -d²ᵢⱼ / √(σᵢσⱼ) for each edge: (E,). σᵢ is the k-th smallest d² of the edges at i, not differentiated.

    With fewer than k edges σᵢ is the largest. Instances that coincide have d² = 0 and W = 1.
    """
    i, j = graph.edges
    squared = (embedding.index_select(0, i) - embedding.index_select(0, j)).square().sum(1)
    with torch.no_grad():
        values = squared[graph.entry]
        # d² ≤ 4 for unit vectors, so that a distance of 8 keeps the rows apart: one sort orders all of them.
        ranked = values[(8 * graph.rows + values.double()).argsort()]
        kth = graph.starts + graph.degrees.clamp(max=neighbours) - 1
        scale = torch.cat([ranked, ranked.new_ones(1)])[torch.where(graph.degrees > 0, kth, len(ranked))]
        scale = scale.clamp(min=tolerance(scale.dtype)).sqrt()
    return -squared / (scale[i] * scale[j])


def normalise(log_weights: Tensor, graph: InstanceGraph) -> tuple[Tensor, Tensor]:
    """Sᵢⱼ = Wᵢⱼ / √(dᵢdⱼ) for each edge (E,), and the degrees dᵢ = Σⱼ Wᵢⱼ (N,), 0 for isolated instances.

    Computed from logarithms: an edge that is the only one of its instance has S near 1 even where W underflows.
    """
    i, j = graph.edges
    lowest = torch.finfo(log_weights.dtype).min
    fixed = log_weights.detach()
    top = fixed.new_full(graph.degrees.shape, lowest)
    top = top.scatter_reduce(0, i, fixed, "amax").scatter_reduce(0, j, fixed, "amax")
    above = torch.zeros_like(top).index_add(0, i, (log_weights - top[i]).exp())
    above = above.index_add(0, j, (log_weights - top[j]).exp())
    joined = graph.degrees > 0
    log_degree = torch.where(joined, top + torch.where(joined, above, 1).log(), 0)
    matrix = (log_weights - (log_degree[i] + log_degree[j]) / 2).exp()
    return matrix, torch.where(joined, log_degree.exp(), 0)


def smoothness(logits: Tensor, weights: Tensor, graph: InstanceGraph, offsets: Tensor) -> Tensor:
    """Σᵢⱼ Wᵢⱼ(fᵢ - fⱼ)² / (2 Σᵢⱼ Wᵢⱼ) of each bag, its mean over bags that have edges: f (N,), W (E,) → ()."""
    i, j = graph.edges
    bag = segment_ids(offsets, len(logits))[i]
    none = weights.new_zeros(len(offsets) - 1)
    # Each edge stands for two ordered pairs, above and below.
    rough = none.index_add(0, bag, weights * (logits[i] - logits[j]).square())
    total = none.index_add(0, bag, weights)
    joined = total > 0
    return torch.where(joined, rough / (2 * torch.where(joined, total, 1)), 0).sum() / joined.sum().clamp(min=1)
