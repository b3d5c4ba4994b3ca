"""The page of ``motet affinity``: which tasks help which, as one HTML file."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from motet.report import numbers
from motet.report.figures.cosines import cosine_matrices
from motet.report.figures.groups import affinity_map, group_timeline
from motet.report.file import environment, write_page
from motet.report.svg import inline
from motet.study import sentences
from motet.study.measured import HIGH, LOW, Measured, Pair, Snapshot
from motet.study.provenance import versions
from motet.study.results import Cosines, Run, RunCost

_HERE = Path(__file__).parent
_ROWS = 40
"""Pairs that a table shows at most."""
_SECTIONS = {
    "groups": "Proposed groups",
    "map": "Affinity over time",
    "pairs": "Strongest pairs",
    "beside": "Beside other measures",
    "reading": "How to read this",
    "provenance": "Provenance",
}


def write(path: str | Path, found: Measured, command: str = "") -> Path:
    """Write the page of a measurement. The file is complete before it appears under its name.

    It holds aggregates over the training rows only, no rows of the data.

    Args:
        path: Of the HTML file. Folders on the way are made; an existing file is replaced.
        found: What `motet.study.affinity.measure` returned.
        command: How it was started.

    Returns:
        The path of the file.

    Raises:
        IsADirectoryError: if the path is a folder.
    """
    return write_page(path, "page", _render, found, command)


def _render(found: Measured, command: str) -> str:
    groups = [group.tasks for group in found.groups]
    return (
        environment()
        .get_template("affinity.html.j2")
        .render(
            css=Markup((_HERE / "style.css").read_text(encoding="utf-8")),
            n=numbers,
            say=sentences,
            sections=_SECTIONS,
            found=found,
            joined="; ".join(" + ".join(group) for group in groups if 1 < len(group) < len(found.tasks)),
            low=100 * LOW,
            high=100 * HIGH,
            timeline=_timeline(found),
            maps=[_map(snapshot, found, groups, i, _strongest(found)) for i, snapshot in enumerate(found.snapshots)],
            ahead=_ahead(found, groups),
            cosines=_cosines(found, groups),
            helping=_table(found.helping()),
            hurting=_table(found.hurting()),
            rows=found.pairs[0].rows is not None if found.pairs else False,
            provenance={
                "command": command,
                "data": found.source,
                **found.settings,
                "cost": sentences.cost(found),
                "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
            },
        )
    )


def _timeline(found: Measured) -> Markup:
    figure = group_timeline(
        found.tasks,
        [(entry.batch, entry.groups) for entry in found.timeline],
        end=found.late.batch,
        title="Proposed groups",
        detail="one colour and letter: in one group",
    )
    return inline(figure, "timeline", "Proposed groups over time", " | ".join(", ".join(g.tasks) for g in found.groups))


def _strongest(found: Measured) -> float:
    """The largest effect between tasks of all maps in per cent: of those that are clear, as others have no colour."""
    apart = ~np.eye(len(found.tasks), dtype=bool)
    sizes = [(np.abs(100 * _without(found, s.matrix))[apart], 200 * np.array(s.standard_errors)[apart])
             for s in found.snapshots]  # fmt: skip
    values, errors = (np.concatenate(part) for part in zip(*sizes, strict=True))
    known = np.isfinite(values)
    clear = known & (values > errors)
    return float(values[clear if clear.any() else known].max(initial=0.0))


def _map(snapshot: Snapshot, found: Measured, groups: Sequence[Sequence[str]], place: int, strongest: float) -> Markup:
    figure = affinity_map(
        found.tasks,
        100 * _without(found, snapshot.matrix),
        snapshot.counts,
        100 * np.array(snapshot.standard_errors),
        title=snapshot.name.capitalize(),
        detail=f"after {numbers.plural(snapshot.batch, 'batch').replace('batchs', 'batches')}",
        groups=groups,
        unit="per cent",
        strongest=strongest,
        missing=_missing(found),
    )
    words = "; ".join(f"{p.source} on {p.target} {sentences.percent(p.affinity, p.error)} %" for p in found.pairs[:20])
    return inline(figure, f"map-{place}", f"Affinity, {snapshot.name}", words if snapshot is found.late else "")


def _missing(found: Measured) -> str:
    return "share too little" if found.greyed else "not measured"


def _ahead(found: Measured, groups: Sequence[Sequence[str]]) -> Markup | None:
    late = _probed(found)
    if late is None:
        return None
    figure = affinity_map(
        found.tasks,
        100 * _without(found, late.lookahead),
        None,
        100 * np.array(late.lookahead_errors),
        title="Look-ahead affinity",
        detail=f"{late.name}, by definition, on fixed batches",
        groups=groups,
        unit="per cent",
        missing=_missing(found),
    )
    return inline(figure, "look-ahead", "Look-ahead affinity", "As the affinity map, by one plain gradient step.")


def _cosines(found: Measured, groups: Sequence[Sequence[str]]) -> Markup | None:
    order = [found.tasks.index(task) for group in groups for task in group]
    pick = np.ix_(order, order)
    tasks = [found.tasks[i] for i in order]
    measured = [
        Cosines(snapshot.batch, tasks, _without(found, snapshot.cosines)[pick].tolist())
        for snapshot in found.snapshots
        if np.isfinite(snapshot.cosines).any()
    ]
    if not measured:
        return None
    # The figure is made for runs of a study, and takes of one what it draws.
    cost = RunCost(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0.0)
    run = Run("Gradient cosines", 0, {}, {}, {}, [], [], measured, cost)
    drawn = inline(cosine_matrices([run], columns=1), "cosines", "Gradient cosines", "Of each pair, early and late.")
    # The figure counts epochs, and of a loop's batches nobody knows how many make one.
    for when in ("early", "late"):
        drawn = Markup(re.sub(rf"({when}: )epoch (\d+)", r"\1batch \2", drawn))
    return drawn


def _probed(found: Measured) -> Snapshot | None:
    """The last snapshot with a look-ahead affinity."""
    return next((s for s in reversed(found.snapshots) if np.isfinite(s.lookahead).any()), None)


def _without(found: Measured, matrix: Sequence[Sequence[float]]) -> np.ndarray:
    """The matrix with nothing at the pairs that are greyed."""
    values = np.array(matrix, dtype=float)
    for one, other, _ in found.greyed:
        i, j = found.tasks.index(one), found.tasks.index(other)
        values[i, j] = values[j, i] = np.nan
    return values


def _table(pairs: Sequence[Pair]) -> dict[str, Any]:
    return {"shown": pairs[:_ROWS], "more": max(0, len(pairs) - _ROWS)}
