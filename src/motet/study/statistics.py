"""From finished runs to the verdict's table: pairing by seed, changes against single-task, intervals, tests, costs."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import median

import numpy as np

from motet.metrics.mean_rank import mean_rank
from motet.problems.base import Task
from motet.study import caveats
from motet.study.inference import Observed, Values, observe
from motet.study.judgement import Evidence, above, adjusted_p, below
from motet.study.pairing import Paired, listed, mean, pair
from motet.study.results import SINGLE, SUM, ArmSummary, Comparison, Groups, Interval, Rule, Run, RunCost, Summary
from motet.study.roles import role
from motet.study.verdict import decide

DEFAULT_RULE = Rule()


def summarise(
    tasks: Sequence[Task],
    runs: Sequence[Run],
    rule: Rule = DEFAULT_RULE,
    *,
    higher_is_better: Mapping[str, bool],
    notes: Sequence[str] = (),
) -> Summary:
    r"""Compare all arms with single-task and the plain sum, paired by seed, and decide.

    The change of task k in seed s, in per cent and positive where the arm is worse, is

        cₛₖ = 100 · signₖ · (Mₛₖ - Bₛₖ) / |B̄ₖ|

    with the arm's result M and the single-task result B of the *same* seed, and the MEAN B̄ₖ of the single-task
    results over seeds. Pairing the numerator takes the difficulty of a seed's split out. A common denominator keeps
    one seed with a result near zero from dominating, makes the mean of Δmₛ = meanₖ cₛₖ over seeds the Δm of the mean
    results, as published tables have it, and lets single-task cancel where two arms are compared. The price: the
    intervals take B̄ₖ as known, which understates them where changes are large *and* B̄ₖ is uncertain.

    An arm enters with the seeds that it has in common with both single-task and the sum. A task that is undefined
    for these two in a seed (AUROC on one class) is left out of that seed for all arms. A candidate without a finite
    result where they have one loses that seed and is left out of the decision, and so is every arm whose training
    broke down in a seed.

    Mean ranks are those of the mean changes, single-task left out, over the arms of the table. Costs are medians
    over the arm's paired seeds, numbers of optimizer steps and forward passes are means. All reasons for leaving
    something out are among the verdict's reasons.

    Arms that learn groups are also compared with each of their controls, by the same differences of Δm, intervals and
    tests as with the sum. The tests are not adjusted for their number: a gain is the grouping's only if *every* control
    is beaten, and that claim errs only if the test errs on the one control that is not.

    Args:
        tasks: The tasks to be compared.
        runs: Finished runs in any order; single-task and the sum must be among them.
        rule: When to adopt.
        higher_is_better: The direction of each task's metric.
        notes: What else the verdict's reasons must say, about the data or how the study was run.

    Raises:
        ValueError: if single-task or the sum is missing or they share no seed, for two runs of one arm with one
            seed, for a task without a result or a direction, or if no task is left to compare.

    Cost:
        About 0.2 s for 10 arms, 10 seeds and 14 tasks.
    """
    paired = pair([task.name for task in tasks], runs, higher_is_better)
    observed = _observe(paired)
    shared = [arm for arm in paired.runs if arm != SINGLE]
    costs = {arm: [run.cost for run in by_seed.values()] for arm, by_seed in paired.runs.items()}
    step_costs = {arm: _step_cost(paired.runs[arm], paired.runs[SUM]) for arm in paired.runs}
    evidence = [
        Evidence(arm, o.delta_m, o.over_sum, o.tasks, arm not in paired.broken, step_costs[arm])
        for arm, o in observed.items()
        if arm != SINGLE
    ]
    holm = adjusted_p([e for e in evidence if e.arm != SUM])
    ranks = _ranks({arm: observed[arm].tasks for arm in shared})
    rows = []
    for arm, o in observed.items():
        found = [run.groups for run in paired.runs[arm].values() if run.groups]
        worst, change = Evidence(arm, o.delta_m, o.over_sum, o.tasks).worst if arm != SINGLE else ("", 0.0)
        rows.append(
            ArmSummary(
                arm=arm,
                seeds=o.delta_m.seeds,
                delta_m=_interval(o.delta_m),
                log_ratio=_interval(o.log_ratio),
                mean_rank=ranks.get(arm, math.nan),
                per_task={task: _interval(e) for task, e in o.tasks.items()},
                worst_task=worst,
                worst_change=change,
                harmed=[task for task, e in o.tasks.items() if e.low > 0],
                over_sum=_interval(o.over_sum),
                p_sum=o.over_sum.p() if arm != SUM else math.nan,
                p_sum_holm=holm.get(arm, math.nan),
                p_single=o.delta_m.p() if arm != SINGLE else math.nan,
                seconds_per_step=_median(cost.seconds_per_step for cost in costs[arm]),
                step_cost=step_costs[arm],
                total_seconds=_median(cost.seconds for cost in costs[arm]),
                peak_memory_mib=_median(cost.peak_memory_mib for cost in costs[arm]),
                forwards_per_step=_median(cost.forwards_per_step for cost in costs[arm]),
                backwards_per_step=_median(cost.backwards_per_step for cost in costs[arm]),
                step_length=_median(cost.step_length for cost in costs[arm]),
                parameters=_parameters(costs[arm]),
                updates=mean(np.array([cost.updates or math.nan for cost in costs[arm]])),
                forwards=mean(np.array([cost.forwards or math.nan for cost in costs[arm]])),
                groups=mean(np.array([groups.mean for groups in found])),
                unlearnt=sum(groups.warmup is None for groups in found),
                warmup=mean(np.array([g.warmup / g.batches for g in found if g.warmup is not None and g.batches])),
                undivided=sum(map(_undivided, found)),
            )
        )
    left_out = [f"{arm} is left out of the decision: {why}." for arm, why in paired.broken.items()]
    reasons = [*left_out, *paired.notes, *caveats.of_runs(runs), *notes]
    verdict = decide(evidence, rule, len(paired.seeds), SINGLE not in paired.broken, reasons)
    return Summary(rows, verdict, rule, paired.baseline, _against_controls(paired, rule))


@dataclass(frozen=True)
class _Observed:
    delta_m: Observed
    log_ratio: Observed
    over_sum: Observed
    tasks: dict[str, Observed]


def _observe(paired: Paired) -> dict[str, _Observed]:
    changes = _changes(paired)
    logs = _logs(paired)
    delta_m = {arm: _row_means(table) for arm, table in changes.items()}
    rows: list[Values] = []
    for arm, table in changes.items():
        rows += [delta_m[arm], _row_means(logs[arm]), delta_m[arm] - delta_m[SUM], *table.T]
    found = iter(observe(rows))
    return {
        arm: _Observed(next(found), next(found), next(found), {task: next(found) for task in paired.tasks})
        for arm in changes
    }


def _changes(paired: Paired) -> dict[str, Values]:
    """Changes against single-task in per cent (S, K)."""
    level = np.array(list(paired.baseline.values())) * paired.compared  # NaN rather than a division by zero
    scale = 100 * paired.directions / np.abs(level)
    single = paired.results[SINGLE]
    return {arm: (table - single) * scale for arm, table in paired.results.items()}


def _against_controls(paired: Paired, rule: Rule) -> list[Comparison]:
    """Every arm that learns groups against the sum and every control that did not break down."""
    delta_m = {arm: _row_means(table) for arm, table in _changes(paired).items() if arm not in paired.broken}
    learning = [arm for arm in delta_m if role(arm) == "groups"]
    controls = [arm for arm in delta_m if arm == SUM or role(arm) not in (None, "groups")]
    pairs = list(product(learning, controls))
    found = observe([delta_m[arm] - delta_m[control] for arm, control in pairs])
    return [
        Comparison(arm, control, _interval(o), o.p(), below(o, 0.0, rule.alpha), above(o, 0.0, rule.alpha))
        for (arm, control), o in zip(pairs, found, strict=True)
    ]


def _logs(paired: Paired) -> dict[str, Values]:
    """Log-ratios to single-task in per cent (S, K); NaN for a task with a result that is not positive in any run."""
    stacked = np.stack(list(paired.results.values()))
    positive = [not (stacked[:, :, k] <= 0).any() for k in range(len(paired.tasks))]
    if names := [task for task, ok in zip(paired.tasks, positive, strict=True) if not ok]:
        paired.notes.append(f"The log-ratio leaves out {listed('task', names)}: not all results are positive.")
    logs = {arm: np.log(np.where(positive, table, np.nan)) for arm, table in paired.results.items()}
    return {arm: 100 * paired.directions * (table - logs[SINGLE]) for arm, table in logs.items()}


def _ranks(arms: Mapping[str, Mapping[str, Observed]]) -> dict[str, float]:
    """Mean ranks of the mean changes, over the tasks for which every arm that has a seed has a change."""
    means = {arm: {task: e.mean for task, e in tasks.items()} for arm, tasks in arms.items()}
    means = {arm: row for arm, row in means.items() if not all(map(math.isnan, row.values()))}
    common = [
        task for task in next(iter(means.values()), {}) if all(math.isfinite(row[task]) for row in means.values())
    ]
    if not common:
        return {}
    # Results that agree up to rounding of their mean are tied.
    return mean_rank({arm: {task: round(row[task], 9) for task in common} for arm, row in means.items()}, False)


def _step_cost(own: Mapping[int, Run], the_sum: Mapping[int, Run]) -> float:
    pairs = [(run.cost.seconds_per_step, the_sum[seed].cost.seconds_per_step) for seed, run in own.items()]
    return _median(seconds / base for seconds, base in pairs if base > 0)


def _interval(estimate: Observed) -> Interval:
    return Interval(estimate.mean, estimate.low, estimate.high)


def _undivided(groups: Groups) -> bool:
    return bool(groups.timeline) and all(
        len(part.groups) == 1 or all(len(group) == 1 for group in part.groups) for part in groups.timeline
    )


def _parameters(costs: Sequence[RunCost]) -> int:
    return round(median(cost.parameters for cost in costs)) if costs else 0


def _median(values: Iterable[float]) -> float:
    finite = [value for value in values if not math.isnan(value)]
    return median(finite) if finite else math.nan


def _row_means(table: Values) -> Values:
    """Mean over tasks of every seed; NaN for a seed without any."""
    return np.array([mean(row) for row in table])
