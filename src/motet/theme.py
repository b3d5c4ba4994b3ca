"""Colours and type of every figure, whoever draws it: plain values that need no matplotlib."""

from typing import Any

INK, MUTED, LINE, GRID, PAPER = "#1c2127", "#5d6773", "#a9b1bb", "#e3e6ea", "#fefefe"
BETTER, WORSE = "#0f766e", "#b4412a"
POSITIVE, NEGATIVE = "#3f86b0", "#d2694b"
# Chosen so that any two, with the greys of the reports' references among them, stay apart for red- and green-blind
# readers too (CIELAB distance of at least 15 in light and dark), with a contrast of 3 to the page. Colour is never the
# only sign: every line also has a marker, and most figures name it directly.
COLOURS = ["#239dd3", "#d3751a", "#4aa47b", "#851e70", "#603c15", "#5820c7", "#1d61b5", "#b18b4e"]
MARKERS = ["o", "^", "v", "P", "X", "h", "<", ">", "p"]

STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # names are not formulas: "$" is a dollar
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "figure.facecolor": "white",
    "axes.facecolor": "none",
    "axes.edgecolor": LINE,
    "axes.linewidth": 0.8,
    "axes.labelcolor": MUTED,
    "path.simplify": True,
}
