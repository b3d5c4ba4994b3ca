"""Correlation clustering of tasks: Bansal, Blum & Chawla, Machine Learning 56, 2004.

Tasks that help each other belong together, tasks that hurt each other apart. With s (K, K) the symmetrised affinity,
the partition sought maximises

    Σ over groups, Σ over pairs i < j of the group, s_ij.

A pair that may not be joined, because its tasks hurt each other, is *barred*. Partitions are compared by the
number of barred pairs inside groups first, by the sum second: without a bound on the number of groups no barred pair
is ever joined, since singletons have none, and with a bound as few as can be.

So one barred pair splits a group however much its other pairs gain, and of large groups measured with much noise parts
are the result rather than the whole. Standard errors mend that: a pair that can't be told from zero is not barred.
"""

import functools

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Labels = NDArray[np.intp]

EXACT = 9
"""Up to this number of tasks all partitions are compared: Bell(9) = 21,147."""

PATIENCE = 40
"""Steps without a better partition after which a walk ends. With TENURE, chosen by the optima found at K = 9."""

TENURE = 5
"""Steps for which a task that has moved rests."""

WALK = 10
"""Most steps of a walk, in multiples of the number of tasks: bounds the time where small gains go on."""


def similarity(matrix: Array) -> Array:
    """The symmetrised affinity s = (X + Xᵀ)/2 of a map X (K, K), unknown entries (NaN) as 0."""
    half = np.nan_to_num(matrix) / 2  # Halved first: the sum of two huge entries would overflow.
    return half + half.T


def gated(similar: Array, errors: Array | None, significance: float) -> tuple[Array, NDArray[np.bool_]]:
    """What each pair is worth, and whether it may not be joined: (K, K) of both → (K, K), (K, K).

    Without errors, or with significance 0, a pair with s ≤ 0 is barred. Else one with |s| ≤ significance · SE(s) says
    nothing: it is worth a hair less than 0, so that it neither joins its tasks nor keeps them apart where others join
    them, and one clearly below 0 is barred.
    SE(s_ij) = √(SE_ij² + SE_ji²)/2, as of independent entries. An unknown error (NaN) counts as infinite.
    """
    if errors is None or significance == 0:
        return similar, similar <= 0
    spread = np.where(np.isnan(errors), np.inf, errors)
    with np.errstate(over="ignore"):  # Too large to be finite says nothing, as it should.
        unsure = np.abs(similar) <= significance * (np.hypot(spread, spread.T) / 2)
    # Where no error is left, zero is zero and not unsure.
    unsure &= spread + spread.T > 0
    hair = 1e-9 * np.abs(similar).max() or 1.0
    return np.where(unsure, -hair, similar), (similar <= 0) & ~unsure


def correlate(
    similar: Array, bars: NDArray[np.bool_], max_groups: int, previous: Labels | None = None, hysteresis: float = 0.0
) -> Labels:
    """The group of every task under the partition with the fewest barred pairs, then the largest sum.

    Args:
        similar: Symmetrised affinity s, (K, K), symmetric and finite.
        bars: Pairs that may not be joined, (K, K), symmetric.
        max_groups: Most groups, from 1.
        previous: Group of every task so far, (K,). It is kept if it has at most ``max_groups`` groups, no more barred
            pairs than the new partition, and a sum that the new one does not beat by more than hysteresis · |its sum|.
        hysteresis: Share of the previous sum that a change must gain, from 0.

    Cost:
        Up to 9 tasks every partition is compared, and the result is the optimum; of equal ones that which joins the
        earliest tasks. Beyond, a search by greedy merging and single moves, without chance: not always the optimum.
    """
    # Divided by a power of two, which is exact, so that no sum overflows; the partition doesn't depend on the scale.
    similar = np.ldexp(similar, -int(np.frexp(np.abs(similar).max())[1]))
    search = _best if len(similar) <= EXACT else _searched
    labels = search(similar, bars, max_groups)
    if previous is None or len(np.unique(previous)) > max_groups:
        return labels
    (count, total), (old_count, old_total) = (worth(each, similar, bars) for each in (labels, previous))
    needed = hysteresis * abs(old_total) + _rounding(similar)
    keep = old_count < count or (old_count == count and total - old_total <= needed)
    return previous if keep else labels


def worth(labels: Labels, similar: Array, bars: NDArray[np.bool_]) -> tuple[int, float]:
    """Number of barred pairs inside the groups, and the sum of s over all pairs inside them."""
    inside = np.triu(labels[:, None] == labels, 1)
    return int(bars[inside].sum()), float(similar[inside].sum())


def _rounding(similar: Array) -> float:
    """What two sums over the same pairs can differ by."""
    return float(np.finfo(np.float64).eps * np.abs(similar).sum())


@functools.cache
def partitions(tasks: int) -> tuple[Labels, Array]:
    """All partitions of K tasks: labels (Bell(K), K), and whether each pair i < j is together (Bell(K), K(K-1)/2).

    A partition is a string of labels in which each new label is the smallest unused one. They come in dictionary order.
    """
    labels = np.zeros((1, 1), dtype=np.intp)
    for _ in range(1, tasks):
        choices = labels.max(axis=1) + 2  # Every group so far, or a new one.
        starts = np.cumsum(choices) - choices
        last = np.arange(choices.sum()) - np.repeat(starts, choices)
        labels = np.column_stack([np.repeat(labels, choices, axis=0), last])
    first, second = np.triu_indices(tasks, 1)
    return labels, (labels[:, first] == labels[:, second]).astype(np.float64)


def _best(similar: Array, bars: NDArray[np.bool_], max_groups: int) -> Labels:
    labels, together = partitions(len(similar))
    pairs = np.triu_indices(len(similar), 1)
    counts = np.where(labels.max(axis=1) < max_groups, together @ bars[pairs].astype(np.float64), np.inf)
    totals = np.where(counts == counts.min(), together @ similar[pairs], -np.inf)
    # The first of those that only rounding tells apart, so that ties don't depend on the order of a sum.
    found: Labels = labels[(totals >= totals.max() - _rounding(similar)).argmax()].copy()
    return found


def _searched(similar: Array, bars: NDArray[np.bool_], max_groups: int) -> Labels:
    """Merges of groups and moves of single tasks in turn, until no merge gains."""
    # A barred pair costs more than all others could bring: fewest barred pairs first, in one number.
    value = np.where(bars, similar - 2 * np.abs(similar).sum() - 1, similar)
    np.fill_diagonal(value, 0.0)
    labels = _moved(_merged(np.arange(len(value)), value, max_groups), value, max_groups)
    while len(np.unique(merged := _merged(labels, value, max_groups))) < len(np.unique(labels)):
        labels = _moved(merged, value, max_groups)
    return labels


def _merged(labels: Labels, value: Array, max_groups: int) -> Labels:
    """The two groups whose merging gains most become one, while that gains or there are too many."""
    labels = np.unique(labels, return_inverse=True)[1]
    groups = labels.max() + 1
    member = (labels[:, None] == np.arange(groups)).astype(np.float64)
    between = member.T @ value @ member
    np.fill_diagonal(between, -np.inf)
    for count in range(groups, 1, -1):
        one, other = divmod(int(between.argmax()), groups)
        if count <= max_groups and between[one, other] <= 0:
            break
        between[one] += between[other]
        between[:, one] = between[one]
        between[other] = between[:, other] = between[one, one] = -np.inf
        labels[labels == other] = one
    return labels


def _moved(labels: Labels, value: Array, max_groups: int) -> Labels:
    """The best partition on a walk of single moves from this one.

    Every step makes the move that gains most, or loses least where none gains, and the task then rests: so the walk
    leaves a local optimum (tabu search: Glover, 1989). It ends when it has found nothing better for a while.
    """
    tasks = len(value)
    everyone = np.arange(tasks)
    member = (labels[:, None] == everyone).astype(np.float64)
    bonds = value @ member  # (task, group): what the task's pairs with the group's members are worth.
    sizes = member.sum(axis=0)
    rests = np.zeros(tasks)
    least = _rounding(value)
    labels, best, lead, idle = labels.copy(), labels, 0.0, 0
    for step in range(WALK * tasks):
        if idle == PATIENCE:
            break
        rise = bonds - bonds[everyone, labels][:, None]
        rise[everyone, labels] = -np.inf
        rise[rests > step] = -np.inf
        empty = sizes == 0
        if empty.any():
            rise[:, empty] = -np.inf
            if tasks - empty.sum() < max_groups:  # An empty group is a place to be alone; one is enough.
                place = int(empty.argmax())
                rise[:, place] = np.where((sizes[labels] > 1) & (rests <= step), -bonds[everyone, labels], -np.inf)
        task, target = divmod(int(rise.argmax()), tasks)
        source = labels[task]
        gain = rise[task, target]
        if gain == -np.inf:
            idle += 1
            continue
        bonds[:, source] -= value[:, task]
        bonds[:, target] += value[:, task]
        sizes[source] -= 1
        sizes[target] += 1
        labels[task] = target
        rests[task] = step + 1 + TENURE
        lead += gain
        if lead > least:
            best, lead, idle = labels.copy(), 0.0, 0
        else:
            idle += 1
    return best
