"""Δm, by how much many tasks trained together are worse than each trained alone: Maninis et al., CVPR 2019."""

import math
from collections.abc import Hashable, Mapping, Sequence

from motet.metrics.align import Results, directions_of, names_of, numbers_of, values_of

Directions = Mapping[str, bool] | Sequence[bool] | bool
Groups = Mapping[str, Hashable] | Sequence[Hashable]


def delta_m(results: Results, baseline: Results, higher_is_better: Directions, tasks: Groups | None = None) -> float:
    r"""Mean change against the baseline in per cent, signed so that positive is worse and lower is better.

        Δm = 100/S · Σᵢ sᵢ (Mᵢ - Bᵢ) / |Bᵢ|,   sᵢ = -1 where higher is better, +1 where lower is

    over S METRICS, as in the published tables of NYUv2, Cityscapes, CelebA and QM9: a task with five
    metrics counts five times. With ``tasks`` the mean is first taken within each task, then over tasks.

    The modulus matters only for a negative baseline, such as an R² below zero: without it a better result
    would count as worse.

    Args:
        results: M, one value a metric, as a dict or a sequence.
        baseline: B, usually of single-task models, with the same metrics.
        higher_is_better: One bool for all metrics, or one a metric.
        tasks: The task of each metric. Default: every metric counts the same.

    Note:
        A metric whose baseline is close to zero dominates Δm: 0.02 instead of 0.01 is 100 per cent. See
        `log_ratio` for a mean in which a doubling and a halving weigh the same.

    Raises:
        ValueError: for metrics that do not match, a value that is not finite, or a baseline of zero.

    >>> delta_m({"mIoU": 40.0, "error": 0.6}, {"mIoU": 50.0, "error": 0.5}, {"mIoU": True, "error": False})
    20.0
    """
    names, values, reference, directions = _aligned(results, baseline, higher_is_better)
    for name, b in zip(names, reference, strict=True):
        if b == 0:
            raise ValueError(
                f"the baseline of {name!r} is zero, so no change in per cent exists: leave this metric out"
            )
    changes = [
        100 * (b - m if higher else m - b) / abs(b) for m, b, higher in zip(values, reference, directions, strict=True)
    ]
    return _mean(changes, names, tasks, isinstance(results, Mapping))


def log_ratio(results: Results, baseline: Results, higher_is_better: Directions, tasks: Groups | None = None) -> float:
    r"""Mean logarithm of the ratio to the baseline in per cent; positive is worse, as in Δm.

        100/S · Σᵢ sᵢ log(Mᵢ / Bᵢ),   sᵢ as in `delta_m`

    Swapping results and baseline changes only the sign, so a doubling (69.3) and a halving (-69.3) weigh the
    same; small changes agree with Δm. A metric of which more is better (accuracy, AUROC, F1, R²) enters as its
    own ratio, B/M, and is not turned into an error such as 1 - M: that would need its maximum, which not every
    metric has, and would blow up as it is reached.

    Args:
        results: M > 0, one value a metric, as a dict or a sequence.
        baseline: B > 0, with the same metrics.
        higher_is_better: One bool for all metrics, or one a metric.
        tasks: The task of each metric. Default: every metric counts the same.

    Raises:
        ValueError: for metrics that do not match, or a value that is not finite or not positive.

    >>> round(log_ratio([0.2], [0.1], higher_is_better=False), 1), round(log_ratio([0.1], [0.2], False), 1)
    (69.3, -69.3)
    """
    names, values, reference, directions = _aligned(results, baseline, higher_is_better)
    for name, m, b in zip(names, values, reference, strict=True):
        if min(m, b) <= 0:
            raise ValueError(f"{name!r} is {min(m, b)}, and a log-ratio needs positive values: leave this metric out")
    changes = [
        100 * (math.log(b) - math.log(m) if higher else math.log(m) - math.log(b))
        for m, b, higher in zip(values, reference, directions, strict=True)
    ]
    return _mean(changes, names, tasks, isinstance(results, Mapping))


def _aligned(
    results: Results, baseline: Results, higher_is_better: Directions
) -> tuple[list[str], list[float], list[float], list[bool]]:
    by_name = isinstance(results, Mapping)
    names = names_of(results, "results")
    values = numbers_of(results, names, "results", "results", by_name)
    reference = numbers_of(baseline, names, "the baseline", "results", by_name)
    return names, values, reference, directions_of(higher_is_better, names, by_name)


def _mean(changes: list[float], names: list[str], tasks: Groups | None, by_name: bool) -> float:
    if tasks is None:
        return math.fsum(changes) / len(changes)
    groups: dict[Hashable, list[float]] = {}
    for task, change in zip(values_of(tasks, names, "tasks", "results", by_name), changes, strict=True):
        groups.setdefault(task, []).append(change)
    return math.fsum(math.fsum(group) / len(group) for group in groups.values()) / len(groups)
