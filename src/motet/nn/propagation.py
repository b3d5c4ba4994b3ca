"""Low-pass filters on a graph: x → g(S) x, none of which lets a frequency grow.

S is symmetric with eigenvalues in [-1, 1], L = I - S, λ = 1 - s. An isolated instance passes unchanged.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag

from motet.nn.graph import InstanceGraph
from motet.nn.uncompiled import uncompiled

WIDTH = 64
"""Columns that are propagated together: 64 of 10,000 instances stay in the cache, a third faster than 512 at once."""


@uncompiled
def propagate(
    x: Tensor, matrix: Tensor, graph: InstanceGraph, steps: int = 4, alpha: float = 0.5
) -> tuple[Tensor, Tensor]:
    r"""Personalised PageRank, cut after T steps: G₀ = x, Gₜ₊₁ = (1 - α) x + α S Gₜ.

    At eigenvalue s of S it multiplies by (1 - α) Σ_{t<T} (αs)ᵗ + (αs)ᵀ, at most 1 in size for every T, and 1 at s = 1
    only: no frequency grows and the Dirichlet energy tr(GᵀLG) never rises. T → ∞ gives the Tikhonov filter
    (I + γL)⁻¹ with γ = α/(1 - α).

    Shapes:
        x (N, D), matrix (E,) of S → G_T (N, D) and ‖Gₜ - x‖²/D for t = 1 … T: (N, T).

    Cost:
        T products with S forward, 3T backward, and x kept for it. D is cut into pieces that fit a cache.
    """
    out: tuple[Tensor, Tensor] = _PageRank.apply(x, matrix, graph, steps, alpha)  # type: ignore[no-untyped-call]
    return out


def product(x: Tensor, entries: Tensor, graph: InstanceGraph) -> Tensor:
    """S x, with the entries (2E,) of S in the order of ``graph.columns``."""
    # embedding_bag is a product with a sparse matrix in rows that every device has, and the fastest on a CPU.
    return embedding_bag(graph.columns, x, graph.starts, mode="sum", per_sample_weights=entries)


class _PageRank(torch.autograd.Function):
    """One node for all steps: S is symmetric, so that the backward products use the same rows.

    The states Gₜ are computed again in the backward pass, a piece at a time: as fast as keeping them, in 1/T of the
    memory.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, matrix: Tensor, graph: InstanceGraph, steps: int, alpha: float
    ) -> tuple[Tensor, Tensor]:
        entries = matrix[graph.entry]
        # α = 0 for isolated instances: they keep x to the last bit.
        rate = (graph.degrees > 0).to(x.dtype)[:, None] * alpha
        out, moved = torch.empty_like(x), x.new_zeros(steps, len(x))
        for first in range(0, x.shape[1], WIDTH):
            piece = x[:, first : first + WIDTH].contiguous()
            now, way = piece, torch.empty_like(piece)
            for t in range(steps):
                now = product(now, entries, graph)
                torch.sub(now, piece, out=way).mul_(rate)
                torch.add(piece, way, out=now)
                moved[t] += torch.linalg.vecdot(way, way)
            out[:, first : first + WIDTH] = now
        ctx.save_for_backward(x, entries, rate)
        ctx.graph, ctx.steps = graph, steps
        return out, (moved / x.shape[1]).T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_moved: Tensor) -> tuple[Tensor | None, ...]:
        x, entries, rate = ctx.saved_tensors
        graph, steps = ctx.graph, ctx.steps
        scale = (2 / x.shape[1]) * grad_moved.T[..., None]
        grad_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        grad_entries = torch.zeros_like(entries) if ctx.needs_input_grad[1] else None
        for first in range(0, x.shape[1], WIDTH):
            states = [x[:, first : first + WIDTH].contiguous()]
            for _ in range(steps):
                now = product(states[-1], entries, graph)
                states.append(torch.lerp(states[0], now, rate, out=now))
            adjoint = grad[:, first : first + WIDTH].contiguous()
            total = torch.zeros_like(adjoint)
            for t in range(steps, 0, -1):
                direct = states[t].sub_(states[0]).mul_(scale[t - 1])
                adjoint.add_(direct)
                if grad_x is not None:
                    total.sub_(direct).addcmul_(1 - rate, adjoint)
                adjoint.mul_(rate)
                if grad_entries is not None:
                    grad_entries += _dots(adjoint, states[t - 1], graph)
                if t > 1 or grad_x is not None:
                    adjoint = product(adjoint, entries, graph)
            if grad_x is not None:
                grad_x[:, first : first + WIDTH] = total.add_(adjoint)
        grad_matrix = None
        if grad_entries is not None:
            grad_matrix = grad_entries.new_zeros(graph.edges.shape[1]).index_add(0, graph.entry, grad_entries)
        return grad_x, grad_matrix, None, None, None


def _dots(left: Tensor, right: Tensor, graph: InstanceGraph) -> Tensor:
    """leftᵢ · rightⱼ for each entry (i, j) of the matrix: (2E,), without a copy of 2E rows."""
    # The gradient of embedding_bag's weights: a sampled product on every device, and without the beta warning that
    # torch.sparse.sampled_addmm brings with its matrix.
    found: Tensor = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        left, right, graph.columns, graph.starts, graph.rows, 0
    )
    return found
