"""The report's section on tuning: what the search chose for every arm, and where it met an edge of its space."""

from collections.abc import Mapping, Sequence
from typing import Any

from motet.study.fairness import edge
from motet.study.results import Run, Tuning

_SPENT = ("trials", "epochs")


def section(tuning: Tuning | None, runs: Sequence[Run]) -> dict[str, Any] | None:
    """Plain values for the template; None where no arm was tuned."""
    rows = []
    for arm in dict.fromkeys(run.arm for run in runs):
        chosen = next((run.settings for run in runs if run.arm == arm and run.settings), {})
        for task, settings in _parts(chosen):
            rows.append(_row(arm, task, settings, tuning))
    if not rows:
        return None
    names = list(dict.fromkeys(name for row in rows for name in row["chosen"]))
    trials = sorted({row["trials"] for row in rows if row["trials"] is not None})
    return {
        "rows": rows,
        "names": names,
        "own": any(row["own"] for row in rows),
        "tuning": tuning,
        "unequal": len(trials) > 1,
        "edges": [row for row in rows if row["edge"]],
        "untuned": [arm for arm in dict.fromkeys(run.arm for run in runs) if arm not in {row["arm"] for row in rows}],
    }


def _parts(settings: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Of single-task models each task has settings of its own; of others there is one part, of no task."""
    if tasks := settings.get("tasks"):
        spent = {name: value for name, value in settings.items() if name in _SPENT}
        return [(task, spent | dict(values)) for task, values in tasks.items()]
    return [("", settings)] if settings else []


def _row(arm: str, task: str, settings: Mapping[str, Any], tuning: Tuning | None) -> dict[str, Any]:
    chosen = {name: value for name, value in settings.items() if name not in (*_SPENT, "trial", "options", "weights")}
    own = settings.get("options", {})
    if weights := settings.get("weights"):
        own = {**own, **{f"weight of {name}": value for name, value in weights.items()}}
    return {
        "arm": arm,
        "task": task,
        "trials": settings.get("trials"),
        "epochs": settings.get("epochs"),
        "chosen": {name.replace("_", " "): said(value) for name, value in chosen.items()},
        "own": [f"{name} {said(value)}" for name, value in own.items()],
        "edge": edge(settings.get("learning_rate"), tuning),
    }


def said(value: Any) -> str:
    """A setting in a cell."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, float | int):
        return f"{value:.3g}".replace("-", "−")
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {said(part)}" for name, part in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(said, value))
    return str(value)
