"""Refits along a path: the relaxed lasso, Meinshausen, Computational Statistics & Data Analysis 2007, for networks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from motet.estimators.dense import concordances
from motet.estimators.path import Path, PathOptions, State, Validation, refit
from motet.estimators.solver import Criterion


@dataclass(frozen=True)
class Relaxed:
    """Refits of a path's supports."""

    states: list[State | None]  # None where the support was too large to refit
    concordance_validation: NDArray[np.float64] | None  # (L, K), NaN where there is no refit

    def best(self, within: float = 0.0) -> int:
        """The largest λ whose mean validation concordance is within `within` of the best."""
        if self.concordance_validation is None:
            raise ValueError("without validation rows no refit is better than another")
        known = np.asarray(~np.isnan(self.concordance_validation).all(1))
        mean = np.full(len(self.states), -np.inf)
        mean[known] = np.nanmean(self.concordance_validation[known], 1)
        return int(np.flatnonzero(mean >= mean.max() - within)[-1])


def relax(
    X: Tensor,
    pairs: Sequence[Criterion],
    weights: Sequence[float] | Tensor,
    path: Path,
    *,
    validation: Validation | None = None,
    options: PathOptions | None = None,
    largest: int = 50,
    ridge: float = 0.003,
    steps: int = 150,
    seed: int = 0,
) -> Relaxed:
    """Refit every support of a path that has at most `largest` features, equal ones once.

    The penalty that empties a network also shrinks what it keeps, so the path itself predicts best with far too many
    features. A refit of the right few beats it, and λ chosen by the refits' validation concordance selects them.

    Args:
        X: As for `fit_path`.
        pairs: As for `fit_path`.
        weights: As for `fit_path`.
        path: Whose supports.
        validation: For early stopping and `concordance_validation`.
        options: Of the path.
        largest: Supports with more features are left out.
        ridge: As for `refit`.
        steps: As for `refit`.
        seed: Every support starts from weights of this seed: neighbours differ by their features alone.
    """
    states: list[State | None] = []
    rows: list[Tensor] = []
    support = path.support
    for index, state in enumerate(path.states):
        last = states[-1] if states else None
        if last is not None and torch.equal(last.features, state.features):
            states.append(last)
            rows.append(rows[-1])
            continue
        fitted, row = None, torch.full((len(pairs),), torch.nan, dtype=torch.float64)
        if len(state.features) <= largest:
            generator = torch.Generator().manual_seed(seed)
            fitted = refit(
                X, pairs, weights, support[index],
                validation=validation, options=options, ridge=ridge, steps=steps, generator=generator,
            )  # fmt: skip
            if validation is not None:
                row = concordances(validation[1], fitted.scores(validation[0]))
        states.append(fitted)
        rows.append(row)
    return Relaxed(states, None if validation is None else torch.stack(rows).numpy())
