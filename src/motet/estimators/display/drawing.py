"""What the displays share: axes of their own or the caller's, in motet's colours whatever the user's rcParams are."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from motet.theme import GRID, INK, MUTED, PAPER, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]
SMALL = 10
"""Size of all type but titles, in points."""
LETTERS = 28
"""Of a name beside a row or line; longer ones are cut in the middle, since names often differ at their ends."""
_BOX = {"facecolor": PAPER, "edgecolor": "none", "alpha": 0.75, "pad": 0.8}


@contextmanager
def style() -> Iterator[None]:
    """Draw in motet's style and leave the user's rcParams alone."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        yield


def axes(ax: Any, count: int = 1, *, columns: int = 1, size: tuple[float, float], **options: Any) -> list["Axes"]:
    """The caller's axes, or new ones of ``size`` inches each.

    Raises:
        ValueError: if the caller gave another number of axes.
    """
    if ax is not None:
        given = list(np.ravel(np.asarray(ax, dtype=object)))
        if len(given) != count:
            raise ValueError(f"this display draws {count} panels and ax holds {len(given)} axes: give {count}, or none")
        return given
    from matplotlib import pyplot

    columns = min(columns, count)
    rows = -(-count // columns)
    made: dict[str, Any] = {"figsize": (columns * size[0], rows * size[1]), "squeeze": False, "layout": "constrained"}
    _, grid = pyplot.subplots(rows, columns, **made, **options)
    flat = list(grid.ravel())
    for empty in flat[count:]:
        empty.remove()
    return flat[:count]


def bare(ax: "Axes", title: str, detail: str = "", *, grid: str = "both") -> None:
    """A quiet frame: no box, a light grid, small type; a bold title, and a quieter line below it."""
    ax.spines[:].set_visible(False)
    ax.tick_params(which="both", labelsize=SMALL, labelcolor=MUTED, pad=4, bottom=False, left=False, top=False)
    ax.grid(axis=grid, color=GRID, lw=0.8)  # type: ignore[arg-type]
    ax.set_axisbelow(True)
    ax.xaxis.label.set(size=SMALL, color=MUTED)
    ax.yaxis.label.set(size=SMALL, color=MUTED)
    ax.set_title(title, loc="left", fontsize=12, fontweight="bold", color=INK, pad=27 if detail else 8)
    if detail:
        ax.annotate(
            detail, (0, 1), (0, 8), xycoords="axes fraction", textcoords="offset points",
            fontsize=SMALL, color=MUTED, va="bottom",
        )  # fmt: skip


def note(ax: "Axes", x: float, y: float, words: str, **options: Any) -> None:
    """A remark at a point of the axes, from (0, 0) to (1, 1)."""
    given: dict[str, Any] = {"fontsize": SMALL, "color": MUTED, "transform": ax.transAxes, "va": "center", "zorder": 6}
    ax.text(x, y, words, **(given | options))


def powers(ax: "Axes") -> None:
    """A logarithmic x axis whose numbers read 0.001, 0.01, 0.1, not 10⁻³."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ax.set_xscale("log")
    low, high = sorted(ax.get_xlim())
    few = high / low < 30
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0, 3.0) if high / low < 300 else (1.0,)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


def chosen(ax: "Axes", lambda_: float, words: str = "") -> None:
    """Mark the λ that is used."""
    ax.axvline(lambda_, color=INK, lw=1, ls=(0, (3, 2)), zorder=2)
    if words:
        ax.annotate(
            words, (lambda_, 1), (4, -3), xycoords=("data", "axes fraction"), textcoords="offset points",
            fontsize=SMALL, color=INK, va="top", bbox=_BOX, zorder=6,
        )  # fmt: skip


def used(count: int) -> str:
    """The words at the λ that is used."""
    return f"λ used: {count} feature{'' if count == 1 else 's'}"


def short(name: str, letters: int = LETTERS) -> str:
    """A name cut in the middle where it is long; in the tables it stands whole."""
    if len(name) <= letters:
        return name
    tail = (letters - 1) // 2
    return f"{name[: letters - 1 - tail]}…{name[-tail:]}"


def key(ax: "Axes", **options: Any) -> None:
    """A legend without a frame."""
    given: dict[str, Any] = {"fontsize": SMALL, "labelcolor": INK, "handlelength": 1.8, "facecolor": PAPER}
    given |= {"edgecolor": "none", "framealpha": 0.75, "fancybox": False}
    ax.legend(**(given | options))
