"""One row of the verdict's table: what was observed of an arm, as plain figures."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from motet.study.coverage import Coverage
from motet.study.inference import Observed, holm, level
from motet.study.judgement import Evidence
from motet.study.pairing import Paired, mean
from motet.study.results import SINGLE, SUM, ArmSummary, Groups, Interval, Rule, Run, RunCost
from motet.study.sensitivity import detectable, resampled


@dataclass(frozen=True)
class Observations:
    """What the paired seeds say of one arm."""

    delta_m: Observed
    log_ratio: Observed
    over_sum: Observed
    specialised: Observed
    tasks: dict[str, Observed]
    seeds: list[int]
    """Of which there is a Δm."""


@dataclass(frozen=True)
class Context:
    """What the rows of the table share."""

    rule: Rule
    share: float
    family: int
    holm: Mapping[str, float]
    ranks: Mapping[str, float]
    step_costs: Mapping[str, float]
    covered: Coverage
    ratio: float
    paired: Paired


def of_arm(arm: str, o: Observations, own: Mapping[int, Run], context: Context) -> ArmSummary:
    """Of one arm, from what was observed of it and its paired runs."""
    costs = [run.cost for run in own.values()]
    found = [run.groups for run in own.values() if run.groups]
    worst, change = Evidence(arm, o.delta_m, o.over_sum, o.tasks).worst if arm != SINGLE else ("", 0.0)
    alpha = context.rule.alpha * context.share
    worse = {task: e for task, e in o.tasks.items() if e.low > 0}
    harmed = _harmed(o.tasks, context.rule.alpha)
    return ArmSummary(
        arm=arm,
        seeds=o.delta_m.seeds,
        delta_m=interval(o.delta_m),
        log_ratio=interval(o.log_ratio),
        mean_rank=context.ranks.get(arm, math.nan),
        per_task={task: interval(e) for task, e in o.tasks.items()},
        worst_task=worst,
        worst_change=change,
        harmed=harmed,
        suspected=[task for task in worse if task not in harmed],
        over_sum=interval(o.over_sum),
        p_sum=o.over_sum.p() if arm != SUM else math.nan,
        p_sum_holm=context.holm.get(arm, math.nan),
        p_single=o.delta_m.p() if arm != SINGLE else math.nan,
        mde_sum=detectable(o.over_sum.values, alpha / context.family) if arm not in (SINGLE, SUM) else math.nan,
        mde_single=detectable(o.delta_m.values, alpha) if arm != SINGLE else math.nan,
        specialised=interval(o.specialised),
        delta_m_resampled=resampled(o.delta_m.values, context.ratio, level(context.share)),
        over_sum_resampled=resampled(o.over_sum.values, context.ratio, level(context.share)),
        hypervolume=context.covered.alone.get(arm, math.nan),
        means={task: mean(column) for task, column in zip(o.tasks, context.paired.results[arm].T, strict=True)},
        by_seed=dict(zip(o.seeds, o.delta_m.values.tolist(), strict=True)),
        left_out=context.paired.broken.get(arm, ""),
        seconds_per_step=middle(cost.seconds_per_step for cost in costs),
        step_cost=context.step_costs[arm],
        total_seconds=middle(cost.seconds for cost in costs),
        peak_memory_mib=middle(cost.peak_memory_mib for cost in costs),
        forwards_per_step=middle(cost.forwards_per_step for cost in costs),
        backwards_per_step=middle(cost.backwards_per_step for cost in costs),
        step_length=middle(cost.step_length for cost in costs),
        parameters=_parameters(costs),
        updates=mean(np.array([cost.updates or math.nan for cost in costs])),
        forwards=mean(np.array([cost.forwards or math.nan for cost in costs])),
        groups=mean(np.array([groups.mean for groups in found])),
        unlearnt=sum(groups.warmup is None for groups in found),
        warmup=mean(np.array([g.warmup / g.batches for g in found if g.warmup is not None and g.batches])),
        undivided=sum(map(_undivided, found)),
    )


def _harmed(tasks: Mapping[str, Observed], alpha: float) -> list[str]:
    """Tasks shown to be worse than single-task, with Holm over those that have a result."""
    known = {task: e for task, e in tasks.items() if e.seeds > 0}
    adjusted = holm(e.p() for e in known.values())
    return [task for (task, e), p in zip(known.items(), adjusted, strict=True) if e.low > 0 and p < alpha]


def interval(estimate: Observed) -> Interval:
    """For the table."""
    return Interval(estimate.mean, estimate.low, estimate.high)


def middle(values: Iterable[float]) -> float:
    """The median of the values that are not NaN; NaN without any."""
    finite = [value for value in values if not math.isnan(value)]
    return median(finite) if finite else math.nan


def _undivided(groups: Groups) -> bool:
    return bool(groups.timeline) and all(
        len(part.groups) == 1 or all(len(group) == 1 for group in part.groups) for part in groups.timeline
    )


def _parameters(costs: Sequence[RunCost]) -> int:
    return round(median(cost.parameters for cost in costs)) if costs else 0
