"""The report's list of runs: what every number of the tables was made of, seed by seed, and how to make it again."""

import math
import shlex
from collections.abc import Sequence
from typing import Any

from motet.problems.base import Task
from motet.report import numbers
from motet.study.results import SINGLE, Run, Summary


def section(tasks: Sequence[Task], summary: Summary, runs: Sequence[Run], folder: str) -> list[dict[str, Any]]:
    """One entry an arm with its results by task and seed, and its runs; empty where no runs were handed over.

    Args:
        folder: Of the study, for paths and commands; empty where the runs lie in none.
    """
    changes = {arm.arm: arm.by_seed for arm in summary.arms}
    found = []
    for place, arm in enumerate(dict.fromkeys(run.arm for run in runs)):
        own = [run for run in runs if run.arm == arm]
        found.append(
            {
                "arm": arm,
                "place": place,
                "seeds": [run.seed for run in own],
                "delta_m": [changes[arm].get(run.seed, math.nan) for run in own] if arm != SINGLE else [],
                "rows": [
                    {"task": task, "results": [run.test.get(task.name, math.nan) for run in own]} for task in tasks
                ],
                "runs": [_run(run, place, folder) for run in own],
            }
        )
    return found


def by_seed(runs: Sequence[Run], task: str) -> dict[str, str]:
    """{arm: its results of a task, seed by seed}, for whoever points at a number."""
    found: dict[str, list[str]] = {}
    for run in runs:
        found.setdefault(run.arm, []).append(f"{run.seed}: {numbers.measure(run.test.get(task, math.nan))}")
    return {arm: told(parts) for arm, parts in found.items()}


def delta_m_by_seed(summary: Summary) -> dict[str, str]:
    """{arm: its Δm, seed by seed}."""
    return {
        arm.arm: told([f"{seed}: {numbers.change(value)}" for seed, value in arm.by_seed.items()])
        for arm in summary.arms
        if arm.by_seed
    }


def times(runs: Sequence[Run]) -> dict[str, str]:
    """{arm: the time of its training, seed by seed}."""
    found: dict[str, list[str]] = {}
    for run in runs:
        found.setdefault(run.arm, []).append(f"{run.seed}: {numbers.seconds(run.cost.seconds)}")
    return {arm: told(parts) for arm, parts in found.items()}


def told(parts: Sequence[str]) -> str:
    """By seed 0: …, 1: …"""
    return f"By seed\n{chr(10).join(parts)}"


def _run(run: Run, place: int, folder: str) -> dict[str, Any]:
    name = str(run.provenance.get("id", f"seed {run.seed}"))
    path = f"{folder.rstrip('/')}/runs/{name}" if folder and "id" in run.provenance else ""
    best = sorted(set(run.best_epoch.values()))
    return {
        "anchor": f"run-{place}-{run.seed}",
        "id": name,
        "seed": run.seed,
        "best": "–" if not best else str(best[0]) if len(best) == 1 else f"{best[0]} to {best[-1]}",
        "best_key": max(best, default=""),
        "epochs": len(run.curve),
        "seconds": run.cost.seconds,
        "warnings": list(dict.fromkeys(notice.text for notice in run.warnings)),
        "path": f"runs/{name}" if path else "",
        "command": f"motet repro {shlex.quote(path)}" if path else "",
    }
