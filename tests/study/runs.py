"""Made-up runs with known effects."""

import numpy as np

from motet.problems.base import Task
from motet.study.results import Run, RunCost


def run(
    arm: str, seed: int, test: dict[str, float], step: float = 0.1, total: float = 10.0, parameters: int = 7
) -> Run:
    cost = RunCost(
        steps=100,
        seconds=total,
        seconds_per_step=step,
        peak_memory_mib=50.0 + seed,
        forwards_per_step=1.0,
        backwards_per_step=2.0,
        parameters=7,
        step_length=0.5,
    )
    return Run(arm, seed, test, {}, {}, [], [], [], cost)


def tasks(count: int) -> list[Task]:
    return [Task(f"t{k}", "regression", "mae") for k in range(count)]


def lower(count: int) -> dict[str, bool]:
    return {f"t{k}": False for k in range(count)}


def study(changes: dict[str, float | list[float]], seeds: int, noise: float = 0.0, count: int = 3) -> list[Run]:
    """Single-task errors that vary by seed, and arms that are worse by so many per cent of task t0, t1, …"""
    generator = np.random.default_rng(0)
    runs = []
    for seed in range(seeds):
        single = 1 + 0.2 * generator.random(count)
        runs.append(run("stl", seed, {f"t{k}": float(v) for k, v in enumerate(single)}))
        for arm, change in changes.items():
            percent = np.broadcast_to(change, count) + noise * generator.standard_normal(count)
            values = single + percent / 100
            runs.append(run(arm, seed, {f"t{k}": float(v) for k, v in enumerate(values)}))
    return runs
