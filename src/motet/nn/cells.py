"""Candidates for neighbours in a bag too long to compare all pairs: instances in nearby cells."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

PROBED = 10
"""How many cells are searched for each instance's neighbours."""


def cell_candidates(features: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    r"""The rows of each cell, and whom they are compared with: features (N, d) of length one.

    √N centres start at evenly spaced places along the first feature, so that they depend on what the instances are
    and not on their order, and move to their cells' means twice. A cell's rows are compared with those in the
    ``PROBED`` cells whose centres are most similar to its own.

    Cost:
        O(N √N) similarities.

    Note:
        What it finds depends on the data. Of 5,000 instances with 32 features and k = 8 it finds all neighbours if they
        fall into clusters, and 39 % if features are independent normal draws, where nothing is near anything
        (``benchmarks/pooling.py recall``).
    """
    n = len(features)
    count = int(n**0.5)
    order = features[:, 0].argsort(stable=True)
    centres = features[order[torch.linspace(0, n - 1, count, device=features.device).long()]]
    for _ in range(2):
        cell = _nearest_centre(features, centres)
        centres = torch.nn.functional.normalize(torch.zeros_like(centres).index_add(0, cell, features), dim=1)
    cell = _nearest_centre(features, centres)
    rows = cell.argsort(stable=True).split(torch.bincount(cell, minlength=count).tolist())
    near = (centres @ centres.T).topk(min(PROBED, count)).indices.tolist()
    for c, cells in enumerate(near):
        if len(rows[c]):
            candidates = torch.cat([rows[other] for other in {c, *cells}])
            for part in rows[c].split(512):
                yield part, candidates


def _nearest_centre(features: Tensor, centres: Tensor) -> Tensor:
    return torch.cat([(part @ centres.T).argmax(1) for part in features.split(4096)])
