"""What all figures share: colours, markers, type sizes, and panels measured in pixels from the top left.

Every colour has a name in `VARIABLES`. On the report's page the colour is replaced by the CSS variable of
that name, which is how one drawing serves light, dark and print. So a figure may use no other colour.
"""

import functools
import math
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from motet.report.numbers import short
from motet.study.results import SINGLE, SUM
from motet.theme import BETTER as BETTER
from motet.theme import COLOURS as COLOURS
from motet.theme import GRID as GRID
from motet.theme import INK as INK
from motet.theme import LINE as LINE
from motet.theme import MARKERS as MARKERS
from motet.theme import MUTED as MUTED
from motet.theme import NEGATIVE as NEGATIVE
from motet.theme import PAPER as PAPER
from motet.theme import POSITIVE as POSITIVE
from motet.theme import STYLE as STYLE
from motet.theme import WORSE as WORSE

_REFERENCES = {SINGLE: ("#737d89", "D"), SUM: ("#2b3138", "s")}

VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    LINE: "--line",
    GRID: "--grid",
    PAPER: "--paper",
    BETTER: "--better",
    WORSE: "--worse",
    POSITIVE: "--positive",
    NEGATIVE: "--negative",
    **{colour: f"--{arm}" for arm, (colour, _) in _REFERENCES.items()},
    **{colour: f"--arm-{i}" for i, colour in enumerate(COLOURS)},
}

NAME = 18
"""Letters of a name beside a row."""
WIDTH = 320
"""Of one panel, in pixels: the width of a phone, so that a panel on its own can be read there."""

SMALL = 10.5
"""Size of all type but titles, in pixels."""
_LETTER = 6.6
"""Pixels of an average letter at that size, in the widest of the usual fonts."""

P = ParamSpec("P")
R = TypeVar("R")


def drawn(function: Callable[P, R]) -> Callable[P, R]:
    """Draw in the report's style, whatever the user's rcParams are, and leave those alone."""

    @functools.wraps(function)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        with matplotlib.rc_context(STYLE):
            return function(*args, **kwargs)

    return inside


@dataclass(frozen=True)
class Style:
    """How an arm looks in every figure."""

    colour: str
    marker: str
    dashed: bool = False


def styles(arms: Iterable[str]) -> dict[str, Style]:
    """One look an arm, the same for the same set of arms in any order. More than eight share colours, not markers."""
    looks = {arm: Style(colour, marker, arm == SINGLE) for arm, (colour, marker) in _REFERENCES.items()}
    others = sorted(set(arms) - set(looks))
    for i, arm in enumerate(others):
        looks[arm] = Style(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)])
    return looks


@dataclass(frozen=True)
class Panel:
    """A rectangle of a figure. Lengths are pixels (1/72 inch), from the panel's top left corner."""

    figure: Figure
    left: float
    top: float

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes without spines or ticks' marks; a figure adds what it needs."""
        full_width, full_height = (72 * inches for inches in self.figure.get_size_inches())
        bottom = full_height - self.top - top - height
        ax = self.figure.add_axes(
            ((self.left + left) / full_width, bottom / full_height, width / full_width, height / full_height)
        )
        ax.spines[:].set_visible(False)
        ax.tick_params(labelsize=SMALL, labelcolor=MUTED, pad=4, bottom=False, left=False)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        return ax

    def text(self, x: float, y: float, words: str, **style: Any) -> None:
        """Words whose vertical middle is at ``y``."""
        full_width, full_height = (72 * inches for inches in self.figure.get_size_inches())
        options: dict[str, Any] = {"fontsize": SMALL, "va": "center_baseline", "color": MUTED} | style
        self.figure.text((self.left + x) / full_width, 1 - (self.top + y) / full_height, words, **options)

    def title(self, words: str, detail: str = "") -> None:
        """A bold name, and a quieter line below it."""
        self.text(0, 9, words, fontsize=12.5, fontweight="bold", color=INK)
        if detail:
            self.text(0, 25, detail)


def panels(count: int, height: float, columns: int, width: float = WIDTH, head: float = 0) -> list[Panel]:
    """``count`` panels of one figure, row by row, with ``head`` pixels above them all.

    Raises:
        ValueError: if ``columns`` is below 1.
    """
    if columns < 1:
        raise ValueError(f"columns is how many panels stand side by side and must be at least 1, not {columns}")
    columns, gap = min(columns, count), 28
    rows = math.ceil(count / columns)
    size = (columns * width + (columns - 1) * gap, head + rows * height + (rows - 1) * gap)
    figure = Figure(figsize=(size[0] / 72, size[1] / 72))
    places = [divmod(i, columns) for i in range(count)]
    return [Panel(figure, column * (width + gap), head + row * (height + gap)) for row, column in places]


def nothing(reason: str) -> Figure:
    """A figure that says why there is nothing to see."""
    panel = panels(1, 60, 1)[0]
    panel.text(WIDTH / 2, 30, reason, ha="center")
    return panel.figure


def label(name: str, width: int = NAME) -> str:
    """A name cut in the middle, where it is too long, since names often differ at their ends. In the page's
    tables they stand whole. Control characters, which XML forbids, become "�"."""
    clean = "".join("�" if unicodedata.category(c) in ("Cc", "Cs") else c for c in name)
    if sum(map(_cells, clean)) <= width:
        return clean
    tail = _fitting(clean[::-1], (width - 1) // 2)[::-1]
    return _fitting(clean, width - 1 - sum(map(_cells, tail))) + "…" + tail


def _fitting(name: str, width: int) -> str:
    """As much of the beginning as fits."""
    taken = 0
    for i, character in enumerate(name):
        taken += _cells(character)
        if taken > width:
            return name[:i]
    return name


def _cells(character: str) -> int:
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def column(names: Iterable[str], width: int = NAME) -> float:
    """Pixels that a column of such labels needs, with a gap: an estimate, since the reader's font is not known."""
    return 12 + max(_LETTER * sum(map(_cells, label(name, width))) for name in names)


def legend(panel: Panel, arms: Sequence[str], width: float) -> float:
    """Keys of the arms in rows at the panel's top. Returns the height that they take."""
    looks, x, y = styles(arms), 0.0, 8.0
    for arm in arms:
        words = label(arm, 24)
        need = 32 + _LETTER * sum(map(_cells, words)) + 14
        if x and x + need > width:
            x, y = 0.0, y + 18
        _key(panel.axes(x, y - 6, 26, 12), looks[arm])
        panel.text(x + 32, y, words, color=INK)
        x += need
    return y + 22


@drawn
def key(arm: str, arms: Iterable[str]) -> Figure:
    """The sign of one arm, 26 × 12 pixels, for tables and legends of the page."""
    panel = panels(1, 12, 1, width=26)[0]
    _key(panel.axes(0, 0, 26, 12), styles(arms)[arm])
    return panel.figure


def _key(ax: Axes, style: Style) -> None:
    ax.set(xlim=(0, 26), ylim=(0, 12), xticks=[], yticks=[])
    ax.plot([1, 25], [6, 6], color=style.colour, lw=1.6, ls=(0, (3, 1.5)) if style.dashed else "-")
    ax.plot([13], [6], style.marker, color=style.colour, ms=6, mec=PAPER, mew=0.6)
