"""Attention between the views of a sample by content and by agreement: a reconstruction of UMDA's HCVA, 2026."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from motet.nn.coherence import coherence, directions
from motet.nn.dispersion import dispersion
from motet.nn.masking import band, blank, entropy, masked_softmax
from motet.nn.moments import is_shared, mean_of_present
from motet.nn.precision import at_least_float32


class HybridCrossViewAttention(nn.Module):
    r"""Every view of a sample takes from the others, by what they hold and by how far they agree.

    With x = LN(H) and H heads of width d, the directed operator asks what a view holds, the undirected one how far
    two views point the same way, and a gate of the asking view mixes them:

        Aᶜ = softmaxᵤ(qᵥ·kᵤ / √d),   Aʳ = softmaxᵤ(β rᵥ·rᵤ), ‖r‖ = 1,   g = σ(w·xᵥ + b),
        A = g Aᶜ + (1 - g) Aʳ,   H̃ᵥ = Hᵥ + W_o Σᵤ Aᵥᵤ W xᵤ.

    The output is split into shared codes sᵥ = W_s H̃ᵥ and private ones pᵥ = W_p H̃ᵥ, so that views may agree in the
    first and differ in the second. Three penalties are returned and added to nothing:

    - ``concentration``: the entropy of the rows of A over log n, held between low and high by a squared hinge;
    - ``consistency``: mean of 1 - C, the :func:`~motet.nn.coherence.coherence` of the shared codes;
    - ``dispersion``: see :func:`~motet.nn.dispersion.dispersion`.

    At the start W_o = 0: the block is the identity, bit for bit; g = ½ and β = 1.

    Args:
        dim: Width of a view, ≥ 2.
        heads: H, a divisor of dim.
        shared: Width of the shared codes, from 1 to dim - 1; half of dim by default.
        concentration: (low, high), 0 ≤ low ≤ high ≤ 1: the share of log n at which attention is neither fixed on one
            view nor spread evenly.
        floor: γ > 0, the spread that every coordinate of the codes should keep over the batch.

    Shapes:
        x (B, V, D), view_mask (B, V) bool, True where present → out (B, V, D), and info with ``attention``
        (B, H, V, V), rows the asking views; ``gate`` (B, H, V); ``shared`` (B, V, Dₛ); ``private`` (B, V, D - Dₛ);
        ``coherence`` (B,), NaN where fewer than two views are present; ``regularisers``, scalars by name.

    Cost:
        Six D×D products a view, and H·V² for attention.

    Note:
        Reconstruction: the publication names two operators, an entropy-based concentration, a consistency penalty
        and dispersion constraints, and its equations were not available. Left open and chosen here: the operators
        and their mixture (a gate by view, not by pair or one for all), the split that lets consistency and
        dispersion both hold, a band for the entropy and not one target, variances and correlations and not
        distances. Alternatives are an operator without softmax, and canonical correlation for consistency.

        A missing view holds anything, NaN too, and changes nothing. Its own output and codes are zeros, and nothing
        attends to it; its row of A is that of an empty view and is used nowhere. A sample without any view has
        attention 0.

        While training with torch.distributed, the penalties are those of the batch over all processes, the same on
        each, and their gradients after DDP's mean are those of one process with the whole batch. Every process must
        then run the block equally often. In eval mode nothing is exchanged.

        Attention, entropies and moments are computed in float32 at least, under autocast too.
        ``torch.compile(fullgraph=True)`` works except for that exchange. Nothing waits for the device.
    """

    def __init__(
        self,
        dim: int,
        heads: int = 4,
        *,
        shared: int | None = None,
        concentration: tuple[float, float] = (0.1, 0.7),
        floor: float = 1.0,
    ) -> None:
        super().__init__()
        check_heads(dim, heads)
        shared = dim // 2 if shared is None else shared
        if not 1 <= shared < dim:
            raise ValueError(f"shared is the width of the shared codes, from 1 to dim - 1 = {dim - 1}, not {shared}")
        check_band(concentration)
        if not 0 < floor < math.inf:
            raise ValueError(f"floor is the least spread of the codes and must be positive and finite, not {floor}")
        self.dim, self.heads, self.concentration, self.floor = dim, heads, concentration, floor
        self.norm = nn.LayerNorm(dim)
        self.content = nn.Linear(dim, 3 * dim, bias=False)
        self.agreement = nn.Linear(dim, dim, bias=False)
        self.log_beta = nn.Parameter(torch.zeros(heads))
        self.gate = nn.Linear(dim, heads)
        self.out = nn.Linear(dim, dim, bias=False)
        self.to_shared = nn.Linear(dim, shared, bias=False)
        self.to_private = nn.Linear(dim, dim - shared, bias=False)
        for parameter in (self.gate.weight, self.gate.bias, self.out.weight):
            nn.init.zeros_(parameter)

    def extra_repr(self) -> str:
        """What the linear maps don't show."""
        return f"heads={self.heads}, concentration={self.concentration}, floor={self.floor}"

    def forward(self, x: Tensor, view_mask: Tensor | None = None) -> tuple[Tensor, dict[str, Any]]:
        """Mix the views of each sample; see the class for shapes."""
        mask = self._mask(x, view_mask)
        x = blank(x, mask)
        normed = self.norm(x)
        q, k, v = (part.transpose(1, 2) for part in self._by_head(self.content(normed), 3))
        (r,) = self._by_head(self.agreement(normed), 1)
        g = self.gate(normed).transpose(1, 2)
        with torch.autocast(x.device.type, enabled=False):
            seen = mask[:, None, None, :]
            q, k, r = at_least_float32(q), at_least_float32(k), directions(r).transpose(1, 2)
            by_content = masked_softmax(q @ k.mT / math.sqrt(q.shape[-1]), seen)
            by_agreement = masked_softmax(at_least_float32(self.log_beta).exp()[:, None, None] * (r @ r.mT), seen)
            g = at_least_float32(g).sigmoid()
            attention = torch.lerp(by_agreement, by_content, g[..., None])
            taken = (attention @ v.to(attention.dtype)).transpose(1, 2).flatten(2).to(v.dtype)
        out = blank(x + self.out(taken), mask)
        shared, private = self.to_shared(out), self.to_private(out)
        with torch.autocast(x.device.type, enabled=False):
            agree = coherence(shared, mask)
            everywhere = self.training and is_shared()
            n = mask.sum(1)
            several = n >= 2
            h = entropy(attention) / n.clamp(min=2).to(attention.dtype).log()[:, None, None]
            asked = (mask & several[:, None])[:, None].expand_as(h)
            regularisers = {
                "concentration": mean_of_present(band(h, *self.concentration), asked, everywhere),
                "consistency": mean_of_present(1 - agree, several, everywhere),
                "dispersion": dispersion(shared, private, mask, self.floor, everywhere),
            }
        return out, {
            "attention": attention,
            "gate": g,
            "shared": shared,
            "private": private,
            "coherence": agree,
            "regularisers": regularisers,
        }

    def _by_head(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        by_head: tuple[Tensor, ...] = x.unflatten(-1, (parts, self.heads, -1)).unbind(-3)
        return by_head

    def _mask(self, x: Tensor, view_mask: Tensor | None) -> Tensor:
        if x.ndim != 3 or x.shape[-1] != self.dim:
            raise ValueError(f"x must be (samples, views, dim={self.dim}), not of shape {tuple(x.shape)}")
        if view_mask is None:
            return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        check_mask("view_mask", view_mask, x)
        return view_mask


def check_heads(dim: int, heads: int) -> None:
    """Raise a ValueError unless dim splits into heads."""
    if dim < 2:
        raise ValueError(f"dim is the width of a view and must be at least 2, not {dim}")
    if heads < 1 or dim % heads:
        raise ValueError(f"heads must divide dim = {dim}, and {heads} does not")


def check_band(concentration: tuple[float, float]) -> None:
    """Raise a ValueError unless 0 ≤ low ≤ high ≤ 1."""
    if len(concentration) != 2 or not 0 <= concentration[0] <= concentration[1] <= 1:
        raise ValueError(f"concentration is (low, high) with 0 ≤ low ≤ high ≤ 1, not {concentration}")


def check_mask(name: str, mask: Tensor, x: Tensor) -> None:
    """Raise a ValueError unless the mask is bool and has the leading two dimensions of x."""
    if mask.dtype != torch.bool:
        raise ValueError(f"{name} must be bool, True where present, not {mask.dtype}: compare it with 0 first")
    if mask.shape != x.shape[:2]:
        raise ValueError(
            f"{name} must have the shape {tuple(x.shape[:2])} of the first two dimensions of the "
            f"tensor that it masks, not {tuple(mask.shape)}"
        )
