"""How sure the groups are: the partition again and again on maps drawn from the measurement's uncertainty."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from motet.grouping.partition import (
    Fixed,
    Measured,
    Values,
    as_groups,
    names_of,
    partition,
    read_errors,
    read_matrix,
    read_partition,
    whole,
)


def stability(
    matrix: Values | Measured,
    standard_errors: Values | None = None,
    method: str | Fixed = "affinity-propagation",
    *,
    draws: int = 200,
    seed: int = 0,
    **options: Any,
) -> Tensor:
    """The share of draws of the map in which two tasks share a group.

    Entry by entry and independently, the map X (K, K) with standard errors S is drawn from N(X_ij, S_ij²). An entry
    that is NaN or whose standard error is infinite or NaN has no known value: it is drawn from N(0, σ²), as often
    positive as negative, where σ is the root mean square of the known entries (1 if there is none, or all are 0).

    Args:
        matrix: The map, or an Affinity.
        standard_errors: S, (K, K), from 0. None takes those of the Affinity.
        method: As of :func:`partition`, and so are ``options``.
        draws: Number of maps, from 1. With 200 a share of a half is known to ±0.07 (two standard errors).
        seed: Of the draws.

    Returns:
        Shares, (K, K), float64, symmetric with a diagonal of 1. Near 0 or 1 the data decide; between, noise does.

    Cost:
        ``draws`` partitions.

    Note:
        Errors of entries that were measured on the same steps are correlated, which independent draws don't show.
    """
    values = read_matrix(matrix)
    tasks = len(values)
    whole("draws", draws, 1)
    generator = np.random.default_rng(whole("seed", seed, 0, 2**32 - 1))
    errors = read_errors(matrix, standard_errors, tasks, "stability")
    known = np.isfinite(values) & np.isfinite(errors)
    scale = float(np.sqrt(np.square(values[known]).mean())) if known.any() else 0.0
    centre = np.where(known, values, 0.0)
    spread = np.where(known, errors, scale or 1.0)
    names = names_of(matrix)
    if not isinstance(method, str):  # By numbers from here on, as the drawn maps have no names.
        method = as_groups(read_partition(method, tasks, names, "the fixed partition"))
    if options.get("previous") is not None:
        options["previous"] = as_groups(read_partition(options["previous"], tasks, names, "previous"))
    together = np.zeros((tasks, tasks))
    for _ in range(draws):
        drawn = centre + spread * generator.standard_normal((tasks, tasks))
        own = int(generator.integers(2**32))
        for group in partition(drawn, method, standard_errors=errors, seed=own, **options):
            together[np.ix_(group, group)] += 1
    return torch.from_numpy(together / draws)
