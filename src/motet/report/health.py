"""The report's section on health: what went wrong, or may have, in training, by arm and by task."""

import math
from collections.abc import Sequence
from typing import Any

from motet.problems.base import Task
from motet.study.results import SINGLE, Labels, Run

KINDS = {
    "broke down": "Broke down",
    "last epoch": "Best epoch\namong the last",
    "unconverged": "Solver at\nits limit",
    "warm-up": "Warm-up\nnot over",
    "stand-in": "Stand-in",
    "second batch": "Second batch",
}
"""Kinds of notices, as heads of columns. The first two are always shown: a zero there is worth knowing."""


def section(tasks: Sequence[Task], runs: Sequence[Run], labels: Labels | None = None) -> dict[str, Any] | None:
    """Plain values for the template; None without runs. ``labels`` are those of the training rows, where known."""
    if not runs:
        return None
    seen = {notice.kind for run in runs for notice in run.warnings}
    kinds = [kind for i, kind in enumerate(KINDS) if i < 2 or kind in seen]
    share = labels.share if labels is not None else {}
    per_task = [_task(task.name, runs) | {"labelled": share.get(task.name, math.nan)} for task in tasks]
    return {
        "labels": bool(share),
        "kinds": [(kind, KINDS[kind].split("\n")) for kind in kinds],
        "arms": [_arm(arm, kinds, runs) for arm in dict.fromkeys(run.arm for run in runs)],
        "batches": all(row["absent"] == 0 for row in per_task),
        "troubled": [
            row
            for row in per_task
            if row["nothing"] or row["epochs"] or row["unseen"] or row["absent"] > 0 or row["labelled"] < 1
        ],
    }


def _arm(arm: str, kinds: Sequence[str], runs: Sequence[Run]) -> dict[str, Any]:
    own = [run for run in runs if run.arm == arm]
    counts = {kind: sum(any(n.kind == kind for n in run.warnings) for run in own) for kind in kinds}
    nothing = sum(not math.isfinite(value) for run in own for value in run.test.values())
    return {"arm": arm, "runs": len(own), "counts": counts, "nothing": nothing}


def _task(task: str, runs: Sequence[Run]) -> dict[str, Any]:
    """Of all arms together."""
    curves = [(epoch, run) for run in runs for epoch in run.curve if task in epoch.validation]
    unknown = [epoch for epoch, _ in curves if not math.isfinite(epoch.validation[task])]
    unseen = [epoch for epoch, _ in curves if not math.isfinite(epoch.train_loss.get(task, 0.0))]
    return {
        "task": task,
        "nothing": sum(task in run.test and not math.isfinite(run.test[task]) for run in runs),
        "epochs": len(unknown),
        "unseen": len(unseen),
        "absent": _absent(task, runs),
    }


def _absent(task: str, runs: Sequence[Run]) -> float:
    """Share of the recorded batches in which a task had no label: it then has no weight. NaN where none tells."""
    steps = [step.of for run in runs if run.arm != SINGLE for step in run.weights]
    return sum(task not in of for of in steps) / len(steps) if steps else math.nan
