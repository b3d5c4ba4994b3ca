"""Pooling of a bag along a graph of its instances: after UMDA, Scientific Reports 2026, 10.1038/s41598-026-36622-y."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, linear, normalize

from motet.nn.bag import Bag
from motet.nn.cross_view import check_band
from motet.nn.graph import InstanceGraph, log_similarity, normalise, smoothness
from motet.nn.interactions import pairs_and_triples
from motet.nn.masking import at_least_float32, band, entropy, segment_softmax, segment_sum
from motet.nn.neighbours import coordinate_edges, feature_edges, undirected
from motet.nn.propagation import propagate
from motet.nn.signature import bag_signature, node_signature
from motet.nn.uncompiled import uncompiled


class GraphInstancePooling(nn.Module):
    r"""One vector for each bag, from instances that are smoothed along a graph, weighted, and combined.

    With x = LN(instances), n of them in a bag:

    1. Graph: eᵢ = Wₑxᵢ/‖Wₑxᵢ‖. i and j are joined if j is among the k nearest of i, or i among those of j.
       Wᵢⱼ = exp(-‖eᵢ - eⱼ‖² / √(σᵢσⱼ)), σᵢ the squared distance of i's k-th neighbour; S = D^{-½} W D^{-½}.
    2. Propagation: G₀ = x, Gₜ₊₁ = (1 - α) x + α S Gₜ, T times; G = G_T. An isolated instance keeps x.
    3. Signature: φᵢ = [log(1 + dᵢ), ‖P(Gₜᵢ - xᵢ)‖²/w for each t, Σⱼ Sᵢⱼ²], where P = [U; U'; V] has w rows, and
       [mean φ, std φ, log n] of the bag.
    4. Attention: fᵢ = wᵀ[tanh(U cᵢ) ⊙ σ(U' cᵢ)] with cᵢ = [Gᵢ; φᵢ], and a = softmax(f) over the bag.
    5. Interactions: yᵢ = aᵢ V Gᵢ, e₁ = Σ aᵢGᵢ, e₂ = Σ_{i<j} yᵢyⱼ, e₃ = Σ_{i<j<l} yᵢyⱼyₗ.
    6. z = W [e₁; e₂; e₃; MLP(signature of the bag)]; an empty bag gives a learned vector instead.

    Args:
        dim: D, of the instances and of z.
        neighbours: k ≥ 1; bags of fewer than k + 1 instances are complete graphs.
        steps: T ≥ 1.
        alpha: α, how much comes from the neighbours, from 0 to below 1.
        hidden: Width of U and U'. None takes D/2, at most 64.
        rank: Width R of V, the number of interactions of each order.
        embedding: Width of e, in which distances are taken.
        exact_up_to: Instances of a bag up to which every pair is compared. Beyond, candidates come from nearby cells
            (see ``motet.nn.cells`` for the recall), and the choice may depend on rounding.
        concentration: Range of the attention's entropy over log n that costs nothing.

    Shapes:
        x (B, N, D) with mask (B, N), or x (ΣN, D) with offsets (B + 1,); coordinates (…, 2 or 3) and edges (2, E) as
        in ``motet.nn.bag.Bag``. Gives z (B, D) and

        ``info["attention"]`` (B, N), or (ΣN,) for flat bags;
        ``info["graph"]`` edges (2, E), numbers in the flat form, and weights W (E,);
        ``info["signature"]`` (B, 2(T + 2) + 1);
        ``info["regularisers"]`` attention_entropy, the squared distance of entropy / log n from its range, and
        smoothness, Σᵢⱼ Wᵢⱼ(fᵢ - fⱼ)² / (2 Σᵢⱼ Wᵢⱼ): 0 where neighbours get the same logit. Means over the bags that
        have several instances, and edges. They are on logits, not on features, which propagation smooths already.

    Cost:
        Memory is linear in the number of instances, with k to 8k edges each. Padding is taken out first and costs
        nothing. G itself is never formed: g(S) P x costs w columns and Σ aᵢGᵢ one, instead of D. Neighbours by
        features are O(N²) up to ``exact_up_to``. With coordinates, neighbours are chosen by position with a k-d tree
        instead, in O(N log N); their weights still come from features. With edges nothing is searched.

    Note:
        Reconstruction. The paper names graph building, Laplacian propagation, aggregation of structural signatures
        by higher-order tensor interactions, entropy and graph smoothness; its equations were not available. Open are
        the graph, the filter, the order and the form of interactions, where smoothness acts, and the features in which
        an instance's displacement is measured: here those that are propagated anyway.

        Which instances are neighbours is not differentiated, their weights are. The choice may be kept for some
        steps, as long as the features move little: ``pool(x, edges=info["graph"]["edges"])`` gives the same result
        at the same parameters. Ties and copies of an instance: see ``motet.nn.neighbours``.

        Graph, propagation, softmax and interactions are computed in float32 at least, under autocast too. The sizes
        of bags and the checks of values are read on the host, once a call.
    """

    def __init__(
        self,
        dim: int,
        neighbours: int = 8,
        *,
        steps: int = 4,
        alpha: float = 0.5,
        hidden: int | None = None,
        rank: int = 32,
        embedding: int = 32,
        exact_up_to: int = 20_000,
        concentration: tuple[float, float] = (0.05, 0.9),
    ) -> None:
        super().__init__()
        hidden = max(1, min(dim // 2, 64)) if hidden is None else hidden
        widths = {"dim": dim, "neighbours": neighbours, "steps": steps, "hidden": hidden}
        for name, value in (widths | {"rank": rank, "embedding": embedding, "exact_up_to": exact_up_to}).items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if not 0 <= alpha < 1:
            raise ValueError(f"alpha is the share of the neighbours and must be in [0, 1), not {alpha}")
        check_band(concentration)
        self.dim, self.neighbours, self.steps, self.alpha = dim, neighbours, steps, alpha
        self.hidden, self.rank = hidden, rank
        self.exact_up_to, self.concentration = exact_up_to, concentration
        # Without scale and shift: linear maps follow wherever x goes, and they have their own.
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.embed = nn.Linear(dim, embedding, bias=False)
        self.project = nn.Linear(dim, 2 * hidden + rank, bias=False)
        self.structure = nn.Linear(steps + 2, 2 * hidden)
        self.score = nn.Linear(hidden, 1, bias=False)
        self.describe = nn.Sequential(nn.Linear(2 * (steps + 2) + 1, rank), nn.GELU(), nn.Linear(rank, rank))
        self.out = nn.Linear(dim + 3 * rank, dim)
        self.empty = nn.Parameter(torch.zeros(dim))

    def extra_repr(self) -> str:
        """What the linear maps don't show."""
        return f"dim={self.dim}, neighbours={self.neighbours}, steps={self.steps}, alpha={self.alpha}"

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        offsets: Tensor | None = None,
        coordinates: Tensor | None = None,
        edges: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Pool each bag; see the class for shapes."""
        if x.shape[-1] != self.dim:
            raise ValueError(f"x must have dim = {self.dim} features, not {x.shape[-1]}: {tuple(x.shape)}")
        bag = Bag(x, mask, offsets, coordinates, edges).flat()
        if not torch.compiler.is_compiling():
            check_finite(bag)
        offsets, normed = bag.offsets, self.norm(bag.x)
        assert offsets is not None  # by what flat() means
        projected = self.project(normed)
        with torch.autocast(x.device.type, enabled=False):
            normed, projected = at_least_float32(normed), at_least_float32(projected)
            embedding = normalize(linear(normed, self.embed.weight.to(normed.dtype)), dim=1)
            graph = self._graph(bag, embedding)
            log_weights = log_similarity(embedding, graph, self.neighbours)
            matrix, degree = normalise(log_weights, graph)
            projected, moved = propagate(projected, matrix, graph, self.steps, self.alpha)
            nodes = node_signature(matrix, degree, moved, graph)
            signature = bag_signature(nodes, offsets)
            attention, logits, second, third = self._attend(projected, nodes, offsets)
            # e₁ = Σᵢ aᵢGᵢ = Σⱼ (g(S) a)ⱼ xⱼ, for S is symmetric: one column is propagated instead of D.
            spread, _ = propagate(attention[:, None], matrix, graph, self.steps, self.alpha)
            rows = torch.arange(len(normed), device=x.device)
            first = embedding_bag(rows, normed, offsets[:-1], mode="sum", per_sample_weights=spread.squeeze(1))
            weights = log_weights.exp()
            regularisers = {
                "attention_entropy": self._entropy(attention, offsets),
                "smoothness": smoothness(logits, weights, graph, offsets),
            }
        parts = [part.to(self.out.weight.dtype) for part in (first, second, third)]
        z = self.out(torch.cat([*parts, self.describe(signature.to(self.out.weight.dtype))], 1))
        z = torch.where((offsets.diff() > 0)[:, None], z, self.empty.to(z.dtype))
        return z, {
            "attention": attention if x.ndim == 2 else _in_place(attention, x, mask),
            "graph": {"edges": graph.edges, "weights": weights},
            "signature": signature,
            "regularisers": regularisers,
        }

    def _attend(self, projected: Tensor, nodes: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """a and f (ΣN,), e₂ and e₃ (B, R) from U G, U' G and V G."""
        tanh, sigmoid, factors = projected.split([self.hidden, self.hidden, self.rank], 1)
        structure = linear(nodes, self.structure.weight.to(nodes.dtype), self.structure.bias.to(nodes.dtype))
        tanh, sigmoid = tanh + structure[:, : self.hidden], sigmoid + structure[:, self.hidden :]
        logits = linear(tanh.tanh() * sigmoid.sigmoid(), self.score.weight.to(nodes.dtype)).squeeze(1)
        attention = segment_softmax(logits, offsets)
        return attention, logits, *pairs_and_triples(attention[:, None] * factors, offsets)

    @uncompiled
    def _graph(self, bag: Bag, embedding: Tensor) -> InstanceGraph:
        if bag.edges is not None:
            return InstanceGraph.of(undirected(bag.edges, len(bag.x)), len(bag.x))
        sizes = bag.sizes.tolist()
        if bag.coordinates is not None:
            return InstanceGraph.of(coordinate_edges(bag.coordinates, sizes, self.neighbours), len(bag.x))
        return InstanceGraph.of(feature_edges(embedding, sizes, self.neighbours, self.exact_up_to), len(bag.x))

    def _entropy(self, attention: Tensor, offsets: Tensor) -> Tensor:
        """Mean over bags of two instances and more of the band penalty of entropy / log n."""
        n = offsets.diff()
        several = n > 1
        h = segment_sum(entropy(attention[:, None]), offsets) / torch.where(several, n, 2).log()
        return torch.where(several, band(h, *self.concentration), 0).sum() / several.sum().clamp(min=1)


def check_finite(bag: Bag) -> None:
    """Raise a ValueError that names the first bag with an instance that is not finite: bag in its flat form."""
    for name, values in (("x", bag.x), ("coordinates", bag.coordinates)):
        # A sum is a cheap first look; it may overflow without any such instance.
        if values is None or bool(values.detach().sum().isfinite()):
            continue
        bad = ~values.detach().isfinite().all(1)
        if bool(bad.any()):
            row = int(bad.nonzero()[0, 0])
            b = int(bag.owner[row])
            raise ValueError(
                f"{name} has NaN or infinite values in a present instance: bag {b}, its instance "
                f"{row - int(bag.sizes[:b].sum())}. Mask what is missing, or fill it in"
            )


def _in_place(values: Tensor, x: Tensor, mask: Tensor | None) -> Tensor:
    """Flat values at their places in padded bags, 0 elsewhere: (ΣN,) → (B, N)."""
    if mask is None:
        return values.view(x.shape[:2])
    return values.new_zeros(x.shape[:2]).masked_scatter(mask, values)
