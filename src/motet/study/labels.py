"""Which training rows have labels of which tasks: tasks with few rows in common say little of each other."""

from itertools import combinations

import torch

from motet.problems.base import Data
from motet.study.results import Labels

FEW = 0.3
"""Share of labelled rows in common below which a measured affinity is mostly noise."""


def labels(data: Data) -> Labels:
    """Of the training rows."""
    targets = data.train.targets
    known = {
        task.name: targets[task.name] >= 0 if task.kind == "multiclass" else ~targets[task.name].isnan()
        for task in data.tasks
    }
    share = {name: float(rows.double().mean()) if len(rows) else 0.0 for name, rows in known.items()}
    if len(known) < 2:
        return Labels(share)
    rows = torch.stack([*known.values()]).double()
    both = rows @ rows.T
    single = both.diagonal()
    either = single[:, None] + single - both
    shared = torch.where(either > 0, both / either, 0.0).tolist()
    names = list(known)
    i, j = min(combinations(range(len(names)), 2), key=lambda pair: shared[pair[0]][pair[1]])
    return Labels(share, [names[i], names[j]], shared[i][j])


def few_in_common(found: Labels | None) -> str:
    """A caution where affinities and groups are shown; empty where all tasks have enough rows in common."""
    if found is None or not found.shared < FEW:
        return ""
    a, b = found.least
    return (
        f"{a!r} and {b!r} have {100 * found.shared:.0f} % of their labelled training rows in common. Below "
        f"{100 * FEW:.0f} % a measured effect of one task on another, and groups made of it, are mostly noise."
    )
