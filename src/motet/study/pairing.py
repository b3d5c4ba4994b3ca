"""Runs of all arms, brought onto the seeds and tasks on which they can be compared."""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from motet.study.inference import Values
from motet.study.results import SINGLE, SUM, Run

LACKS = "it lacks results that other arms have"
"""Why an arm stays out of the decision."""


@dataclass(frozen=True)
class Paired:
    """Results on common seeds: ``results`` per arm (S, K), NaN where an arm has no run or a task is left out."""

    tasks: list[str]
    seeds: list[int]
    runs: dict[str, dict[int, Run]]
    results: dict[str, Values]
    directions: Values
    """(K,): -1 where higher is better, 1 where lower is."""
    compared: Values
    """(K,): 1 for a task that enters Δm, NaN for one that cannot."""
    baseline: dict[str, float]
    broken: dict[str, str]
    """Arms that must stay out of the decision, with the reason."""
    notes: list[str]


def pair(tasks: list[str], runs: Sequence[Run], higher_is_better: Mapping[str, bool]) -> Paired:
    """Bring runs onto common seeds; whatever has to be left out, and why, goes into ``notes``.

    Raises:
        ValueError: as `motet.study.statistics.summarise`.
    """
    by_arm = _by_arm(runs)
    seeds = sorted(by_arm[SINGLE].keys() & by_arm[SUM].keys())
    if not seeds:
        raise ValueError(f"{SINGLE!r} and {SUM!r} have no seed in common: run both with the same seeds")
    notes = ["With one task there is nothing to share: the sum is single-task training."] if len(tasks) == 1 else []
    every = sorted(set().union(*by_arm.values()))
    for arm, own in by_arm.items():
        if missing := [seed for seed in every if seed not in own]:
            notes.append(
                f"{arm} has no run with {listed('seed', missing)}: it is compared with {SINGLE} and {SUM} on the seeds "
                "that it has, and its means and ranks are not of the same seeds as those of other arms."
            )
    paired_runs = {arm: {seed: own[seed] for seed in seeds if seed in own} for arm, own in by_arm.items()}
    results = {arm: _table(own, seeds, tasks) for arm, own in paired_runs.items()}

    broken = dict.fromkeys((arm for arm, own in paired_runs.items() if not own), LACKS)
    for arm, own in paired_runs.items():
        if any(notice.kind == "broke down" for run in own.values() for notice in run.warnings):
            broken[arm] = "its training broke down"
    left_out = ~np.isfinite(results[SINGLE]) | ~np.isfinite(results[SUM])
    for arm, table in results.items():
        run_there = np.array([seed in paired_runs[arm] for seed in seeds])[:, None]
        fails = run_there & ~np.isfinite(table)
        if arm in (SINGLE, SUM):
            fails &= np.any([np.isfinite(other) for other in results.values()], axis=0)
        else:
            fails &= ~left_out
            table[fails.any(axis=1)] = np.nan
        if fails.any():
            broken.setdefault(arm, LACKS)
            where = listed("seed", [seed for seed, fail in zip(seeds, fails, strict=True) if fail.any()])
            what = listed("task", [repr(task) for task, fail in zip(tasks, fails.T, strict=True) if fail.any()])
            notes.append(f"{arm} has no finite result for {what} in {where}, where other arms have one.")
    for table in results.values():
        table[left_out] = np.nan
    for k, task in enumerate(tasks):
        if left_out[:, k].any():
            where = listed("seed", [seed for seed, out in zip(seeds, left_out[:, k], strict=True) if out])
            notes.append(f"Task {task!r} is left out of {where} for all arms: {SINGLE} or {SUM} has no finite result.")

    baseline = {task: mean(results[SINGLE][:, k]) for k, task in enumerate(tasks)}
    compared = np.ones(len(tasks))
    for k, (task, level) in enumerate(baseline.items()):
        column = results[SINGLE][:, k]
        column = column[np.isfinite(column)]
        if math.isnan(level) or level == 0:
            compared[k] = np.nan
            why = "has no finite result in any seed" if math.isnan(level) else "has a single-task result of zero"
            notes.append(f"Task {task!r} {why}, so it has no change in per cent and is left out of Δm.")
        elif len(column) > 1 and column.std(ddof=1) > abs(level) / 2:
            notes.append(
                f"The single-task result of {task!r} is uncertain for its size ({level:.3g}, standard deviation over "
                f"seeds {column.std(ddof=1):.2g}), so its changes in per cent say little."
            )
    if np.isnan(compared).all():
        raise ValueError(
            f"no task has a finite result of both {SINGLE} and {SUM}, and one of {SINGLE} that is not zero: there is "
            "nothing to compare"
        )
    directions = np.array([-1.0 if _direction(higher_is_better, task) else 1.0 for task in tasks])
    return Paired(tasks, seeds, paired_runs, results, directions, compared, baseline, broken, notes)


def _by_arm(runs: Sequence[Run]) -> dict[str, dict[int, Run]]:
    by_arm: dict[str, dict[int, Run]] = {}
    for run in runs:
        own = by_arm.setdefault(run.arm, {})
        if run.seed in own:
            raise ValueError(f"arm {run.arm!r} has two runs with seed {run.seed}: keep one")
        own[run.seed] = run
    for arm in (SINGLE, SUM):
        if arm not in by_arm:
            raise ValueError(
                f"there is no run of {arm!r}, with which every arm is compared: have {joined(by_arm) or 'none'}"
            )
    return by_arm


def _table(own: Mapping[int, Run], seeds: Sequence[int], tasks: Sequence[str]) -> Values:
    table = np.full((len(seeds), len(tasks)), np.nan)
    for row, seed in enumerate(seeds):
        if seed in own:
            table[row] = [_result(own[seed], task) for task in tasks]
    return table


def _result(run: Run, task: str) -> float:
    if task not in run.test:
        raise ValueError(f"run {run.arm!r} with seed {run.seed} has no result of task {task!r}{_near(task, run.test)}")
    return run.test[task]


def _direction(higher_is_better: Mapping[str, bool], task: str) -> bool:
    if task not in higher_is_better:
        raise ValueError(f"higher_is_better has no task {task!r}{_near(task, higher_is_better)}")
    return higher_is_better[task]


def mean(column: Values) -> float:
    """Of the finite entries; NaN without any."""
    finite = column[np.isfinite(column)]
    return float(finite.mean()) if len(finite) else math.nan


def listed(noun: str, items: Sequence[object]) -> str:
    """ "seed 3", "seeds 3 and 4"."""
    return f"{noun}{'s' if len(items) > 1 else ''} {joined(map(str, items))}"


def joined(parts: Iterable[str], word: str = "and") -> str:
    """ "a", "a and b", "a, b and c"."""
    *head, last = [*parts] or [""]
    return f"{', '.join(head)} {word} {last}" if head else last


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else f": it has {joined(known) or 'none'}"
