"""Whether views agree for a good reason: coherence beside a shuffled control, effective rank and spread."""

import torch
from torch import Tensor

from motet.linalg import as_double
from motet.nn.coherence import coherence
from motet.nn.masking import blank


def effective_rank(codes: Tensor, mask: Tensor | None = None) -> float:
    r"""How many directions codes use: exp of the entropy of their normalised singular values (Roy & Vetterli, 2007).

    With σ the singular values of the centred codes and p = σ/Σσ it is exp(-Σ p log p), from 1 for codes on a line
    to their width for codes spread evenly. Codes that are all the same have rank 0; fewer than two give NaN.

    Shapes:
        codes (…, D), mask (…) bool.
    """
    rows = _rows(codes, mask)
    if len(rows) < 2:
        return float("nan")
    sigma = torch.linalg.svdvals(rows - rows.mean(0))
    # What rounding leaves of equal codes is no direction.
    noise = torch.finfo(codes.dtype).eps * rows.abs().max() * max(rows.shape) ** 0.5
    sigma = sigma[sigma > noise]
    p = sigma / sigma.sum()
    return float(torch.exp(-(p * p.log()).sum())) if len(p) else 0.0


def shuffled_coherence(codes: Tensor, mask: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
    """Coherence when each view comes from another sample: what views agree on whatever they show.

    The samples are put into one random order, in which each view is moved by another number of places among the
    samples that have it: with all views present and as many samples as views, no two views of a sample stay together.

    Shapes:
        codes (B, V, D), mask (B, V) bool → (B,), NaN where fewer than two views are present.
    """
    mask = torch.ones(codes.shape[:2], dtype=torch.bool, device=codes.device) if mask is None else mask
    order = torch.randperm(len(codes), generator=generator).to(codes.device)
    moved = blank(codes, mask)
    for view in range(codes.shape[1]):
        rows = order[mask[order, view]]
        moved[rows, view] = codes[rows.roll(view), view]
    return coherence(moved, mask)


def view_consistency(
    codes: Tensor, mask: Tensor | None = None, generator: torch.Generator | None = None
) -> dict[str, float]:
    """Coherence of the views' codes with all that is needed to read it.

    Coherence alone is no quality: codes that have collapsed have coherence 1. It means something where the control
    lies well below and the codes use more than a direction or two.

    Args:
        codes: The shared codes of test data, (B, V, D).
        mask: (B, V) bool, True where present.
        generator: Draws the control's order.

    Returns:
        ``coherence`` and ``shuffled``, means over the samples with two views or more, NaN if there is none;
        ``effective_rank`` of all codes; ``spread``, the mean over coordinates of their standard deviation.
    """
    mask = torch.ones(codes.shape[:2], dtype=torch.bool, device=codes.device) if mask is None else mask
    codes = codes.detach()
    rows = _rows(codes, mask)
    return {
        "coherence": float(coherence(codes, mask).nanmean()),
        "shuffled": float(shuffled_coherence(codes, mask, generator).nanmean()),
        "effective_rank": effective_rank(codes, mask),
        "spread": float(rows.std(0, correction=0).mean()) if len(rows) else float("nan"),
    }


def _rows(codes: Tensor, mask: Tensor | None) -> Tensor:
    return as_double((codes.detach() if mask is None else codes.detach()[mask]).reshape(-1, codes.shape[-1]))
