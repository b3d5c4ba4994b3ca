"""Studies that never were: summaries and runs of any size, with names that try to break the page."""

import math

import numpy as np

from motet.problems.base import Task
from motet.study.results import (
    ArmSummary,
    Cosines,
    Epoch,
    Interval,
    Notice,
    Rule,
    Run,
    RunCost,
    Summary,
    Verdict,
    Weights,
)

NASTY = [
    "<script>alert(1)</script>",
    "a&b",
    "\"double\" and 'single'",
    "$x_1^2$ costs $5",
    "a_very_long_task_name_that_goes_on_for_exactly_sixty_chars_00",
    "a_very_long_task_name_that_goes_on_for_exactly_sixty_chars_01",
    "Größe, Ångström, µ",
    "測定値の平均",
    "{{ 7 * 7 }}",
    "</svg><img src=x onerror=alert(1)>",
    "bell\x07",
    "50%",
    "head",
    "none",
]
ARMS = ["stl", "sum", "uw", "famo", "fair-grad", "imtl-g", "pcgrad", "apt-muon+fair-grad", "sum & <b>tuned</b> $w$"]
NAN = math.nan
_STOPPED = "the solver stopped at its iteration limit <100>"


def tasks_of(k, nasty=False):
    names = NASTY[:k] if nasty else ["left", "right", "sum", "ink", "alpha", "gap", "cv", "homo", "lumo", "zpve"][:k]
    names += [f"task {i}" for i in range(len(names), k)]
    kinds = [("multiclass", "accuracy", 10, ""), ("binary", "auroc", 0, ""), ("regression", "mae", 0, "eV")]
    return [
        Task(name, kind, metric, classes, unit)
        for i, name in enumerate(names)
        for kind, metric, classes, unit in [kinds[i % 3]]
    ]


def problem_of(nasty=False):
    return {
        "title": "Two digits, one on the other" if not nasty else "<i>Problem</i> & co",
        "source": "scikit-learn's digits (UCI, CC BY 4.0), overlaid in pairs",
        "caution": "Small images: nothing here says how a method does on large ones.",
        "notes": ["Sources are split before they are overlaid.", "<b>12 rows</b> without any label were dropped."],
    }


def provenance_of():
    return {
        "versions": {"motet": "0.1.0", "torch": "2.13.0", "python": "3.11.9"},
        "seeds": [0, 1, 2, 3, 4, 5],
        "command": "motet compare digits-overlay --arms stl sum famo --seeds 6 > '<out>'",
        "config": {"epochs": 40, "learning_rate": 1e-3, "trunk": {"width": 128, "depth": 2}, "nothing": None},
        "data_hash": "sha256:5f1d3c…e0",
        "machine": "2 × Intel Xeon, 8 GiB, Linux",
        "started": "2026-03-01 10:00:00 UTC",
        "finished": "2026-03-01 10:05:12 UTC",
    }


def study(arms=5, seeds=6, k=4, nasty=False, epochs=40, seed=0, wild=False):
    """(tasks, summary, runs) of a study that is plausible in every number. ``wild`` adds a far outlier."""
    rng = np.random.default_rng(seed)
    names, tasks = ARMS[:arms], tasks_of(k, nasty)
    runs = [_run(arm, i, s, tasks, epochs, rng) for i, arm in enumerate(names) for s in range(seeds)]
    return tasks, _summary(names, tasks, runs, seeds, rng, wild), runs


def minimal():
    """Two arms, one seed, two tasks: no interval, no cosine, no weight, no curve."""
    tasks, summary, runs = study(2, 1, 2)
    blank = [Run(r.arm, r.seed, r.test, r.validation, r.best_epoch, [], [], [], r.cost, [], {}) for r in runs]
    return tasks, summary, blank


def _interval(mean, width, seeds):
    return Interval(mean, mean - width, mean + 1.1 * width) if seeds > 1 else Interval(mean, NAN, NAN)


def _summary(names, tasks, runs, seeds, rng, wild):
    task_names = [task.name for task in tasks]
    arms = []
    for i, arm in enumerate(names):
        of_arm = [run.cost for run in runs if run.arm == arm]
        offset = {"stl": 0.0, "sum": 3.0}.get(arm, float(rng.normal(-1, 3)))
        means = {t: 0.0 if arm == "stl" else offset + float(rng.normal(0, 4)) for t in task_names}
        if wild and arm == names[-1]:
            means[task_names[0]] = 480.0
        per_task = {t: _interval(m, 0 if arm == "stl" else abs(rng.normal(2, 0.7)), seeds) for t, m in means.items()}
        worst = max(means, key=lambda t: means[t])
        delta = float(np.mean(list(means.values())))
        step_cost = float(np.median([c.seconds_per_step for c in of_arm])) / 2e-3
        arms.append(
            ArmSummary(
                arm, seeds, _interval(delta, 0 if arm == "stl" else 1.2, seeds), _interval(0.9 * delta, 1.1, seeds),
                float(rng.uniform(1, len(names))), per_task, worst, means[worst],
                [t for t, interval in per_task.items() if interval.low > 0],
                _interval(delta - 3.0, 0.9, seeds) if arm != "sum" else Interval(0.0, 0.0, 0.0),
                NAN if arm == "sum" else 0.03125, NAN if arm == "sum" else min(1.0, 0.03125 * (i + 1)), 0.0625,
                2e-3 * step_cost, step_cost, float(np.mean([c.seconds for c in of_arm])),
                180.0 + 40 * i, 1.0 if arm != "famo" else 2.0, float(1 if i < 4 else len(tasks)),
                [1.0, 1.0, 0.34, 0.92, 3.1, 12.4, 0.7, 1.9, 1.0][i], 120_000 * (len(tasks) if arm == "stl" else 1),
                means={t: float(np.mean([run.test[t] for run in runs if run.arm == arm])) for t in task_names},
                by_seed={s: delta + 0.1 * s for s in range(seeds)},
            )
        )  # fmt: skip
    best = min(arms[1:], key=lambda a: a.delta_m.mean) if len(arms) > 1 else arms[0]
    verdict = Verdict(
        "ADOPT" if seeds >= 6 else "UNDECIDED",
        best.arm,
        f"{best.arm} is better than the plain sum by {abs(best.over_sum.mean):.1f} points of Δm, and no task suffers",
        [
            f"Its interval against the plain sum, [{best.over_sum.low:.1f}, {best.over_sum.high:.1f}], excludes zero.",
            "p = 0.031 after Holm's correction over 3 arms.",
            f"The worst task, {best.worst_task}, changes by {best.worst_change:+.1f} %.",
        ],
        seeds,
        None if seeds >= 6 else 6 - seeds,
    )
    baseline = {task.name: 0.93 - 0.05 * i for i, task in enumerate(tasks)}
    return Summary(arms, verdict, Rule(), baseline)


def _run(arm, i, seed, tasks, epochs, rng):
    names = [task.name for task in tasks]
    last = int(rng.integers(max(2, epochs // 2), epochs + 1))
    level = {t: 0.9 - 0.04 * j + rng.normal(0, 0.006) - 0.004 * i for j, t in enumerate(names)}
    curve = [
        Epoch(e, 0.4 * e, dict.fromkeys(names, 1 / e), {
            t: float(level[t] * (1 - 0.8 * math.exp(-e / 3)) + rng.normal(0, 0.004)) for t in names
        })
        for e in range(1, last + 1)
    ]  # fmt: skip
    weights = []
    if arm not in ("stl", "sum"):
        for step in range(0, last * 10, 4):
            logs = [math.sin(j + i) * (1 - math.exp(-step / 90)) + rng.normal(0, 0.15) for j in range(len(names))]
            weights.append(Weights(step, {t: math.exp(v) for t, v in zip(names, logs, strict=True)}))
    elif arm == "sum":
        weights = [Weights(step, dict.fromkeys(names, 1.0)) for step in range(0, last * 10, 10)]
    cosines = []
    if arm != "stl":
        for epoch, mean in ((1, 0.35), (last, 0.02)):
            half = np.triu(rng.normal(mean, 0.25, (len(names), len(names))).clip(-1, 1), 1)
            cosines.append(Cosines(epoch, names, (half + half.T + np.eye(len(names))).tolist()))
    per_step = 2e-3 * [len(names), 1, 1.02, 1.05, 1.9, 2.0, len(names) / 2 + 1, 2.4, 1.01][i] * rng.uniform(0.97, 1.03)
    cost = RunCost(last * 10, last * 10 * per_step, per_step, 180.0, 1.0, 1.0, 120_000, 1.0)
    test = {t: float(level[t]) for t in names}
    return Run(
        arm, seed, test, test, dict.fromkeys(names, last - 1), curve, weights, cosines, cost,
        [Notice("unconverged", _STOPPED)] if arm == "imtl-g" and seed < 2 else [],
        {"id": f"{seed:02d}-{i:02d}-5f1d3c"},
    )  # fmt: skip
