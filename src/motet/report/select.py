"""The page of ``motet select``: which columns matter, how well they predict, and how sure that is."""

import re
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from motet.report import numbers
from motet.report.figures import select as figures
from motet.report.file import environment, write_page
from motet.report.svg import inline
from motet.selecting import sentences
from motet.selecting.analysis import Analysis
from motet.selecting.files import NAMES
from motet.study.provenance import versions

_HERE = Path(__file__).parent
_OPTION = re.compile(r"(--[a-z][a-z-]*(?: \d+)?)")
_ROWS = 60
"""Features that the table shows at most."""


def write(path: str | Path, found: Analysis, command: str = "") -> Path:
    """Write the page. The file is complete before it appears under its name.

    It holds aggregates over rows only, but for survival curves, whose steps are at the times of events.

    Args:
        path: Of the HTML file. Folders on the way are made; an existing file is replaced.
        found: What `motet.selecting.analysis.analyse` returned.
        command: How it was started.

    Returns:
        The path of the file.
    """
    return write_page(path, "report", _render, found, command)


def _render(found: Analysis, command: str) -> str:
    sections = {"outcomes": "Outcomes", "features": "Features", "path": "From all features to none"}
    if found.stability is not None or found.control is not None:
        sections["trust"] = "Is the selection real?"
    sections |= {"calibration": "Do predictions mean what they say?"}
    if found.survival is not None:
        sections["survival"] = "Survival by predicted risk"
    sections |= {"reading": "How to read this", "provenance": "Data and provenance"}
    return (
        environment()
        .get_template("select.html.j2")
        .render(
            css=Markup((_HERE / "style.css").read_text(encoding="utf-8")),
            n=numbers,
            say=sentences,
            sections=sections,
            found=found,
            cautions=[_whole(caution) for caution in sentences.cautions(found)],
            features=_features(found),
            more=max(0, len(_kept(found)) - _ROWS),
            importances=[one.name for one in found.outcomes if f"importance {one.name}" in found.features],
            intervals=any(np.isfinite(one.held[0]) for one in found.outcomes),
            new=any(np.isfinite(one.new) for one in found.outcomes),
            settings=_settings(found),
            files={name: what for name, what in NAMES.items() if name != "report.html"},
            command=command,
            versions=", ".join(f"{name} {version}" for name, version in versions().items()),
            **_figures(found),
        )
    )


def _whole(sentence: str) -> Markup:
    """Options of the command as code that is not broken at its hyphens."""
    return Markup(_OPTION.sub(r'<code class="whole">\1</code>', str(escape(sentence))))


def _kept(found: Analysis) -> Any:
    table = found.features
    return table[table["selected"] | table["stable"]] if "stable" in table else table[table["selected"]]


def _features(found: Analysis) -> list[dict[str, Any]]:
    shown = _kept(found).head(_ROWS)
    rows = []
    for name, row in shown.iterrows():
        drops = {c.removeprefix("importance "): row[c] for c in shown if c.startswith("importance ")}
        rows.append(
            {
                "name": str(name),
                "selected": bool(row["selected"]),
                "exit": float(row["exit_lambda"]),
                "probability": float(row.get("probability", np.nan)),
                "error": float(row.get("standard_error", np.nan)),
                "stable": bool(row.get("stable", False)),
                "importance": drops,
                "strong": {key: drop == max(drops.values()) > 0 for key, drop in drops.items()},
            }
        )
    return rows


def _figures(found: Analysis) -> dict[str, Any]:
    path = inline(
        figures.path_figure(found.path_display),
        "path",
        "The path from all features to none",
        "Last to leave: " + ", ".join(list(found.features.index)[:10]),
    )
    means = "; ".join(f"{one.name} {one.concordance:.3f}" for one in found.outcomes)
    cv = inline(figures.cv_figure(found.cv_display), "cv", "Held-out concordance over λ", f"At the λ used: {means}")
    drawn = figures.calibration_figures(found.calibration)
    calibration = [
        inline(figure, f"calibration-{i}", f"Calibration of {name}", "Predicted against observed.")
        for i, (name, figure) in enumerate(drawn.items())
    ]
    survival = []
    if found.survival is not None:
        for i, (name, figure) in enumerate(figures.survival_figures(found.survival).items()):
            words = "; ".join(f"{t.label}: {t.rows} rows, {t.events} events" for t in found.survival.panels[name])
            survival.append(inline(figure, f"survival-{i}", f"Survival by thirds of the risk: {name}", words))
    stability = None
    if found.stability_display is not None:
        figure = figures.stability_figure(found.stability_display)
        words = ", ".join(found.stable or []) or "none"
        stability = inline(figure, "stability", "Share of half-samples that select a feature", f"Stable: {words}")
    return {"path": path, "cv": cv, "calibration": calibration, "survival": survival, "stability": stability}


def _settings(found: Analysis) -> dict[str, Any]:
    options = found.options
    return {
        "λ": f"{numbers.measure(found.net.lambda_best_)}, chosen by the rule {options.selection}",
        "folds": options.folds,
        "penalty": options.penalty,
        "λ of the path": len(found.path),
        "seed": options.seed,
        "time of the fit": numbers.seconds(found.seconds),
    }
