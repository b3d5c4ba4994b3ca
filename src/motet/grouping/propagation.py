"""Affinity propagation of tasks, as in Selective Task Group Updates: Frey & Dueck, Science 315, 2007."""

import functools
import logging
import warnings

import numpy as np
from numpy.typing import NDArray

from motet.grouping.correlation import Array, Labels

logger = logging.getLogger("motet")

WINDOW = 50
"""Iterations without a change of exemplars that count as convergence, as released; of at most 200."""


def propagate(matrix: Array, previous: Labels | None = None, seed: int = 0) -> Labels:
    """The group of every task by affinity propagation on the map X (K, K), row = source, column = target.

    Every column is divided by the target's self-affinity, the map is symmetrised,

        s_ij = (X_ij / X_jj + X_ji / X_ii) / 2,

    and clustered with the median of all its entries, the unit diagonal included, as the preference of every task.

    Args:
        matrix: X, (K, K). NaN counts as 0.
        previous: Group of every task so far, (K,): the result where the messages don't converge. Without it every task
            is then alone.
        seed: Seed of the tiny noise by which affinity propagation breaks ties, from 0.

    Note:
        Affinity propagation compares affinities and ignores their sign: it can join tasks that hurt each other. Where
        tasks are each other's equals (two tasks of a pair always are, as s is symmetric), its noise can decide: of 100
        seeds 68 find two clearly separate pairs, the others join all four or don't converge.

        scikit-learn has labels for a run that has not converged. They are those of one moment of an oscillation, and
        are not used.

        The released code repeats a run that has not converged with a longer window. What is steady for longer is steady
        for 50 iterations too, so that this can help by a new draw of the tie-breaking noise alone; it is left out here.

        Three cases have no result there or one that depends on the version of scikit-learn. A task whose self-affinity
        is not positive (or below 1e-12 of what its column holds) can't be normalised: it stays alone, and the others
        are clustered. Two tasks are joined if s ≥ 1. Three or more with one common s have nothing that propagation
        could tell apart: they are one group if s > 0, and alone otherwise.
    """
    known = np.nan_to_num(matrix)
    own = known.diagonal()
    usable = np.flatnonzero(own > 1e-12 * np.abs(known).max(axis=0))
    relative = known[np.ix_(usable, usable)] / own[usable]
    found = _clusters((relative + relative.T) / 2, seed)
    if found is None:
        _tell("the previous groups are kept" if previous is not None else "every task stays alone")
        found = np.arange(len(usable)) if previous is None else previous[usable]
    labels = np.arange(len(matrix)) + len(matrix)  # Alone: above every label of a group.
    labels[usable] = found
    return labels


def _clusters(similar: Array, seed: int) -> Labels | None:
    """The cluster of every task, or None where the messages don't converge."""
    tasks = len(similar)
    if tasks < 2:
        return np.zeros(tasks, dtype=np.intp)
    others: NDArray[np.float64] = similar[~np.eye(tasks, dtype=bool)]
    if (others == others[0]).all():
        joined = others[0] >= 1 if tasks == 2 else others[0] > 0
        return np.zeros(tasks, dtype=np.intp) if joined else np.arange(tasks)

    # Imported late: it takes about a second, and other ways of grouping don't need it.
    from sklearn.cluster import affinity_propagation
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            _, labels = affinity_propagation(similar, convergence_iter=WINDOW, random_state=seed)
        except ConvergenceWarning:
            return None
    return np.asarray(labels, dtype=np.intp)


@functools.cache
def _tell(outcome: str) -> None:
    """Log once; a map may fail to converge at every regrouping."""
    logger.warning("affinity propagation of the tasks did not converge: %s", outcome)
