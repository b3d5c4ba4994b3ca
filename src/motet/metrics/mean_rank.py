"""Mean rank of methods over metrics."""

import math
from collections.abc import Mapping, Sequence

from motet.metrics.align import Results, directions_of, names_of, numbers_of


def mean_rank(
    methods: Mapping[str, Results], higher_is_better: Mapping[str, bool] | Sequence[bool] | bool
) -> dict[str, float]:
    """Rank the methods on every metric, 1 = best, and average each one's ranks over the metrics.

    Ties get the competition rank: two that share the best value are both first, the next one is third. This is
    what the published tables use.

    Args:
        methods: One result a metric for every method, all as dicts or all as sequences. Single-task models are
            usually left out.
        higher_is_better: One bool for all metrics, or one a metric.

    Note:
        A mean rank says nothing of sizes, and it depends on which other methods are in the table: name them
        wherever it is shown.

    Raises:
        ValueError: for no method, metrics that do not match, or a value that is not finite.

    >>> mean_rank({"a": [0.9, 0.1], "b": [0.8, 0.1], "c": [0.7, 0.3]}, [True, False])
    {'a': 1.0, 'b': 1.5, 'c': 3.0}
    """
    if not methods:
        raise ValueError("there is no method to rank")
    first, example = next(iter(methods.items()))
    by_name = isinstance(example, Mapping)
    names = names_of(example, f"method {first!r}")
    directions = directions_of(higher_is_better, names, by_name)
    table = {
        method: numbers_of(results, names, f"method {method!r}", f"method {first!r}", by_name)
        for method, results in methods.items()
    }
    ranks: dict[str, list[int]] = {method: [] for method in table}
    for i, higher in enumerate(directions):
        column = [row[i] for row in table.values()]
        for method, row in table.items():
            better = sum(value > row[i] if higher else value < row[i] for value in column)
            ranks[method].append(1 + better)
    return {method: math.fsum(row) / len(row) for method, row in ranks.items()}
