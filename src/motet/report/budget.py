"""The report's section on equal cost: what each arm reaches for what the plain sum's whole training took."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from motet.metrics import METRICS
from motet.problems.base import Task
from motet.report.figures.budget import beyond, budget_curves
from motet.report.numbers import MISSING, bounds, change, plain, seconds
from motet.report.svg import inline
from motet.study.budgets import CLOCKS, Curve, Ledger, Stopped, disagreements, ledger
from motet.study.pairing import pair
from motet.study.results import SUM, Run, Summary
from motet.study.sequential import look_at


def section(summary: Summary, runs: Sequence[Run], tasks: Sequence[Task]) -> dict[str, Any]:
    """Plain values for the template. Where nothing can be told, ``why`` says so and the rest is empty."""
    found, why = _found(runs, tasks, look_at(summary.rule, summary.verdict.seeds).share)
    arms = [arm for arm in summary.arms if arm.arm in found.arms]
    stopped, curves = found.stopped(), found.curves()
    sum_memory = next((arm.peak_memory_mib for arm in summary.arms if arm.arm == SUM), float("nan"))
    return {
        "why": why,
        "clocks": [
            {"name": words, "unit": seconds(found.units[clock]) if clock == "seconds" else plain(found.units[clock], 0)}
            for clock, words in CLOCKS.items()
            if clock in found.units
        ],
        "sentences": disagreements(found, summary.rule.alpha),
        "figures": _figures(found, curves, [arm.arm for arm in summary.arms], stopped),
        "beyond": beyond(curves) if curves else [],
        "rows": [
            {
                "arm": arm.arm,
                "whole": arm.delta_m,
                "over_sum": arm.over_sum,
                "stopped": [by_arm[arm.arm] for by_arm in stopped.values()],
                "memory": arm.peak_memory_mib,
                "memory_ratio": arm.peak_memory_mib / sum_memory if sum_memory > 0 else float("nan"),
            }
            for arm in arms
        ],
        "noise": _noise([run for run in runs if run.arm in found.arms]),
        "lacking": [f"{arm}: {reason}" for arm, reason in found.lacking.items()] if found.arms else [],
    }


def _found(runs: Sequence[Run], tasks: Sequence[Task], share: float) -> tuple[Ledger, str]:
    higher = {task.name: METRICS[task.metric].higher_is_better for task in tasks}
    try:
        found = ledger(pair([task.name for task in tasks], runs, higher), share)
    except ValueError as error:
        return Ledger({}, {}, {}), f"Nothing can be told of results at equal cost: {error}."
    if found.arms:
        return found, ""
    return found, (
        f"Results at equal cost are not known: {SUM}: {found.lacking[SUM]}. Runs of this version of motet tell them; "
        "those of older ones have to be trained again, in a new folder."
    )


def _noise(runs: Sequence[Run]) -> float:
    """How many times longer the usual step took in an arm's slowest seed than in its fastest, in the worst arm."""
    steps: dict[str, list[float]] = {}
    for run in runs:
        if run.cost.seconds_per_step > 0:
            steps.setdefault(run.arm, []).append(run.cost.seconds_per_step)
    return max((max(own) / min(own) for own in steps.values()), default=float("nan"))


def _figures(
    found: Ledger,
    curves: Mapping[str, Mapping[str, Curve]],
    arms: Sequence[str],
    stopped: Mapping[str, Mapping[str, Stopped]],
) -> list[Markup]:
    return [
        inline(
            budget_curves(found, [clock], 1, key=False, arms=arms, curves=curves),
            f"budget-{clock}",
            f"Δm against cost in {CLOCKS[clock]}",
            "At the plain sum's cost: "
            + "; ".join(f"{arm} {_words(by_arm)}" for arm, by_arm in stopped[clock].items()),
        )
        for clock in found.units
        if curves[clock]
    ]


def _words(at: Stopped) -> str:
    return (
        MISSING if at.delta_m.mean != at.delta_m.mean else f"{change(at.delta_m.mean)} % {bounds(at.delta_m)}".strip()
    )
