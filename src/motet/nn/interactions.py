"""Sums over all pairs and triples of a bag's instances, from power sums."""

import torch
from torch import Tensor

from motet.nn.masking import segment_sum


def pairs_and_triples(y: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """e₂ = Σ_{i<j} yᵢyⱼ and e₃ = Σ_{i<j<l} yᵢyⱼyₗ of each bag, elementwise: y (ΣN, R) → (B, R) each.

    By Newton's identities, e₂ = ½(P₁² - P₂) and e₃ = (P₁³ - 3P₁P₂ + 2P₃)/6 with Pq = Σᵢ yᵢ^q: O(N R), not O(N³ R).
    """
    square = y * y
    p1, p2, p3 = segment_sum(torch.cat([y, square, square * y], 1), offsets).chunk(3, 1)
    return (p1 * p1 - p2) / 2, (p1**3 - 3 * p1 * p2 + 2 * p3) / 6
