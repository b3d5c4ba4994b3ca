"""The report as one HTML file: what the page shows, in plain values; how it looks is the template's."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from motet.metrics.tasks import METRICS
from motet.problems.base import Task
from motet.report import budget, front, groups, health, model, momentum, numbers, tuning
from motet.report import runs as run_list
from motet.report.figures import cosine_matrices, cost, forest, learning_curves, theme, weight_streams
from motet.report.figures.forest import share_scale, worst_first
from motet.report.figures.weights import uneven
from motet.report.file import environment, script_hash, write_page
from motet.report.svg import inline
from motet.study.caveats import ALIKE, with_own_rate
from motet.study.labels import few_in_common
from motet.study.live import TUNING, State
from motet.study.results import SINGLE, SUM, ArmSummary, Interval, Labels, Rule, Run, Summary, Tuning
from motet.study.sequential import least_p

_HERE = Path(__file__).parent
_REASONS = 5
"""Reasons that stand open on the card."""
_EXPLAINED = {SINGLE: "one model a task", SUM: "plain sum of the losses"}
_SECTIONS = {
    "arms": "Arms",
    "changes": "Changes by task",
    "tasks": "Results by task",
    "cost": "Gain against cost",
    "budget": "At equal budgets",
    "front": "Trade-offs between tasks",
    "groups": "Groups of tasks",
    "curves": "Learning curves",
    "cosines": "Gradient cosines",
    "weights": "Weights of the tasks",
    "momentum": "Momentum",
    "model": "Inside the models",
    "tuning": "Tuning",
    "health": "Health",
    "reading": "How to read this",
    "runs": "Runs",
    "provenance": "Provenance",
}


def write(
    path: str | Path,
    *,
    title: str,
    problem: Mapping[str, Any],
    tasks: Sequence[Task],
    summary: Summary,
    runs: Sequence[Run],
    provenance: Mapping[str, Any],
    tuning: Tuning | None = None,
    running: State | None = None,
    labels: Labels | None = None,
) -> Path:
    """Write the report of a study. The file is complete before it appears under its name.

    It holds aggregates over the test split only, no rows of the data, with one exception: of models that pool bags it
    shows where the instances of a few test bags lie, by coordinates or principal components. The same input gives the
    same bytes.

    Args:
        path: Of the HTML file. Folders on the way are made; an existing file is replaced.
        title: The page's heading.
        problem: ``title``, ``source``, ``caution`` (may be empty) and ``notes`` (a list).
        tasks: All tasks of the study.
        summary: What `motet.study` computed of the runs.
        runs: For curves, cosines, weights and means on the metric's own scale. What they lack is left out,
            and the page says so.
        provenance: Shown in this order: versions, seeds, command (or a list of them), config, hash of the data, …
            Its ``folder`` is where the commands look that train a run again.
        tuning: How the arms were tuned, where they were.
        running: What a study that is not finished is doing. The page then gives no verdict.
        labels: How many labels the training rows have, where it is known.

    Returns:
        The path of the file.

    Raises:
        ValueError: if summary and tasks do not name the same tasks, or a task's metric is unknown.
        IsADirectoryError: if the path is a folder.
    """
    return write_page(
        path, "report", _render, title, problem, tasks, summary, runs, provenance, tuning, running, labels
    )


def _render(
    title: str,
    problem: Mapping[str, Any],
    tasks: Sequence[Task],
    summary: Summary,
    runs: Sequence[Run],
    provenance: Mapping[str, Any],
    tuned: Tuning | None,
    running: State | None,
    labels: Labels | None,
) -> str:
    _check(tasks, summary)
    names = [arm.arm for arm in summary.arms]
    place = {arm: i for i, arm in enumerate(names)}
    runs = sorted((run for run in runs if run.arm in place), key=lambda run: (place[run.arm], run.seed))
    by_name = {task.name: task for task in tasks}
    ordered = [by_name[name] for name in worst_first(summary)]
    arms = {arm.arm: arm for arm in summary.arms}
    streams = uneven(runs)
    optional: dict[str, Any] = {
        "budget": budget.section(summary, runs, ordered),
        "front": front.section(summary, ordered),
        "groups": groups.section(summary, runs),
        "momentum": momentum.section(runs),
        "model": model.section(runs),
        "tuning": tuning.section(tuned, runs),
        "health": health.section(ordered, runs, labels),
    }
    folder = str(provenance.get("folder", ""))
    listed = run_list.section(ordered, summary, runs, folder)
    script = (_HERE / "sorting.js").read_text(encoding="utf-8")
    rival = arms.get(SUM) if summary.verdict.arm != SUM else None
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            title=title,
            script=Markup(script),
            script_hash=Markup(script_hash(script)),
            css=Markup((_HERE / "style.css").read_text(encoding="utf-8")),
            n=numbers,
            side=_side,
            few=_few,
            unshowable=_unshowable,
            least_p=least_p(summary.rule, summary.verdict.seeds),
            few_labels=few_in_common(labels) if optional["groups"] else "",
            v=_key,
            sections={key: heading for key, heading in _SECTIONS.items() if optional.get(key, True)},
            explained=_EXPLAINED | groups.explained(summary.arms) | model.explained(names),
            tuned=optional["tuning"],
            **optional,
            running=_running(running),
            shown_reasons=_REASONS,
            best_shared=_best_shared(summary),
            detectable=_detectable(summary),
            looks=_looks(summary),
            level=f"{numbers.short(100 * summary.level)} %",
            specialised=any(_known(arm.specialised) for arm in summary.arms),
            resampled=any(_known(arm.delta_m_resampled) for arm in summary.arms),
            volume=summary.hypervolume,
            run_list=listed,
            folder=any(run["command"] for arm in listed for run in arm["runs"]),
            places={arm["arm"]: arm["place"] for arm in listed},
            task_places={task.name: i for i, task in enumerate(ordered)},
            by_seed=run_list.delta_m_by_seed(summary),
            times=run_list.times(runs),
            soft=groups.soft,
            sizes=_sizes(summary),
            other_models=bool(model.explained(names)),
            problem={"title": "", "source": "", "caution": "", "notes": []} | dict(problem),
            tasks=tasks,
            arms=summary.arms,
            verdict=summary.verdict,
            rule=summary.rule,
            own_rate=with_own_rate(names),
            chosen=arms.get(summary.verdict.arm),
            sum_time=rival.total_seconds if rival else None,
            sum_memory=rival.peak_memory_mib if rival else None,
            keys={arm: inline(theme.key(arm, names), f"key-{i}", f"sign of {arm}") for i, arm in enumerate(names)},
            one_scale=share_scale(summary),
            forest=_forest(summary, ordered),
            table=[_row(i, task, summary, runs) for i, task in enumerate(ordered)],
            cost=_cost(summary),
            curves=_curves(runs, ordered),
            cosines=_cosines(runs),
            weights=_weights(runs, streams),
            even=[
                name for name in names if name not in streams and name != SINGLE and any(r.arm == name for r in runs)
            ],
            warnings=_warnings(runs),
            provenance=provenance,
        )
    )


def _check(tasks: Sequence[Task], summary: Summary) -> None:
    for name in {task.name for task in tasks} ^ set(summary.baseline):
        lacks, has = ("summary", "problem") if name not in summary.baseline else ("problem", "summary")
        raise ValueError(f"the {lacks} has no task {name!r}, which the {has} has: report a study with its own problem")
    for task in tasks:
        if task.metric not in METRICS:
            raise ValueError(
                f"task {task.name!r} is judged by {task.metric!r}, which is not one of {', '.join(METRICS)}"
            )


def _sizes(summary: Summary) -> dict[str, float]:
    """Parameters as a multiple of the plain sum's, for arms with one model of another size."""
    known = {arm.arm: arm.parameters for arm in summary.arms if arm.arm != SINGLE}
    own = known.get(SUM, 0)
    return {arm: count / own for arm, count in known.items() if own and abs(count / own - 1) > ALIKE}


def _side(interval: Interval) -> str:
    """The CSS class of a change whose interval excludes zero."""
    return "worse" if interval.low > 0 else "better" if interval.high < 0 else ""


def _key(value: Any) -> Markup:
    """What a cell is sorted by, where its text has units."""
    known = isinstance(value, int | float) and math.isfinite(value)
    return Markup(' data-v="{}"').format(f"{value:.6g}" if known else "")


def _running(state: State | None) -> dict[str, Any] | None:
    """The banner of a study that is not finished, with the time left in words."""
    if state is None:
        return None
    left = numbers.about(state.seconds_left) if 0 < state.seconds_left < math.inf else ""
    unit = "trials and runs" if state.what == TUNING else "runs"
    return {"done": state.done, "total": state.total, "left": left, "unit": unit}


def _known(interval: Interval) -> bool:
    return not math.isnan(interval.mean)


def _detectable(summary: Summary) -> tuple[float, str] | None:
    """The smallest gain over the plain sum that could have been shown: the chosen arm's, or the least of all arms."""
    known = {arm.arm: arm.mde_sum for arm in summary.arms if arm.arm not in (SINGLE, SUM) and not arm.left_out}
    known = {arm: value for arm, value in known.items() if not math.isnan(value)}
    if not known:
        return None
    arm = summary.verdict.arm if summary.verdict.arm in known else min(known, key=lambda name: known[name])
    return known[arm], arm


def _looks(summary: Summary) -> str:
    """When the verdict is read, where that was planned; and the level that this leaves for intervals."""
    looks = summary.rule.looks
    if len(looks) < 2:
        return ""
    *early, last = map(str, looks)
    return (
        f"The verdict is read after {', '.join(early)} and at most {last} seeds, and the level is shared out between "
        f"these looks: intervals are {numbers.short(100 * summary.level)} % ones."
    )


def _best_shared(summary: Summary) -> ArmSummary | None:
    known = [arm for arm in summary.arms if arm.arm != SINGLE and not arm.left_out and math.isfinite(arm.delta_m.mean)]
    return min(known, key=lambda arm: arm.delta_m.mean, default=None)


def _unshowable(arm: ArmSummary, rule: Rule) -> bool:
    """Whether so few seeds can't show harm to any one of so many tasks."""
    known = sum(_known(change) for change in arm.per_task.values())
    return known * least_p(rule, arm.seeds) >= rule.alpha


def _few(names: Sequence[str]) -> str:
    """At most two of the names, and each cut where it is long: they stand whole in the table of tasks."""
    short = [theme.label(name, 28) for name in names]
    return ", ".join(short) if len(names) <= 2 else f"{', '.join(short[:2])} and {len(names) - 2} more"


def _row(place: int, task: Task, summary: Summary, runs: Sequence[Run]) -> dict[str, Any]:
    metric = METRICS[task.metric]
    kind = f"{task.classes} classes" if task.kind == "multiclass" else task.kind
    return {
        "place": place,
        "task": task,
        "seeds": run_list.by_seed(runs, task.name),
        "kind": kind,
        "metric": f"{metric.title}, {task.unit}" if task.unit else metric.title,
        "direction": "higher is better" if metric.higher_is_better else "lower is better",
        "cells": [_cell(arm, task.name, summary) for arm in summary.arms],
    }


def _cell(arm: ArmSummary, task: str, summary: Summary) -> dict[str, Any]:
    if arm.arm == SINGLE:
        return {"arm": arm.arm, "mean": summary.baseline[task], "change": None}
    return {"arm": arm.arm, "mean": arm.means.get(task, math.nan), "change": arm.per_task.get(task)}


def _forest(summary: Summary, tasks: Sequence[Task]) -> list[Markup]:
    others = [arm for arm in summary.arms if arm.arm != SINGLE]
    if not others:
        return []
    svgs = []
    for i, name in enumerate([None, *(task.name for task in tasks)]):
        means = [(arm.arm, arm.delta_m if name is None else arm.per_task.get(name)) for arm in others]
        words = "; ".join(f"{arm} {_words(interval)}" for arm, interval in means)
        what = "Δm, the mean over tasks" if name is None else name
        svgs.append(inline(forest(summary, [name], 1), f"forest-{i}", f"Change against single-task: {what}", words))
    return svgs


def _words(interval: Interval | None) -> str:
    if interval is None:
        return numbers.MISSING
    return f"{numbers.change(interval.mean)} % {numbers.bounds(interval)}".strip()


def _cost(summary: Summary) -> list[Markup]:
    arms = [arm for arm in summary.arms if arm.delta_m.mean == arm.delta_m.mean and arm.step_cost > 0]
    if not arms:
        return []
    step = "; ".join(f"{a.arm}: {numbers.ratio(a.step_cost)}, {numbers.change(a.delta_m.mean)} %" for a in arms)
    total = "; ".join(f"{a.arm}: {numbers.seconds(a.total_seconds)}, {numbers.change(a.delta_m.mean)} %" for a in arms)
    return [
        inline(cost(summary), "cost-step", "Δm against the cost of a step", step),
        inline(cost(summary, "total"), "cost-total", "Δm against the time of training", total),
    ]


def _curves(runs: Sequence[Run], tasks: Sequence[Task]) -> list[Markup]:
    if not any(run.curve for run in runs):
        return []
    return [
        inline(
            learning_curves(runs, [task], 1, key=False),
            f"curve-{i}",
            f"Learning curves: {task.name}",
            f"{METRICS[task.metric].title} on validation over epochs, a line an arm. The results are in the tables.",
        )
        for i, task in enumerate(tasks)
    ]


def _cosines(runs: Sequence[Run]) -> list[Markup]:
    arms = dict.fromkeys(run.arm for run in runs if run.cosines and len(run.cosines[0].tasks) > 1)
    words = "Mean cosine of each pair of tasks, early below the diagonal and late above it."
    return [
        inline(cosine_matrices(runs, [arm], 1), f"cosine-{i}", f"Gradient cosines: {arm}", words)
        for i, arm in enumerate(arms)
    ]


def _weights(runs: Sequence[Run], arms: Sequence[str]) -> list[Markup]:
    words = "Each task's share of the weights over the steps of training, 1 being an equal share."
    return [
        inline(weight_streams(runs, [arm], 1), f"weights-{i}", f"Weights of the tasks: {arm}", words)
        for i, arm in enumerate(arms)
    ]


def _warnings(runs: Sequence[Run]) -> list[dict[str, str]]:
    """Each warning once, with the runs that gave it."""
    where: dict[str, dict[str, list[int]]] = {}
    for run in runs:
        for text in dict.fromkeys(notice.text for notice in run.warnings):
            where.setdefault(text, {}).setdefault(run.arm, []).append(run.seed)
    return [
        {
            "text": text,
            "where": "; ".join(f"{arm}: {numbers.plural(len(seeds), 'run')}" for arm, seeds in found.items()),
        }
        for text, found in where.items()
    ]
