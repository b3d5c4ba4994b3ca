"""Poolings of a bag into one vector: mean, maximum, gated attention (Ilse 2018), transformer (Lee et al., 2019).

The simple ones that a pooling with a graph is compared with. All take bags padded with a mask or flat with offsets, and
give the same for both.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from motet.nn.bag import Bag
from motet.nn.masking import blank, masked_softmax, segment_ids, segment_softmax, segment_sum

Info = dict[str, Any]


class Pooling(nn.Module):
    """What the poolings share: bags in either form, and a learned vector for an empty bag.

    Args:
        dim: D, width of an instance and of the result.

    Shapes:
        x (B, N, D) with mask (B, N), True where an instance is, or without one where all are; or x (ΣN, D) with offsets
        (B + 1,), int64, from 0 to ΣN. → z (B, D) and info: "attention" (B, N), 0 in the padding, or (ΣN,), of sum 1 in
        each bag that has instances; "regularisers", empty. Whatever padding holds, NaN too, changes nothing. z has the
        dtype of x.

    Cost:
        Values of offsets are checked on the host, which waits for the device once.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"{type(self).__name__}: dim must be 1 or more, not {dim}")
        self.dim = dim
        self.null = nn.Parameter(torch.zeros(dim))
        """What an empty bag becomes."""

    def forward(self, x: Tensor, mask: Tensor | None = None, offsets: Tensor | None = None) -> tuple[Tensor, Info]:
        """One vector a bag, and how much each instance counts."""
        self._check(x, mask, offsets)
        if offsets is not None:
            present = offsets.diff() > 0
            z, attention = self._flat(x, offsets)
        else:
            mask = x.new_ones(x.shape[:2], dtype=torch.bool) if mask is None else mask
            present, size = mask.any(dim=1), x.shape[1]
            if not size:
                x, mask = x.new_zeros(len(x), 1, self.dim), mask.new_zeros(len(x), 1)
            z, attention = self._padded(blank(x, mask), mask)
            attention = attention[:, :size]
        z = torch.where(present[:, None], z, self.null.to(z.dtype)).to(x.dtype)
        return z, {"attention": attention, "regularisers": {}}

    def _padded(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, D) with N ≥ 1 and zeros in the padding → z (B, D), anything finite for an empty bag; attention."""
        raise NotImplementedError

    def _flat(self, x: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """(ΣN, D) → z (B, D), anything finite for an empty bag; attention (ΣN,)."""
        raise NotImplementedError

    def _check(self, x: Tensor, mask: Tensor | None, offsets: Tensor | None) -> None:
        name = type(self).__name__
        if mask is not None and offsets is not None:
            raise ValueError(f"{name}: give mask for padded bags or offsets for flat ones, not both")
        axes, shape = (2, "(ΣN, D) with offsets") if offsets is not None else (3, "(B, N, D) without offsets")
        if x.ndim != axes or x.shape[-1] != self.dim:
            raise ValueError(f"{name}: x must be {shape} and D = {self.dim}, not {tuple(x.shape)}")
        if mask is not None and (mask.shape != x.shape[:2] or mask.dtype != torch.bool):
            raise ValueError(
                f"{name}: mask must be bool {tuple(x.shape[:2])} as x has bags and instances, "
                f"not {mask.dtype} {tuple(mask.shape)}"
            )
        if offsets is not None and (offsets.ndim != 1 or offsets.dtype != torch.int64 or not len(offsets)):
            raise ValueError(
                f"{name}: offsets must be int64 (B + 1,), where each bag begins and the last one ends, "
                f"not {offsets.dtype} {tuple(offsets.shape)}"
            )
        Bag(x, mask, offsets)  # which looks at the offsets' values: numbers of a wrong bag would go unseen


class MeanPooling(Pooling):
    """The mean of a bag's instances: z = (1/n) Σ_i x_i.

    Args:
        dim: D.
    """

    def _padded(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        share = mask.to(_wide(x)) / mask.sum(dim=1, keepdim=True).clamp(min=1)
        return (share[..., None] * x).sum(dim=1), share

    def _flat(self, x: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        sizes = offsets.diff()
        share = (1 / sizes.clamp(min=1).to(_wide(x)))[segment_ids(offsets, len(x))]
        return segment_sum(share[:, None] * x, offsets), share


class MaxPooling(Pooling):
    """The largest value of each feature: z_d = max_i x_id.

    The attention of an instance is the share of the D features in which it is the largest, equal ones counted in equal
    parts, and has no gradient.

    Args:
        dim: D.
    """

    def _padded(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        z = x.masked_fill(~mask[..., None], -torch.inf).amax(dim=1)
        z = torch.where(mask.any(dim=1)[:, None], z, 0)
        wins = ((x == z[:, None]) & mask[..., None]).to(_wide(x))
        return z, (wins / wins.sum(dim=1, keepdim=True).clamp(min=1)).mean(dim=-1)

    def _flat(self, x: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        bag, bags = segment_ids(offsets, len(x)), len(offsets) - 1
        z = x.new_zeros(bags, self.dim).scatter_reduce(0, bag[:, None].expand_as(x), x, "amax", include_self=False)
        wins = (x == z[bag]).to(_wide(x))
        return z, (wins / segment_sum(wins, offsets).clamp(min=1)[bag]).mean(dim=-1)


class GatedAttentionPooling(Pooling):
    """A weighted mean of the instances, with weights from a gated score (Ilse, Tomczak, Welling, ICML 2018).

    f_i = wᵀ[tanh(V x_i) ⊙ σ(U x_i)],  a = softmax(f) over the bag,  z = Σ_i a_i x_i

    Args:
        dim: D.
        hidden: Width of V and U. None takes D.

    Cost:
        O(D · hidden) an instance.

    Note:
        V, U and w have biases here; that of w cancels in the softmax, and is left out. The paper writes none.
    """

    def __init__(self, dim: int, hidden: int | None = None) -> None:
        super().__init__(dim)
        hidden = dim if hidden is None else hidden
        if hidden < 1:
            raise ValueError(f"GatedAttentionPooling: hidden must be 1 or more, not {hidden}")
        self.content = nn.Linear(dim, hidden)
        self.gate = nn.Linear(dim, hidden)
        self.score = nn.Linear(hidden, 1, bias=False)

    def _scores(self, x: Tensor) -> Tensor:
        """f: (…, D) → (…,)."""
        f: Tensor = self.score(self.content(x).tanh() * self.gate(x).sigmoid()).squeeze(-1)
        return f

    def _padded(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        a = masked_softmax(self._scores(x), mask)
        return (a[..., None] * x).sum(dim=1), a

    def _flat(self, x: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        a = segment_softmax(self._scores(x), offsets)
        return segment_sum(a[:, None] * x, offsets), a


class TransformerPooling(Pooling):
    """Instances attend to each other, then a learned query attends to them (Set Transformer, Lee et al., ICML 2019).

    x ← x + MHA(LN x),  x ← x + MLP(LN x), ``layers`` times
    a_h = softmax(q_hᵀ K_h x / √d),  z = W concat_h(Σ_i a_hi V_h x_i)

    There are no positions, so the order of instances does not matter. The attention in ``info`` is that of the learned
    query, the mean over heads.

    Args:
        dim: D, a multiple of ``heads``.
        heads: 1 or more.
        layers: Of attention between instances, 0 or more.

    Cost:
        O(N² D) a bag of N instances. Flat bags are padded to the largest: put bags of similar size into one batch.
        Padding waits for the device once, for the largest size.

    Note:
        Layer norm comes before each block and not after it as in the paper, which needs no warm-up.
    """

    def __init__(self, dim: int, heads: int = 4, layers: int = 1) -> None:
        super().__init__(dim)
        if heads < 1 or dim % heads:
            raise ValueError(f"TransformerPooling: heads must be 1 or more and divide dim = {dim}, not {heads}")
        if layers < 0:
            raise ValueError(f"TransformerPooling: layers must be 0 or more, not {layers}")
        self.heads = heads
        self.layers = nn.ModuleList(_Layer(dim, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.query = nn.Parameter(torch.randn(heads, dim // heads) / (dim // heads) ** 0.5)
        self.key, self.value, self.out = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim), nn.Linear(dim, dim)

    def _padded(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        # An empty bag attends to its zeros, since a softmax over nothing is NaN; nobody sees the result.
        keys = (mask | ~mask.any(dim=1, keepdim=True))[:, None, None]
        for layer in self.layers:
            x = layer(x, keys)
        x = self.norm(x)
        key, value = (part.unflatten(-1, (self.heads, -1)) for part in (self.key(x), self.value(x)))
        logits = torch.einsum("hd,bnhd->bhn", self.query.to(key.dtype), key) / key.shape[-1] ** 0.5
        a = masked_softmax(logits, mask[:, None])
        z: Tensor = self.out(torch.einsum("bhn,bnhd->bhd", a.to(value.dtype), value).flatten(1))
        return z, a.mean(dim=1)

    def _flat(self, x: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        sizes = offsets.diff()
        bag = segment_ids(offsets, len(x))
        place = torch.arange(len(x), device=x.device) - offsets[bag]
        largest = max(1, int(sizes.max())) if len(sizes) else 1
        dense = x.new_zeros(len(sizes), largest, self.dim).index_put((bag, place), x)
        z, attention = self._padded(dense, torch.arange(largest, device=x.device) < sizes[:, None])
        return z, attention[bag, place]


class _Layer(nn.Module):
    """One block of a transformer, layer norm first."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.project, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor, keys: Tensor) -> Tensor:
        """(B, N, D), keys that may be attended to (B, 1, 1, N) → (B, N, D)."""
        q, k, v = self.project(self.norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = scaled_dot_product_attention(q, k, v, attn_mask=keys)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        change: Tensor = self.mlp(x)
        return x + change


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
