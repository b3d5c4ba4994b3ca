"""What a model tells of itself: shares as a table of colours, and attention on the instances of a bag."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from motet.report.figures.theme import (
    GRID,
    INK,
    LINE,
    NEGATIVE,
    PAPER,
    POSITIVE,
    SMALL,
    WIDTH,
    column,
    drawn,
    label,
    nothing,
    panels,
)
from motet.report.numbers import THIN, plain, short
from motet.study.results import BagAttention

_TOP, _LETTERS, _NUMBERS, _NOTE = 62, 14, 22, 44
_WIDEST, _HIGHEST, _LOWEST = 46.0, 34.0, 15.0
_FITS = 26
"""Pixels of a cell that hold "−0.12"."""
_SIDE = 300.0
_SIZES = 7
"""Kinds of points: more are not told apart, and each is drawn once in the file."""


@drawn
def share_map(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float]],
    *,
    title: str,
    detail: str = "",
    across: str = "",
    notes: Sequence[str] = (),
    note: str = "",
    foot: str = "",
    largest: float | None = None,
) -> Figure:
    """Numbers as cells, blue above zero and red below, the stronger the larger.

    Columns with the rows' names are numbered, as these are. Others have their names, or numbers that a foot explains.

    Args:
        rows: Names.
        columns: Names.
        values: (rows, columns). NaN is an empty grey cell.
        title: The panel's name.
        detail: The quieter line below it.
        across: What the columns are.
        notes: One word for each row, at its right.
        note: What these are.
        foot: A line below.
        largest: The value of the fullest colour; by default the largest of these.
    """
    if not rows or not columns:
        return nothing("There is nothing to show.")
    matrix = np.array(values, dtype=float)
    same = list(rows) == list(columns)
    left = (_NUMBERS if same else 0) + column(rows, _LETTERS)
    right = _NOTE if notes else 0
    wide = min(_WIDEST, (WIDTH - left - right - 2) / len(columns))
    high = max(_LOWEST, min(_HIGHEST, wide, 260 / len(rows)))
    heads, legend = _heads(columns, wide) if not same else (list(map(str, range(1, len(columns) + 1))), [])
    below = 14 * (len(legend) + bool(foot)) + 16
    panel = panels(1, _TOP + high * len(rows) + below, 1)[0]
    panel.title(label(title, 42), detail)
    panel.text(left + wide * len(columns) / 2, _TOP - 20, across, ha="center")
    ax = panel.axes(left, _TOP, wide * len(columns), high * len(rows))
    ax.set(xlim=(0, len(columns)), ylim=(len(rows), 0), xticks=[], yticks=[])
    top = float(np.abs(matrix[np.isfinite(matrix)]).max(initial=0.0)) if largest is None else largest
    for i, j in np.ndindex(matrix.shape):
        value, corner = float(matrix[i, j]), (j, i)
        size = (1 - 1 / wide, 1 - 1 / high)
        if math.isnan(value):
            ax.add_patch(Rectangle(corner, *size, lw=0, color=GRID, alpha=0.55))
            continue
        strength = min(1.0, abs(value) / top) if top else 0.0
        colour = NEGATIVE if value < 0 else POSITIVE
        ax.add_patch(Rectangle(corner, *size, lw=0, color=colour, alpha=round(0.06 + 0.84 * strength, 2)))
        if wide >= _FITS:
            ax.text(
                j + 0.5 - 0.5 / wide, i + 0.5, plain(value, 2), ha="center", va="center_baseline", fontsize=SMALL,
                color=INK,
            )  # fmt: skip
    letters = min(SMALL, high - 3)
    for i, name in enumerate(rows):
        middle = _TOP + high * (i + 0.5)
        place = left - (_NUMBERS if same else 0) - 6
        panel.text(place, middle, label(name, _LETTERS), ha="right", color=INK, fontsize=letters)
        if same:
            panel.text(left - 8, middle, str(i + 1), ha="right", fontsize=letters)
        if notes:
            panel.text(left + wide * len(columns) + 8, middle, notes[i], color=INK, fontsize=letters)
    if notes:
        panel.text(left + wide * len(columns) + 8, _TOP - 6, note)
    for j in range(len(columns)):
        panel.text(left + wide * (j + 0.5), _TOP - 6, heads[j], ha="center", fontsize=min(SMALL, 0.7 * wide))
    for i, line in enumerate([*legend, *([foot] if foot else [])]):
        panel.text(0, _TOP + high * len(rows) + 14 * (i + 1), line)
    return panel.figure


@drawn
def bag_map(bag: BagAttention, title: str) -> Figure:
    """The instances of one bag: the larger and the bluer a point, the more attention it has; joined ones by a line.

    The largest point is the largest share, but at least twice an equal one, so that equal shares look like what they
    are.

    Args:
        bag: With its points.
        title: The panel's name.
    """
    if not bag.points:
        return nothing("The bag has no instances.")
    points, weights = np.array(bag.points, dtype=float), np.array(bag.weights, dtype=float)
    kept = "" if len(points) == bag.instances else f", the {len(points)} with most attention"
    panel = panels(1, _TOP + _SIDE + 30, 1)[0]
    panel.title(label(title, 36), f"{label(bag.view)}, test row {bag.row}: {plain(bag.instances, 0)} instances{kept}")
    where = "at their coordinates" if bag.located else "by the first two principal components of their features"
    panel.text(0, 41, where)
    ax = panel.axes(4, _TOP, WIDTH - 8, _SIDE)
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set(visible=True, color=GRID, lw=0.8)
    ax.set(**_limits(points, bag.located))
    if bag.edges:
        pairs = np.array(bag.edges, dtype=int)
        # One line with gaps, which is one element of the file.
        gaps = np.full(len(pairs), math.nan)
        x, y = (np.stack([points[pairs[:, 0], axis], points[pairs[:, 1], axis], gaps], 1).ravel() for axis in (0, 1))
        ax.plot(x, y, color=LINE, lw=0.5, alpha=0.5, zorder=1)
    top = float(weights.max(initial=0.0))
    steps = np.ceil(_SIZES * weights / max(top, 2 / bag.instances)).clip(1, _SIZES).astype(int)
    for step in range(1, _SIZES + 1):
        here = points[steps == step]
        if len(here):
            share = step / _SIZES
            ax.plot(
                here[:, 0], here[:, 1], "o", ms=3.5 + 9 * math.sqrt(share) * share, color=POSITIVE, mec=PAPER, mew=0.4,
                alpha=round(0.3 + 0.7 * share, 2), zorder=1 + step,
            )  # fmt: skip
    even = f"{short(round(100 / bag.instances, 2))}{THIN}%"
    panel.text(0, _TOP + _SIDE + 16, f"largest share {short(round(100 * top, 1))}{THIN}%; equal shares would be {even}")
    return panel.figure


def _limits(points: np.ndarray, located: bool) -> dict[str, tuple[float, float]]:
    """With a margin, and for places one scale on both axes."""
    low, high = points.min(0), points.max(0)
    span = np.maximum(high - low, 1e-9)
    if located:
        box = np.array([WIDTH - 8, _SIDE])
        span = (span / box).max() * box
    middle = (low + high) / 2
    edges = (middle - 0.56 * span, middle + 0.56 * span)
    return {"xlim": (edges[0][0], edges[1][0]), "ylim": (edges[0][1], edges[1][1])}


def _heads(columns: Sequence[str], wide: float) -> tuple[list[str], list[str]]:
    """What stands above the columns: names where they fit, else numbers, and what these mean in lines that fit."""
    common = columns[0].rpartition(" ")[0]
    if all(name == f"{common} {i + 1}" for i, name in enumerate(columns)):
        return [name.rpartition(" ")[2] for name in columns], []  # The line above them says of what.
    if all(column([name]) - 8 <= wide for name in columns):
        return list(columns), []
    lines = [""]
    for i, name in enumerate(columns):
        word = f"{i + 1} {label(name, _LETTERS)}"
        if lines[-1] and len(lines[-1]) + len(word) > 44:
            lines.append("")
        lines[-1] += f"   {word}" if lines[-1] else word
    return [str(i + 1) for i in range(len(columns))], lines
