"""The figures of docs/apt.md, from the numbers that muon_is_multitask.py wrote.

python benchmarks/apt_figures.py docs/images/apt.json docs/images
"""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from motet.report.figures.theme import COLOURS, GRID, INK, LINE, MUTED, STYLE

Found = dict[str, Any]
LOOKS = {"SGD": (COLOURS[1], "s"), "AdamW": (COLOURS[0], "o"), "Muon": (COLOURS[3], "D")}
RULES = {
    "fixed 0.9": (MUTED, "s", "fixed β = 0.9"),
    "A1, previous": (COLOURS[0], "o", "A1, previous gradient"),
    "A1, momentum": (COLOURS[2], "^", "A1, momentum"),
    "A2, momentum": (COLOURS[1], "v", "A2, momentum"),
    "A7": (COLOURS[3], "D", "A7"),
}
CASES = {
    "jump": "the mean jumps every 200 steps",
    "rotate": "the mean turns by 0.1 a step",
    "static": "the mean stays",
}


def tidy(ax: Axes, title: str, detail: str = "") -> None:
    ax.set_title(title, loc="left", fontsize=11.5, fontweight="bold", color=INK, pad=24 if detail else 8)
    if detail:
        words = ax.text(0, 1.03, detail, transform=ax.transAxes, fontsize=9.5, color=MUTED, va="bottom")
        words.set_in_layout(False)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(colors=MUTED, labelsize=9.5, length=0)
    ax.grid(axis="y", color=GRID, lw=0.8)
    ax.set_axisbelow(True)


def multitask(kept: Found, out: Path) -> None:
    """Cosine of the update with each task's gradient, and how often the update goes against some task."""
    figure, axes = plt.subplots(1, 4, figsize=(14, 3.9), width_ratios=[3, 3.4, 5.2, 4])
    made = kept["synthetic"]["noise 0"]
    names = {"SGD": "SGD", "AdamW": "sign (Adam's first step)", "Muon": "Muon"}
    lines(axes[0], ["1", "0.1", "0.01"], {key: made[name]["cosines"] for key, name in names.items()})
    tidy(axes[0], "Made-up gradients", "cosine of the first update with each")
    axes[0].set_xlabel("norm of the task's gradient", color=MUTED)
    for ax, (problem, found) in zip(axes[1:], kept["real"].items(), strict=False):
        tasks = list(found["AdamW"]["usual"]["cosines"])
        lines(ax, tasks, {key: [found[key]["usual"]["cosines"][task] for task in tasks] for key in LOOKS})
        tidy(ax, problem, "cosine of the update with each task")
        ax.set_xlabel("longest gradient to shortest", color=MUTED)
    axes[0].set_ylim(0, 1.03)
    top = max(ax.get_ylim()[1] for ax in axes[1:3])
    for ax in axes[1:3]:
        ax.set_ylim(0, top)
    against(axes[3], kept["real"])
    key(figure, axes[0])
    figure.savefig(out / "apt-multitask.png", dpi=120)


def against(ax: Axes, real: Found) -> None:
    """A row for each problem and learning rate."""
    kinds = {"usual": "usual rate", "slow": "a tenth of it"}
    rows = [(problem, kind) for problem in real for kind in kinds]
    for name, (colour, marker) in LOOKS.items():
        values = [100 * real[problem][name][kind]["against"] for problem, kind in rows]
        ax.plot(values, range(len(rows)), marker, color=colour, ms=7, clip_on=False, zorder=3)
    tidy(ax, "Against some task", "% of steps with a cosine below 0")
    ax.set_yticks(range(len(rows)), [f"{problem}\n{kinds[kind]}" for problem, kind in rows])
    ax.set(xlim=(-2, 100), ylim=(len(rows) - 0.5, -0.5))
    ax.spines["left"].set_visible(False)


def lines(ax: Axes, tasks: Sequence[str], found: dict[str, list[float]]) -> None:
    for name, values in found.items():
        colour, marker = LOOKS[name]
        ax.plot(range(len(tasks)), values, marker=marker, color=colour, lw=1.6, ms=6, label=name)
    ax.set_xticks(range(len(tasks)), tasks)
    ax.set_xlim(-0.4, len(tasks) - 0.6)
    ax.axhline(0, color=LINE, lw=0.8)


def key(figure: Any, ax: Axes, columns: int = 5) -> None:
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=columns, frameon=False, fontsize=10)
    figure.tight_layout(rect=(0, 0.075, 1, 1))


def instant(kept: Found, out: Path) -> None:
    """Shares by age at two learning rates, and how far one and more steps of another method lead away."""
    problems = list(kept["real"])
    figure, axes = plt.subplots(len(problems), 4, figsize=(14, 3.3 * len(problems)))
    for row, problem in zip(axes, problems, strict=True):
        found = kept["real"][problem]
        for kind, words, pair in (("usual", "usual learning rate", row[:2]), ("slow", "a tenth of it", row[2:])):
            for name, (colour, marker) in LOOKS.items():
                shares = found[name][kind]["shares"]
                pair[0].plot(range(len(shares)), shares, marker=marker, color=colour, lw=1.5, ms=4.5, label=name)
                effect(pair[1], found[name][kind], colour, marker)
            pair[0].axhline(0, color=LINE, lw=0.8)
            tidy(pair[0], f"{problem}, {words}", "share of the momentum by age of the gradient")
            tidy(pair[1], "", "how far off FairGrad leads")
            pair[0].set_xlabel("age in steps", color=MUTED)
            pair[0].set_xticks([0, 2, 4, 6, 8, 10])
            pair[1].set_xlabel("steps with it; 0: the gradient itself", color=MUTED)
        alike(row[0], row[2])
        alike(row[1], row[3])
    key(figure, axes[0, 0])
    figure.savefig(out / "apt-instant.png", dpi=120)


def alike(*axes: Axes) -> None:
    """One scale for panels that are compared."""
    limits = [ax.get_ylim() for ax in axes]
    for ax in axes:
        ax.set_ylim(min(0.0, *(low for low, _ in limits)), max(high for _, high in limits))


def effect(ax: Axes, row: Found, colour: str, marker: str) -> None:
    """The gradient's change, and that of the way gone since."""
    values = [row["gradient_changed"], *(x if math.isfinite(x) else math.nan for x in row["ahead"])]
    ax.plot(range(1, len(values)), values[1:], color=colour, lw=1.6)
    ax.plot([0, 1, len(values) - 1], [values[0], values[1], values[-1]], marker, color=colour, ms=5, ls="none")
    ax.plot([0, 1], values[:2], color=colour, lw=1.0, ls=":")
    ax.set_xticks([0, 5, 10, 15, 20])


def tracking(kept: Found, out: Path) -> None:
    """Tracking error of the rules over that of the best fixed β, as noise grows."""
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.7), sharey=True)
    for ax, (case, words) in zip(axes, CASES.items(), strict=True):
        rows = sorted((row for row in kept["tracking"] if row["case"] == case), key=lambda row: row["noise"])
        for rule, (colour, marker, label) in RULES.items():
            ratios = [row["errors"][rule] / row["errors"]["best fixed"] for row in rows]
            ax.plot([row["noise"] for row in rows], ratios, marker=marker, color=colour, lw=1.5, ms=5.5, label=label)
        ax.axhline(1, color=INK, lw=1)
        ax.set(xscale="log", yscale="log")
        ax.set_xlabel("noise of the gradient, its mean = 1", color=MUTED)
        tidy(
            ax,
            words[0].upper() + words[1:],
            "best fixed β at each noise: " + ", ".join(f"{row['best']:g}" for row in rows),
        )
        ax.set_xticks([row["noise"] for row in rows], [f"{row['noise']:g}" for row in rows])
        ax.xaxis.set_minor_locator(NullLocator())
    axes[2].text(0.11, 0.93, "below: better than the best fixed β", fontsize=9.5, color=INK, va="top")
    axes[0].set_yticks([0.5, 1, 2, 5, 10, 20, 50], ["0.5", "1", "2", "5", "10", "20", "50"])
    axes[0].yaxis.set_minor_locator(NullLocator())
    axes[0].set_ylabel("squared tracking error over\nthat of the best fixed β", color=MUTED)
    key(figure, axes[0])
    figure.savefig(out / "apt-tracking.png", dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    kept = json.loads(options.numbers.read_text())
    with plt.rc_context(STYLE):
        for part, draw in (("real", multitask), ("real", instant), ("tracking", tracking)):
            if part in kept:
                draw(kept, options.out)


if __name__ == "__main__":
    main()
