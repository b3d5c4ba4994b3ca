"""The pictures of a selection, drawn by the estimator's own displays in panels that a phone can show."""

from dataclasses import replace

from matplotlib.figure import Figure

from motet.estimators.display.calibration import CalibrationDisplay
from motet.estimators.display.cross_validation import CVDisplay
from motet.estimators.display.path import PathDisplay
from motet.estimators.display.stability import StabilityDisplay
from motet.estimators.display.survival import SurvivalDisplay
from motet.report.figures.theme import WIDTH, column, drawn, panels

_NAME = 15
"""Letters of a feature's name beside its row."""
_HEAD, _DEEP, _FOOT, _AXIS = 24, 46, 40, 34
"""Pixels for a title, for a title with a line below it, for an axis with its name, and for the numbers at its left."""


@drawn
def path_figure(display: PathDisplay) -> Figure:
    """Exits, number of features and held-out concordance, one below the other."""
    rows = 15 * max(len(display.shown), 3) + 8
    left = max(column((display.names[q] for q in display.shown), _NAME), _AXIS) if len(display.shown) else _AXIS
    heights = [(_DEEP, rows), (_HEAD, 90)] + ([(_HEAD, 110)] if display.concordance is not None else [])
    panel = panels(1, sum(head + height + 26 for head, height in heights) + _FOOT - 10, 1)[0]
    made, top = [], 0.0
    for head, height in heights:
        made.append(panel.axes(left, top + head, WIDTH - left - 10, height))
        top += head + height + 26
    replace(display, letters=_NAME).plot(made)
    return panel.figure


@drawn
def cv_figure(display: CVDisplay) -> Figure:
    """Each outcome's concordance over λ, and a key below."""
    keys = 18 * -(-(len(display.names) + 1) // 2)
    panel = panels(1, _HEAD + 240 + _FOOT + keys, 1)[0]
    display.plot(panel.axes(_AXIS, _HEAD, WIDTH - _AXIS - 10, 240))
    return panel.figure


@drawn
def stability_figure(display: StabilityDisplay) -> Figure:
    """The most stable features and the threshold."""
    rows = 16 * max(len(display.names), 3) + 8
    left = max(column(display.names, _NAME), 12) if display.names else 12
    panel = panels(1, _DEEP + rows + _FOOT, 1)[0]
    replace(display, letters=_NAME).plot(panel.axes(left, _DEEP, WIDTH - left - 14, rows))
    return panel.figure


@drawn
def calibration_figures(display: CalibrationDisplay) -> dict[str, Figure]:
    """A figure for each outcome."""
    found = {}
    for name, shown in display.panels.items():
        panel = panels(1, _DEEP + 250 + _FOOT, 1)[0]
        left = _AXIS + 18
        one = CalibrationDisplay({name: shown}, display.held, display.level)
        one.plot(panel.axes(left, _DEEP, 250, 250))
        found[name] = panel.figure
    return found


@drawn
def survival_figures(display: SurvivalDisplay) -> dict[str, Figure]:
    """A figure for each survival outcome."""
    found = {}
    for name, thirds in display.panels.items():
        panel = panels(1, _DEEP + 230 + _FOOT, 1)[0]
        left = _AXIS + 14
        SurvivalDisplay({name: thirds}).plot(panel.axes(left, _DEEP, WIDTH - left - 12, 230))
        found[name] = panel.figure
    return found
