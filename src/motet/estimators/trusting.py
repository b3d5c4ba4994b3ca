"""What an estimator's selection is worth: on halves of the rows, against knockoffs, against permuted outcomes."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone

from motet.estimators.cells import as_frame, read_table
from motet.estimators.importance import PermutationImportance, permutation_importance
from motet.estimators.knockoffs import KnockoffSelection, knockoff_selection
from motet.estimators.outcomes import comparable
from motet.estimators.path import PathOptions
from motet.estimators.permuted import PermutedControl, permuted_control
from motet.estimators.search import Data, fit, mean_known
from motet.estimators.stability import StabilitySelection, stability_selection

Floats = NDArray[np.float64]
_RARE = ("binary", "survival")


class Trust:
    """Checks of the selection that refit the estimator with its own options; the estimator itself is not changed."""

    def stability_selection(
        self,
        X: Any,
        Y: Any,
        *,
        pairs: int = 50,
        threshold: float = 0.75,
        max_features: int | None = None,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        progress: Any = None,
        checkpoint: Any = None,
    ) -> StabilitySelection:
        """Which features are selected on most halves of the rows: `motet.estimators.stability.stability_selection`.

        Args:
            X: (n, p).
            Y: Outcomes, as for `fit`.
            pairs: Complementary pairs of halves; twice as many paths are fitted.
            threshold: Share of the halves that must select a feature.
            max_features: q, at most so many features of each half. None: √((2π - 1) p), with which at most one false
                feature is expected.
            sample_weight: As for `fit`.
            groups: Rows of a group go into one half.
            progress: Called with (halves done, halves).
            checkpoint: A file to go on from after an interruption.
        """
        data, rows, options, seed = self._alone(X, Y, sample_weight, groups)
        lambdas = fit(data, options, seed).path.lambdas
        p = data.values.shape[1]
        if max_features is None:
            max_features = max(1, int(np.sqrt(max(2 * threshold - 1, 0.2) * p)))
        digest = hashlib.sha256(repr((options, data.share, data.censoring)).encode())
        for array in (data.values, data.weight, *(task.y for task in data.tasks)):
            digest.update(np.ascontiguousarray(array).tobytes())
        return stability_selection(
            partial(_support, data, replace(options, lambdas=tuple(lambdas))),
            len(data.values),
            p,
            pairs=pairs,
            threshold=threshold,
            max_features=max_features,
            lambdas=lambdas,
            strata=_strata(data),
            groups=None if groups is None else np.asarray(groups)[rows],
            usable=partial(_usable, data),
            random_state=seed,
            n_jobs=self.n_jobs,  # type: ignore[attr-defined]
            progress=progress,
            checkpoint=checkpoint,
            tag=digest.hexdigest()[:16],
        )

    def knockoff_selection(
        self,
        X: Any,
        Y: Any,
        *,
        q: float = 0.1,
        draws: int = 1,
        sample_weight: ArrayLike | None = None,
        progress: Any = None,
    ) -> KnockoffSelection:
        """Features that matter more than a synthetic copy, with a false discovery rate of at most q.

        The promise holds if the rows of X are Gaussian with the covariance that is estimated, which can't be known
        where there are about as many columns as rows or more: a warning says so.

        Args:
            X: (n, p).
            Y: Outcomes, as for `fit`.
            q: Level, in (0, 1).
            draws: Of knockoffs; more depend less on chance. Each is a path of 2p features.
            sample_weight: As for `fit`, in the fits; the law of X is that of the unweighted rows.
            progress: Called with (draws done, draws).
        """
        data, _, options, seed = self._alone(X, Y, sample_weight, None)
        return knockoff_selection(
            partial(_exits, data, options),
            data.values,
            q=q,
            draws=draws,
            random_state=seed,
            n_jobs=self.n_jobs,  # type: ignore[attr-defined]
            progress=progress,
        )

    def permutation_importance(
        self,
        X: Any,
        Y: Any,
        *,
        repeats: int = 10,
        columns: Sequence[int | str] | None = None,
        feature_groups: Mapping[str, Sequence[int | str]] | None = None,
        random_state: Any = None,
    ) -> PermutationImportance:
        """How much concordance each outcome loses when a selected feature is shuffled; give rows that were not fitted.

        Args:
            X: (n, p).
            Y: Outcomes of these rows.
            repeats: Shuffles of each feature.
            columns: Default: the selected ones; the others are exactly 0.
            feature_groups: {name: columns} to shuffle together, in place of `columns`.
            random_state: Seed.
        """
        if columns is None and feature_groups is None:
            columns = [int(q) for q in np.flatnonzero(self.support_)]  # type: ignore[attr-defined]
        return permutation_importance(
            lambda shuffled: self.score_per_task(shuffled, Y).to_dict(),  # type: ignore[attr-defined]
            X if (frame := as_frame(X)) is None else frame,
            random_state,
            repeats=repeats,
            columns=columns,
            groups=feature_groups,
        )

    def permuted_control(
        self,
        X: Any,
        Y: Any,
        *,
        repeats: int = 19,
        within: Any = None,
        groups: ArrayLike | None = None,
        progress: Any = None,
    ) -> PermutedControl:
        """The whole analysis, choice of λ included, on outcomes that belong to other rows.

        Args:
            X: (n, p).
            Y: A DataFrame or array of outcomes.
            repeats: Permutations; 19 are needed for p = 0.05.
            within: Labels of rows, such as a centre's, among which alone they are permuted.
            groups: As for `fit`; outcomes of a group move together, to another group with as many rows.
            progress: Called with (fits done, fits).
        """
        seed = self.random_state  # type: ignore[attr-defined]
        own = clone(self).set_params(calibrate=False, verbose=0, n_jobs=None, random_state=0 if seed is None else seed)
        return permuted_control(
            partial(_analysis, own, X, groups),
            Y if isinstance(Y, np.ndarray | pd.DataFrame | pd.Series) else read_table(Y)[0],
            repeats=repeats,
            within=within,
            groups=None if groups is None else np.asarray(groups),
            random_state=seed,
            n_jobs=self.n_jobs,  # type: ignore[attr-defined]
            progress=progress,
        )

    def _alone(
        self, X: Any, Y: Any, sample_weight: ArrayLike | None, groups: ArrayLike | None
    ) -> tuple[Data, NDArray[Any], PathOptions, int]:
        """The data as a fit sees them, and which rows these are, without touching this estimator."""
        own = clone(self)
        data, rows, _ = own._read(X, Y, sample_weight, groups)
        return data, rows.rows, own._options(), own._seed()


def _support(data: Data, options: PathOptions, rows: NDArray[Any], seed: int) -> NDArray[np.bool_]:
    torch.set_num_threads(1)
    return fit(data.at(rows), options, seed).path.support


def _usable(data: Data, rows: NDArray[Any]) -> bool:
    return all(comparable(task.at(rows)) for task in data.tasks)


def _strata(data: Data) -> NDArray[Any] | None:
    """Labels of the rarest traits: classes of the least balanced binary outcome, or events."""
    traits = [task.event if task.kind == "survival" else task.y for task in data.tasks if task.kind in _RARE]
    if not traits:
        return None
    counts = [min(np.nansum(trait == 1), np.nansum(trait == 0)) for trait in traits]
    return traits[int(np.argmin(counts))]


def _exits(data: Data, options: PathOptions, features: Floats, seed: int) -> Floats:
    torch.set_num_threads(1)
    return fit(replace(data, values=np.asarray(features, dtype=np.float64)), options, seed).path.exit_lambda


def _analysis(estimator: Any, X: Any, groups: Any, Y: Any, seed: int) -> tuple[NDArray[np.bool_], dict[str, float]]:
    """A fit, what it selects, and the held-out concordance of each outcome at its λ."""
    torch.set_num_threads(1)
    fitted = clone(estimator).set_params(random_state=seed).fit(X, Y, groups=groups)
    names = [outcome.name for outcome in fitted.outcomes_]
    if fitted.scores_path_ is None:
        return fitted.support_, fitted.score_per_task(X, Y).to_dict()
    at = int(np.argmin(abs(fitted.lambda_path_ - fitted.lambda_best_)))
    return fitted.support_, dict(zip(names, mean_known(fitted.scores_path_[at], 1), strict=True))
