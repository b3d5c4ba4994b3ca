"""Attention from each token of a view to the tokens of the other views: a reconstruction of part of UMDA, 2026."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from motet.nn.cross_view import check_band, check_heads, check_mask
from motet.nn.masking import band, blank
from motet.nn.moments import is_shared, mean_of_present
from motet.nn.precision import at_least_float32

_LOGITS = 1 << 22
"""Logits that are in memory at a time while their logarithmic sum is taken: 16 MB in float32."""


class TokenCrossViewAttention(nn.Module):
    r"""Each token of a view takes from all tokens of the other views; the entropy of its weights costs no matrix.

    With x = LN(H), for a token i of a view and the tokens j of all other views together,

        A = softmaxⱼ(qᵢ·kⱼ / √d),   H̃ᵢ = Hᵢ + W_o Σⱼ Aᵢⱼ W xⱼ.

    A is never in memory. Its entropy comes from the logarithmic sum and one more attention output:

        entropyᵢ = logsumexpⱼ(qᵢ·kⱼ / √d) - qᵢ·(A K)ᵢ / √d,

    so attention runs once, with the values [V ‖ K]. The gradient of the entropy with respect to the logits S is
    that of -Σⱼ Aⱼ S̄ⱼ with S̄ held fixed, so it needs neither the gradient of the logarithmic sum nor that of K and q
    in the product: the sum is taken without a graph, in blocks of queries.

    One penalty is returned and added to nothing: ``concentration``, the entropy over log n (n tokens to attend to)
    held between low and high by a squared hinge, mean over heads and tokens, then over the views that have any.

    At the start W_o = 0: the block is the identity, bit for bit.

    Args:
        dim: Width of a token, ≥ 2.
        heads: H, a divisor of dim.
        concentration: (low, high), 0 ≤ low ≤ high ≤ 1, as in
            :class:`~motet.nn.cross_view.HybridCrossViewAttention`.

    Shapes:
        tokens {view: (B, T_v, D)}, masks {view: (B, T_v) bool, True where present} → {view: (B, T_v, D)}, and info
        with ``entropy`` {view: (B, H, T_v)} as a share of log n, NaN at missing tokens and where n < 2;
        ``regularisers``, scalars by name.

    Cost:
        Memory O(B H T d) where torch has a fused kernel (CPU, CUDA), plus a block of logits of fixed size. Time is
        that of attention with heads of width 2d, and one more product of queries and keys without a gradient.

    Note:
        Reconstruction: the operator by agreement of the block for whole views is left out, because the entropy of a
        mixture of two softmax has no such form. A view's own tokens are left out, so that it is attention between
        views only; self-attention belongs to the view's encoder.

        A view without a mask is present with all its tokens, and one that is not in ``tokens`` is missing for all.
        Missing tokens hold anything, NaN too, and change nothing. A token with nothing to attend to is passed on.
        The entropy has a first derivative only. Softmax and entropies are computed in float32 at least.
    """

    def __init__(self, dim: int, heads: int = 4, *, concentration: tuple[float, float] = (0.1, 0.7)) -> None:
        super().__init__()
        check_heads(dim, heads)
        check_band(concentration)
        self.dim, self.heads, self.concentration = dim, heads, concentration
        self.norm = nn.LayerNorm(dim)
        self.content = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        nn.init.zeros_(self.out.weight)

    def extra_repr(self) -> str:
        """What the linear maps don't show."""
        return f"heads={self.heads}, concentration={self.concentration}"

    def forward(
        self, tokens: Mapping[str, Tensor], masks: Mapping[str, Tensor] | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Mix the tokens of each sample's views; see the class for shapes."""
        present = self._masks(tokens, masks or {})
        x = {view: blank(h, present[view]) for view, h in tokens.items()}
        projected = {view: self._project(h) for view, h in x.items()}
        out, shares, penalties = {}, {}, []
        for view, h in x.items():
            others = [other for other in x if other != view]
            if not others:
                out[view], shares[view] = h, h.new_full((h.shape[0], self.heads, h.shape[1]), torch.nan)
                continue
            k, v = (torch.cat([projected[other][part] for other in others], 2) for part in (1, 2))
            seen = torch.cat([present[other] for other in others], 1)
            with torch.autocast(h.device.type, enabled=False):
                taken, nats = attend(projected[view][0], k, v, seen)
                n = seen.sum(1)
                asked = (present[view] & (n >= 2)[:, None])[:, None].expand_as(nats)
                share = nats / n.clamp(min=2).to(nats.dtype).log()[:, None, None]
                penalties.append((band(share, *self.concentration), asked))
            shares[view] = torch.where(asked, share, torch.nan)
            out[view] = blank(h + self.out(taken.transpose(1, 2).flatten(2).to(h.dtype)), present[view])
        return out, {"entropy": shares, "regularisers": {"concentration": self._mean(penalties, x)}}

    def _project(self, h: Tensor) -> tuple[Tensor, ...]:
        parts = self.content(self.norm(h)).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        return tuple(at_least_float32(part.transpose(1, 2)) for part in parts)

    def _mean(self, penalties: list[tuple[Tensor, Tensor]], x: Mapping[str, Tensor]) -> Tensor:
        if not penalties:
            return at_least_float32(next(iter(x.values()))).new_zeros(())
        everywhere = self.training and is_shared()
        means = torch.stack([mean_of_present(values, asked, everywhere) for values, asked in penalties])
        some = torch.stack([asked.any() for _, asked in penalties])
        return means.sum() / some.sum().clamp(min=1)

    def _masks(self, tokens: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if not tokens:
            raise ValueError("tokens has no view: at least one is needed")
        if unknown := [view for view in masks if view not in tokens]:
            raise ValueError(f"there is a mask for the view {unknown[0]!r} and no tokens; the views are {list(tokens)}")
        samples, found = len(next(iter(tokens.values()))), {}
        for view, h in tokens.items():
            if h.ndim != 3 or h.shape[-1] != self.dim:
                raise ValueError(
                    f"the tokens of view {view!r} must be (samples, tokens, dim={self.dim}), not {tuple(h.shape)}"
                )
            if len(h) != samples:
                raise ValueError(f"view {view!r} has {len(h)} samples and the first view {samples}")
            if view in masks:
                check_mask(f"the mask of view {view!r}", masks[view], h)
            found[view] = masks.get(view, torch.ones(h.shape[:2], dtype=torch.bool, device=h.device))
        return found


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Attention output and the entropy of its weights in nats, without the matrix of weights.

    Shapes:
        q (B, H, T, d), k and v (B, H, S, d), mask (B, S) bool → (B, H, T, d) and (B, H, T); 0 where nothing is
        present. k and v are finite, also where they are missing.
    """
    width, scale = q.shape[-1], 1 / math.sqrt(q.shape[-1])
    some = mask.any(1)[:, None, None]
    # A row without any key is NaN in some versions of torch: it sees all, and its result is thrown away.
    seen = (mask | ~mask.any(1, keepdim=True))[:, None, None, :]
    both = torch.cat([v, k.detach()], -1)
    # Fused kernels want keys and values of one width; without one the matrix would be stored.
    mixed = scaled_dot_product_attention(pad(q, (0, width)), pad(k, (0, width)), both, attn_mask=seen, scale=scale)
    taken, keys = mixed.split(width, -1)
    nats = log_sums(q, k, seen) - (q.detach() * keys).sum(-1) * scale
    return torch.where(some[..., None], taken, 0), torch.where(some, nats, 0)


@torch.no_grad()
def log_sums(q: Tensor, k: Tensor, seen: Tensor, block: int = _LOGITS) -> Tensor:
    """logsumexpⱼ(qᵢ·kⱼ / √d) over the keys that are seen, with at most about ``block`` logits in memory.

    Shapes:
        q (B, H, T, d), k (B, H, S, d), seen (B, 1, 1, S) bool → (B, H, T).
    """
    scale = 1 / math.sqrt(q.shape[-1])
    rows = max(1, block // max(1, k.shape[:-1].numel()))
    parts = [(part @ k.mT).mul(scale).masked_fill(~seen, -torch.inf).logsumexp(-1) for part in q.split(rows, dim=2)]
    return torch.cat(parts, -1)
