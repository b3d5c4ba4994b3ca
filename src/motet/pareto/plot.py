"""The figure of a front as a file that stands alone: an SVG or a page."""

import re
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from motet.report.figures.pareto import pareto_front
from motet.report.numbers import short
from motet.report.svg import inline

if TYPE_CHECKING:
    from motet.pareto.sweep import Front

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>{colours} body {{ margin: 2rem auto; padding: 0 1rem; max-width: 60rem; background: var(--paper);
color: var(--ink); font: 1rem/1.5 var(--sans); }} svg {{ width: 100%; font-family: var(--sans); }}
pre {{ overflow-x: auto; font: .85rem/1.5 var(--mono); }}</style>
{figure}
<pre>{table}</pre>
</html>
"""


def write(front: "Front", path: Path) -> Path:
    """Write the figure to ``path``.

    Raises:
        ValueError: if it ends neither in .svg nor in .html.
    """
    if path.suffix not in (".svg", ".html"):
        raise ValueError(f"a figure of a front is an .svg or .html file, not {path.name!r}")
    best = front.nondominated.tolist()
    figure = pareto_front(
        front.tasks, front.preferences.tolist(), front.points.tolist(), best, front.reference.tolist()
    )
    if len(front.tasks) == 2:
        _tell_ticks_apart(figure)
    message = f"{sum(best)} of {len(best)} models are not dominated by another"
    svg = str(inline(figure, "front", "Pareto front", message))
    if path.suffix == ".html":
        text = _PAGE.format(title="Pareto front", colours=_colours(), figure=svg, table=escape(front.table()))
    else:
        own = f"<style>{_colours()} svg {{ background: var(--paper); font-family: var(--sans); }}</style>"
        start = svg.index(">") + 1
        root = svg[:start].replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
        text = re.sub(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', _with_margin, root) + own + svg[start:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf8")
    return path


def _tell_ticks_apart(figure: Figure) -> None:
    """Where four digits make ticks look alike, show them as differences from a number at the axis's end."""
    for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis):
        ticks = axis.get_ticklocs()
        if len({short(tick) for tick in ticks}) < len(ticks):
            axis.set_major_formatter(ScalarFormatter(useOffset=True))


def _with_margin(box: re.Match[str]) -> str:
    return f'viewBox="-12 -12 {float(box[1]) + 24:g} {float(box[2]) + 24:g}"'


def _colours() -> str:
    """The report's variables, for light and for dark."""
    style = files("motet.report").joinpath("style.css").read_text(encoding="utf8")
    light = re.search(r"^:root \{.*?^\}", style, re.DOTALL | re.MULTILINE)
    dark = re.search(r"^@media screen and \(prefers-color-scheme: dark\) \{.*?^\}", style, re.DOTALL | re.MULTILINE)
    assert light is not None
    assert dark is not None
    return f"{light[0]}\n{dark[0]}"
