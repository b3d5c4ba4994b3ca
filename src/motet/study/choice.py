"""Which epoch of a run counts, told from validation results."""

import math
import statistics
from collections.abc import Mapping, Sequence

from motet.metrics import METRICS
from motet.problems.base import Task


def score(tasks: Sequence[Task], validation: Mapping[str, float], reference: Mapping[str, float] | None) -> float:
    """What the best epoch is best in; higher is better.

    A single-task model is judged by its metric. A shared model is judged by the mean relative gain over
    ``reference``, the single-task models' validation results, which is -Δm/100. A task whose reference is undefined
    or zero has no relative gain in any epoch and is left out of all; if that leaves no task, the mean of the metrics
    themselves must do. A task that is undefined in this epoch alone makes the epoch the worst: -inf.
    """
    signs = {task.name: 1 if METRICS[task.metric].higher_is_better else -1 for task in tasks}
    bases = {name: reference[name] if reference is not None else math.nan for name in signs}
    compared = [name for name, base in bases.items() if math.isfinite(base) and base != 0]
    if compared:
        gains = [signs[name] * (validation[name] - bases[name]) / abs(bases[name]) for name in compared]
    else:
        gains = [sign * validation[name] for name, sign in signs.items()]
    return statistics.fmean(gains) if all(map(math.isfinite, gains)) else -math.inf
