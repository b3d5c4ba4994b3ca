"""From finished runs to the verdict's table: pairing by seed, changes against single-task, intervals, tests, costs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from motet.metrics.mean_rank import mean_rank
from motet.problems.base import Task
from motet.study import budgets, caveats, crosschecks
from motet.study.coverage import covered
from motet.study.fairness import of_step_lengths, of_tuning, refusal
from motet.study.inference import Observed, Values, level, observe
from motet.study.judgement import Evidence, above, adjusted_p, below
from motet.study.pairing import LACKS, Paired, listed, mean, pair
from motet.study.results import (
    SINGLE,
    SUM,
    Comparison,
    Rule,
    Run,
    Summary,
    Tuning,
)
from motet.study.roles import role
from motet.study.rows import Context, Observations, interval, middle, of_arm
from motet.study.sequential import look_at
from motet.study.verdict import decide

DEFAULT_RULE = Rule()


def summarise(
    tasks: Sequence[Task],
    runs: Sequence[Run],
    rule: Rule = DEFAULT_RULE,
    *,
    higher_is_better: Mapping[str, bool],
    notes: Sequence[str] = (),
    tuning: Tuning | None = None,
    rows_recur: bool = False,
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

    If the rule has planned looks, every interval and p-value is that of this look (`motet.study.sequential`), and a
    candidate that lacks one of its seeds is left out of the decision. No verdict is given on arms that were tuned with
    unequal numbers of trials (`motet.study.fairness`).

    Arms that learn groups are also compared with each of their controls, by the same differences of Δm, intervals and
    tests as with the sum. The tests are not adjusted for their number: a gain is the grouping's only if *every* control
    is beaten, and that claim errs only if the test errs on the one control that is not.

    Args:
        tasks: The tasks to be compared.
        runs: Finished runs in any order; single-task and the sum must be among them.
        rule: When to adopt.
        higher_is_better: The direction of each task's metric.
        notes: What else the verdict's reasons must say, about the data or how the study was run.
        tuning: How the arms were tuned, if they were.
        rows_recur: Whether seeds that differ in their data split the same rows anew. Then, where the runs'
            ``provenance`` has the numbers of ``rows`` ({"train": …, "test": …}), intervals with a corrected variance
            are given for information.

    Raises:
        ValueError: if the looks of the rule are not increasing, if single-task or the sum is missing or they share no
            seed, for two runs of one arm with one seed, for a task without a result or a direction, or if no task is
            left to compare.

    Cost:
        About 0.2 s for 10 arms, 10 seeds and 14 tasks.
    """
    paired = pair([task.name for task in tasks], runs, higher_is_better)
    rows_recur = rows_recur and not caveats.same_data(runs)
    look = look_at(rule, len(paired.seeds))
    if rule.looks:
        for arm, own in paired.runs.items():
            if 0 < len(own) < look.seeds:
                paired.broken.setdefault(arm, f"it has {len(own)} of the {look.seeds} seeds of this look")
    logs, same_tasks = _logs(paired)
    observed = _observe(paired, logs, look.share)
    shared = [arm for arm in paired.runs if arm != SINGLE]
    for arm in shared:
        if not observed[arm].over_sum.seeds:
            paired.broken.setdefault(arm, LACKS)
    step_costs = {arm: _step_cost(paired.runs[arm], paired.runs[SUM]) for arm in paired.runs}
    evidence = [
        Evidence(arm, o.delta_m, o.over_sum, o.tasks, arm not in paired.broken, step_costs[arm], _ruined(arm, paired))
        for arm, o in observed.items()
        if arm != SINGLE
    ]
    holm = adjusted_p([e for e in evidence if e.arm != SUM])
    usable = [arm for arm in observed if arm not in paired.broken]
    context = Context(
        rule=rule,
        share=look.share,
        family=max(len(holm), 1),
        holm=holm,
        ranks=_ranks({arm: observed[arm].tasks for arm in shared}),
        step_costs=step_costs,
        covered=covered({arm: _means(observed[arm].tasks, paired) for arm in usable}, rule.worst_task),
        ratio=_test_over_train(runs) if rows_recur else math.nan,
        paired=paired,
    )
    rows = [of_arm(arm, o, paired.runs[arm], context) for arm, o in observed.items()]
    refused, remedy = refusal(runs)
    verdict = decide(evidence, rule, len(paired.seeds), SINGLE not in paired.broken, refused=refused)
    reasons = [
        *([remedy] if refused else []),
        *verdict.reasons,
        *crosschecks.sentences(
            [row for row in rows if row.arm in usable], verdict, rule, level(look.share), same_tasks
        ),
        *[f"{arm} is left out of the decision: {why}." for arm, why in paired.broken.items()],
        *paired.notes,
        *caveats.of_runs(runs),
        *budgets.disagreements(budgets.ledger(paired, look.share), rule.alpha),
        *of_step_lengths(rows, runs),
        *of_tuning(runs, tuning, rows_recur),
        *notes,
    ]
    return Summary(
        rows,
        replace(verdict, reasons=reasons),
        rule,
        paired.baseline,
        _against_controls(paired, rule, look.share),
        level(look.share),
        context.covered.volume,
    )


def _ruined(arm: str, paired: Paired) -> tuple[str, ...]:
    """Tasks on which single-task's mean result is 0 and the arm's is on the worse side of it."""
    means = paired.directions * np.array([mean(column) for column in paired.results[arm].T])
    return tuple(task for task, worse in zip(paired.tasks, means, strict=True) if paired.baseline[task] == 0 < worse)


def _means(tasks: Mapping[str, Observed], paired: Paired) -> Values:
    """Mean changes of the tasks that enter Δm."""
    return np.array([e.mean for e, enters in zip(tasks.values(), paired.compared, strict=True) if enters == 1])


def _test_over_train(runs: Sequence[Run]) -> float:
    """Rows tested over rows trained on, the mean over runs; NaN unless all runs know them."""
    known = [run.provenance.get("rows") or {} for run in runs]
    if not all(rows.get("train", 0) > 0 and rows.get("test", 0) > 0 for rows in known):
        return math.nan
    return float(np.mean([rows["test"] / rows["train"] for rows in known]))


def _observe(paired: Paired, logs: Mapping[str, Values], share: float) -> dict[str, Observations]:
    changes = _changes(paired, paired.results)
    special = _changes(paired, {arm: _specialised(arm, paired) for arm in paired.results})
    delta_m = {arm: _row_means(table) for arm, table in changes.items()}
    rows: list[Values] = []
    for arm, table in changes.items():
        own = [delta_m[arm], _row_means(logs[arm]), delta_m[arm] - delta_m[SUM], _row_means(special[arm])]
        rows += [*own, *table.T]
    found = iter(observe(rows, share))
    return {
        arm: Observations(
            next(found),
            next(found),
            next(found),
            next(found),
            {task: next(found) for task in paired.tasks},
            [seed for seed, value in zip(paired.seeds, delta_m[arm], strict=True) if not math.isnan(value)],
        )
        for arm in changes
    }


def _specialised(arm: str, paired: Paired) -> Values:
    """Results with a checkpoint a task (S, K), holes where the arm's results have them; NaN if any run lacks them."""
    own, table = paired.runs[arm], np.full_like(paired.results[arm], np.nan)
    if not all(task in run.specialised for run in own.values() for task in paired.tasks):
        return table
    for row, seed in enumerate(paired.seeds):
        if seed in own:
            table[row] = [own[seed].specialised[task] for task in paired.tasks]
    return np.where(np.isfinite(paired.results[arm]), table, np.nan)


def _changes(paired: Paired, results: Mapping[str, Values]) -> dict[str, Values]:
    """Changes against single-task in per cent (S, K)."""
    base = np.array(list(paired.baseline.values())) * paired.compared  # NaN rather than a division by zero
    scale = 100 * paired.directions / np.abs(base)
    single = paired.results[SINGLE]
    return {arm: (table - single) * scale for arm, table in results.items()}


def _against_controls(paired: Paired, rule: Rule, share: float) -> list[Comparison]:
    """Every arm that learns groups against the sum and every control that did not break down."""
    delta_m = {
        arm: _row_means(table) for arm, table in _changes(paired, paired.results).items() if arm not in paired.broken
    }
    learning = [arm for arm in delta_m if role(arm) == "groups"]
    controls = [arm for arm in delta_m if arm == SUM or role(arm) not in (None, "groups")]
    pairs = list(product(learning, controls))
    found = observe([delta_m[arm] - delta_m[control] for arm, control in pairs], share)
    return [
        Comparison(arm, control, interval(o), o.p(), below(o, 0.0, rule.alpha), above(o, 0.0, rule.alpha))
        for (arm, control), o in zip(pairs, found, strict=True)
    ]


def _logs(paired: Paired) -> tuple[dict[str, Values], bool]:
    """Log-ratios to single-task in per cent (S, K); NaN for a task with a result that is not positive in any run.

    And whether no task is left out for that.
    """
    stacked = np.stack(list(paired.results.values()))
    positive = [not (stacked[:, :, k] <= 0).any() for k in range(len(paired.tasks))]
    if names := [task for task, ok in zip(paired.tasks, positive, strict=True) if not ok]:
        paired.notes.append(f"The log-ratio leaves out {listed('task', names)}: not all results are positive.")
    logs = {arm: np.log(np.where(positive, table, np.nan)) for arm, table in paired.results.items()}
    return {arm: 100 * paired.directions * (table - logs[SINGLE]) for arm, table in logs.items()}, all(positive)


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
    return middle(seconds / base for seconds, base in pairs if base > 0)


def _row_means(table: Values) -> Values:
    """Mean over tasks of every seed; NaN for a seed without any."""
    return np.array([mean(row) for row in table])
