"""The permuted-outcome control: the whole analysis again on outcomes that belong to other rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from motet.estimators.importance import Scores, read_scores
from motet.estimators.trust import (
    Array,
    Bools,
    Floats,
    Progress,
    RandomState,
    Result,
    entropy,
    generator,
    in_parallel,
    names_of,
    seed,
    whole,
)

Fitted = tuple[ArrayLike, Scores]
"""What is selected, (p,) bool, and one concordance an outcome."""


@dataclass(frozen=True, eq=False, repr=False)
class PermutedControl(Result):
    """How much an analysis finds where there is nothing to find.

    Attributes:
        support: What is selected with the outcomes as they are, (p,) bool.
        concordance: Of the outcomes as they are, (K,).
        null_support: With permuted outcomes, (B, p) bool.
        null_concordance: With permuted outcomes, (B, K).
        outcomes: Names of the outcomes, (K,).
        random_state: The number that repeats the run.
    """

    support: Bools
    concordance: Floats
    null_support: Bools
    null_concordance: Floats
    outcomes: tuple[str, ...]
    random_state: int

    @property
    def p_selected(self) -> float:
        """(1 + #{null models that are as large}) / (1 + B)."""
        return _p_value(self.support.sum(), self.null_support.sum(axis=1))

    @property
    def p_concordance(self) -> Floats:
        """(1 + #{null concordances as high}) / (1 + B), (K,); NaN where an outcome can't be scored."""
        return np.array([_p_value(*pair) for pair in zip(self.concordance, self.null_concordance.T, strict=True)])

    @property
    def p_mean(self) -> float:
        """The same of the mean over the outcomes that can be scored: one test for all of them."""
        known = ~np.isnan(self.concordance)
        null = self.null_concordance[:, known]
        return _p_value(self.concordance[known].mean(), null.mean(axis=1)) if known.any() else np.nan

    @property
    def frequency(self) -> Floats:
        """Share of the permutations that select a feature, (p,): high for one that is favoured whatever the outcome."""
        return np.asarray(self.null_support.mean(axis=0))

    def to_frame(self) -> pd.DataFrame:
        """A row for the number of selected features and one for each outcome's concordance."""
        null = np.column_stack([self.null_support.sum(axis=1), self.null_concordance])
        columns: dict[str, Any] = {
            "observed": [float(self.support.sum()), *self.concordance],
            "null_mean": null.mean(axis=0),
            "null_highest": null.max(axis=0),
            "p_value": [self.p_selected, *self.p_concordance],
        }
        return pd.DataFrame(columns, index=["selected", *self.outcomes])

    def favoured(self, names: Sequence[str] | None = None) -> pd.Series:
        """Features by the share of the permutations that select them, the largest first."""
        index = pd.Index(names_of(names, len(self.support)), name="feature")
        return pd.Series(self.frequency, index=index, name="frequency").sort_values(ascending=False, kind="stable")

    def explain(self) -> str:
        """In sentences: what permuted outcomes give, and what this says of the real ones."""
        B, sizes = len(self.null_support), self.null_support.sum(axis=1)
        times = "1 permutation" if B == 1 else f"{B} permutations"
        said = [
            f"With {times} of the outcomes' rows, {np.median(sizes):g} features are selected (median; at most "
            f"{sizes.max()}), and {self.support.sum()} with the outcomes as they are (p = {self.p_selected:.3g})."
        ]
        for name, value, null, p in zip(
            self.outcomes, self.concordance, self.null_concordance.T, self.p_concordance, strict=True
        ):
            if np.isnan(value):
                said.append(f"{name} can't be scored.")
            else:
                said.append(f"{name}: concordance {value:.3f}, permuted {np.nanmean(null):.3f} (p = {p:.3g}).")
        if B < 19:
            said.append(f"No p-value can be below {1 / (1 + B):.2g} with {times}: 19 are needed for 0.05.")
        return " ".join(said)

    def __repr__(self) -> str:
        return f"PermutedControl({len(self.null_support)} permutations)\n{self.to_frame()}"


def permuted_control(
    fit_and_select: Callable[[Any, int], Fitted],
    Y: Any,
    *,
    repeats: int = 19,
    within: Array | None = None,
    groups: Array | None = None,
    random_state: RandomState = None,
    n_jobs: int | None = None,
    prefer: str = "processes",
    progress: Progress | None = None,
) -> PermutedControl:
    r"""Run an analysis on the outcomes as they are, and again with their rows permuted jointly.

    All outcomes of a row move together, so that their dependence and their missing values stay, and only their
    relation to X goes. For a statistic T (number selected, concordance of an outcome), with T_b that of permutation b,

        p = (1 + #{b : T_b ≥ T}) / (1 + B),

    which is valid for every B if rows are exchangeable under the hypothesis that Y has nothing to do with X.

    Args:
        fit_and_select: ``fit_and_select(Y, seed)`` does everything that was done to Y, tuning included, with the same X
            each time, and returns what is selected, (p,) bool, and one concordance an outcome, by name or in order.
            Take concordances from rows that were not fitted on: those on the training rows are high under the null.
        Y: (n, K) array or pandas DataFrame, survival times and events among the columns, or (n,) structured array.
        repeats: B. 19 is the fewest that can give p = 0.05.
        within: Labels of the rows, (n,): permute only among rows of the same label, such as a batch or a centre, if
            rows are exchangeable only there.
        groups: Labels of the rows, (n,): outcomes of all rows of a label, such as a patient's, move together, to
            another label with as many rows. Rows that belong together are not exchangeable one by one.
        random_state: None, an int or a generator. Permutation b depends on it and on b alone.
        n_jobs: Jobs at a time, as of joblib. One job is one permutation.
        prefer: "processes" or "threads".
        progress: ``progress(done, B + 1)`` after each fit.

    Cost:
        1 + B analyses.

    Note:
        Sample weights that belong to rows of Y must be columns of Y. A pandas index stays where it is, and only the
        values move: whoever aligns by index sees the permuted values.
    """
    whole("repeats", repeats, 1)
    frame = isinstance(Y, pd.DataFrame | pd.Series)
    data = Y if frame else np.asarray(Y)
    if not data.ndim or len(data) < 2:
        raise ValueError(f"Y must have a row for each sample, at least 2, and has shape {data.shape}")
    labels = np.zeros(len(data), dtype=np.int64) if within is None else _codes("within", within, len(data))
    blocks = None if groups is None else _blocks(_codes("groups", groups, len(data)), labels)
    if blocks is None and (np.bincount(labels) < 2).all():
        raise ValueError("within has a label of its own for every row: nothing can be permuted")
    root = entropy(random_state)
    jobs = [(fit_and_select, data, labels, blocks, root, number) for number in range(repeats + 1)]
    found: dict[int, tuple[Bools, tuple[str, ...], Floats]] = {}
    for number, *rest in in_parallel(_fit, jobs, n_jobs, prefer):
        found[number] = (rest[0], rest[1], rest[2])
        if progress is not None:
            progress(len(found), len(jobs))
    support, outcomes, concordance = found[0]
    for other, names, _ in found.values():
        if other.shape != support.shape or names != outcomes:
            raise ValueError("fit_and_select must return the same features and the same outcomes every time")
    null = [found[number] for number in range(1, repeats + 1)]
    return PermutedControl(
        support, concordance, np.stack([each[0] for each in null]), np.stack([each[2] for each in null]), outcomes, root
    )


def _fit(
    fit_and_select: Callable[[Any, int], Fitted],
    Y: Any,
    labels: Array,
    blocks: list[Array] | None,
    root: int,
    number: int,
) -> tuple[int, Bools, tuple[str, ...], Floats]:
    """Analysis ``number``: 0 with the outcomes as they are."""
    if number:
        order, rng = np.arange(len(labels)), generator(root, number)
        rows_of = [np.flatnonzero(labels == label)[:, None] for label in range(labels.max() + 1)]
        for rows in rows_of if blocks is None else blocks:
            order[rows] = rows[rng.permutation(len(rows))]
        Y = Y.iloc[order].set_axis(Y.index, axis=0) if isinstance(Y, pd.DataFrame | pd.Series) else Y[order]
    support, scores = fit_and_select(Y, seed(root, number, 0))
    chosen = np.asarray(support)
    if chosen.dtype != np.bool_ or chosen.ndim != 1:
        raise ValueError(f"fit_and_select must return what is selected as bool (p,), not {chosen.dtype} {chosen.shape}")
    return number, chosen, *read_scores(scores)


def _codes(name: str, labels: Array, n: int) -> NDArray[np.int64]:
    if np.shape(labels) != (n,):
        raise ValueError(f"{name} must have one label a row, ({n},), and has shape {np.shape(labels)}")
    return np.asarray(pd.factorize(np.asarray(labels), use_na_sentinel=False)[0], dtype=np.int64)


def _blocks(groups: NDArray[np.int64], labels: NDArray[np.int64]) -> list[Array]:
    """The rows of groups that may change places, (groups, rows of one) for each number of rows and label."""
    alike: dict[tuple[int, int], list[Array]] = {}
    for group in range(groups.max() + 1):
        rows = np.flatnonzero(groups == group)
        if (labels[rows] != labels[rows[0]]).any():
            raise ValueError(f"within has two labels in one of the groups, rows {rows[:3].tolist()} …: it needs one")
        alike.setdefault((len(rows), int(labels[rows[0]])), []).append(rows)
    if all(len(members) < 2 for members in alike.values()):
        raise ValueError("no two groups have as many rows as each other: nothing can be permuted")
    return [np.stack(members) for members in alike.values()]


def _p_value(observed: float, null: Array) -> float:
    """(1 + #{null ≥ observed}) / (1 + B). A permutation whose statistic is unknown counts as one that is as high."""
    if np.isnan(observed):
        return np.nan
    return float((1 + (~(null < observed)).sum()) / (1 + len(null)))
