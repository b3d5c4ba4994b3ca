"""The report's section on models: gates, attention between views and in bags, influence of tasks on tasks."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from markupsafe import Markup

from motet.report.figures.model import bag_map, share_map
from motet.report.numbers import MISSING, THIN, plain, short
from motet.report.svg import inline
from motet.study.architectures import DESCRIPTIONS, HARD, architecture_of
from motet.study.results import BagAttention, Gates, Influence, Run, Shown, ViewAttention

_SMALL = 0.05
"""A change of influence below this has a pale colour, however small all others are."""


def section(runs: Sequence[Run]) -> dict[str, Any] | None:
    """Plain values for the template; None where every arm is hard sharing, or no run tells of itself."""
    of_arm: dict[str, list[tuple[int, Shown]]] = {}
    for run in runs:
        if run.shown is not None:
            of_arm.setdefault(run.arm, []).append((run.seed, run.shown))
    if not of_arm:
        return None
    # Numbers are means over seeds; matrices and bags are of one seed, since experts have no order to average in.
    first = {arm: min(found, key=lambda pair: pair[0])[1] for arm, found in of_arm.items()}
    return {
        "seeds": sorted({min(seed for seed, _ in found) for found in of_arm.values()}),
        "views": [row for arm, found in of_arm.items() if (row := _row(arm, [shown for _, shown in found]))],
        "gates": _figures(first, lambda arm, shown: [_gates(arm, shown, gates) for gates in shown.gates], "gates"),
        "attention": _figures(first, lambda arm, shown: [_attention(arm, shown.attention)], "views"),
        "influence": _figures(first, lambda arm, shown: _influence(arm, shown.tasks, shown.influence), "influence"),
        "bags": _figures(first, lambda arm, shown: [_bag(arm, bag) for bag in shown.bags], "bag"),
        "places": sorted({"coordinates" if bag.located else "components" for s in first.values() for bag in s.bags}),
        "edges": any(bag.edges for shown in first.values() for bag in shown.bags),
    }


def explained(arms: Sequence[str]) -> dict[str, str]:
    """{arm: what its model is} for those that are no hard sharing with the study's width."""
    chosen = {arm: architecture_of(arm) for arm in arms}
    return {arm: DESCRIPTIONS[found.name] for arm, found in chosen.items() if found != HARD}


Drawn = tuple[Any, str, str] | None


def _figures(of_arm: dict[str, Shown], draw: Callable[[str, Shown], Sequence[Drawn]], name: str) -> list[Markup]:
    found = [one for arm, shown in of_arm.items() for one in draw(arm, shown) if one is not None]
    return [inline(figure, f"model-{name}-{i}", title, words) for i, (figure, title, words) in enumerate(found)]


def _row(arm: str, found: Sequence[Shown]) -> dict[str, Any] | None:
    told = [shown.attention for shown in found if shown.attention is not None]
    if not told:
        return None
    return {
        "arm": arm,
        "coherence": _mean([one.coherence for one in told]),
        "shuffled": _mean([one.shuffled for one in told]),
        "rank": _mean([one.effective_rank for one in told]),
        "width": told[0].width,
        "entropy": _mean([value for one in told for value in one.entropy]),
    }


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if value == value]
    return statistics.fmean(known) if known else float("nan")


def _gates(arm: str, shown: Shown, gates: Gates) -> Drawn:
    stitches = gates.experts == shown.tasks
    spread = max((value for row in gates.spread for value in row), default=0.0)
    what = "what each task takes of each task's network" if stitches else "mean share that each task takes"
    foot = f"shares differ between test rows, with deviations up to {plain(spread, 2)}" if spread >= 0.005 else ""
    numbered = gates.experts[0] == "expert 1"
    figure = share_map(
        shown.tasks,
        gates.experts,
        gates.mean,
        title=arm,
        detail=f"{gates.name}: {what}" if gates.name else what,
        across="of the network of task" if stitches else "of expert" if numbered else "of experts",
        foot=foot,
        largest=None if stitches else 1.0,
    )
    return figure, f"Gates: {arm} {gates.name}".strip(), _words(shown.tasks, gates.experts, gates.mean)


def _attention(arm: str, told: ViewAttention | None) -> Drawn:
    if told is None:
        return None
    present = zip(told.views, told.present, strict=True)
    lacking = [f"{name} {short(round(100 * share, 1))}{THIN}%" for name, share in present if share < 1]
    figure = share_map(
        told.views,
        told.views,
        told.attention,
        title=arm,
        detail="what each view takes of each view, the mean over test rows",
        across="of view",
        notes=[plain(value, 2) for value in told.entropy],
        note="entropy",
        foot=f"present: {', '.join(lacking)}" if lacking else "",
        largest=1.0,
    )
    return figure, f"Attention between views: {arm}", _words(told.views, told.views, told.attention)


def _influence(arm: str, tasks: Sequence[str], told: Influence | None) -> list[Drawn]:
    if told is None or len(tasks) < 2:
        return []
    pairs = zip(told.matrix, told.prior, strict=True)
    change = [[a - b for a, b in zip(row, start, strict=True)] for row, start in pairs]
    words = _words(tasks, tasks, told.matrix)
    now = share_map(
        tasks,
        tasks,
        told.matrix,
        title=arm,
        detail="what each task takes of each task's own features",
        across="of task",
        notes=[f"×{plain(value, 2)}" for value in told.strength],
        note="strength",
        largest=1.0,
    )
    most = max(abs(value) for row in change for value in row)
    moved = share_map(
        tasks,
        tasks,
        change,
        title=arm,
        detail="change since the start of training",
        across="of task",
        foot=f"the largest change is {plain(most, 3)}",
        largest=max(most, _SMALL),  # Or noise would have the fullest colour.
    )
    return [
        (now, f"Influence of tasks on tasks: {arm}", words),
        (moved, f"Change of influence: {arm}", _words(tasks, tasks, change)),
    ]


def _bag(arm: str, bag: BagAttention) -> Drawn:
    largest = max(bag.weights, default=float("nan"))
    words = f"{bag.instances} instances; the largest has {plain(100 * largest, 1)} % of the attention."
    return bag_map(bag, arm), f"Attention in a bag: {arm}, view {bag.view}, test row {bag.row}", words


def _words(rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float]]) -> str:
    """Each row's largest, for those who can't see the figure."""
    parts = []
    for name, row in zip(rows, values, strict=True):
        known = [(value, column) for value, column in zip(row, columns, strict=True) if value == value]
        value, column = max(known, default=(float("nan"), MISSING))
        parts.append(f"{name}: most of {column}, {plain(value, 2)}")
    return "; ".join(parts)
