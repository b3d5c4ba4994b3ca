"""The report's list of runs: what every number of the tables was made of, seed by seed, and how to make it again."""

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from motet.metrics.tasks import METRICS
from motet.problems.base import Task
from motet.report import numbers
from motet.study.results import SINGLE, Run, Summary


def section(tasks: Sequence[Task], summary: Summary, runs: Sequence[Run], folder: str) -> list[dict[str, Any]]:
    """One entry an arm with its results by task and seed, and its runs; empty where no runs were handed over.

    Args:
        folder: Of the study, for paths and commands; empty where the runs lie in none.
    """
    changes = delta_m(tasks, summary, runs)
    found = []
    for place, arm in enumerate(dict.fromkeys(run.arm for run in runs)):
        own = [run for run in runs if run.arm == arm]
        found.append(
            {
                "arm": arm,
                "place": place,
                "seeds": [run.seed for run in own],
                "delta_m": [changes.get((arm, run.seed), math.nan) for run in own] if arm != SINGLE else [],
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


def delta_m_by_seed(tasks: Sequence[Task], summary: Summary, runs: Sequence[Run]) -> dict[str, str]:
    """{arm: its Δm, seed by seed}."""
    found: dict[str, list[str]] = {}
    for (arm, seed), value in delta_m(tasks, summary, runs).items():
        found.setdefault(arm, []).append(f"{seed}: {numbers.change(value)}")
    return {arm: told(parts) for arm, parts in found.items()}


def times(runs: Sequence[Run]) -> dict[str, str]:
    """{arm: the time of its training, seed by seed}."""
    found: dict[str, list[str]] = {}
    for run in runs:
        found.setdefault(run.arm, []).append(f"{run.seed}: {numbers.seconds(run.cost.seconds)}")
    return {arm: told(parts) for arm, parts in found.items()}


def told(parts: Sequence[str]) -> str:
    """By seed 0: …, 1: …"""
    return f"By seed\n{chr(10).join(parts)}"


def delta_m(tasks: Sequence[Task], summary: Summary, runs: Sequence[Run]) -> dict[tuple[str, int], float]:
    """{(arm, seed): Δm} against single-task of the same seed, over the tasks with a finite result of both."""
    single = {run.seed: run.test for run in runs if run.arm == SINGLE}
    found = {}
    for run in runs:
        if run.seed in single:
            parts = [_change(task, run.test, single[run.seed], summary.baseline) for task in tasks]
            known = [part for part in parts if math.isfinite(part)]
            found[run.arm, run.seed] = sum(known) / len(known) if known else math.nan
    return found


def _change(task: Task, test: Mapping[str, float], single: Mapping[str, float], baseline: Mapping[str, float]) -> float:
    level = baseline[task.name]
    if not level or not math.isfinite(level):
        return math.nan
    sign = -1 if METRICS[task.metric].higher_is_better else 1
    return 100 * sign * (test.get(task.name, math.nan) - single.get(task.name, math.nan)) / abs(level)


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
