"""The figure of docs/benchmarks.md, from the figures that steps.py wrote.

python benchmarks/figure.py docs/images/steps.json docs/images/steps.png
"""

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt

WAYS = {
    "TorchJD": ("#8c8c8c", "--"),
    "TorchJD chunk=1": ("#8c8c8c", ":"),
    "motet exact": ("#1b4965", "-"),
    "motet disjoint": ("#5fa8d3", "-"),
    "motet last-layer": ("#2a9d8f", "-"),
    "motet probe": ("#e9a03b", "-"),
    "motet features": ("#c8553d", "-"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", type=Path)
    parser.add_argument("picture", type=Path)
    options = parser.parse_args()
    rows = json.loads(options.figures.read_text())
    models = list(dict.fromkeys(row["model"] for row in rows))
    figure, axes = plt.subplots(1, len(models), figsize=(3.6 * len(models), 3.6), sharey=True, layout="constrained")
    for axis, model in zip(axes, models, strict=True):
        for way, (colour, line) in WAYS.items():
            points = sorted((row["tasks"], row["time"]) for row in rows if (row["model"], row["way"]) == (model, way))
            if points:
                axis.plot(*zip(*points, strict=True), line, color=colour, marker="o", ms=4, label=way)
        axis.axhline(1, color="#cccccc", lw=1, zorder=0)
        axis.set(title=model, xscale="log", yscale="log", xlabel="tasks")
        axis.set_xticks([2, 10, 40, 200], ["2", "10", "40", "200"])
        axis.set_yticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
        axis.minorticks_off()
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("time of a step, plain sum = 1")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(options.picture, dpi=150)


if __name__ == "__main__":
    main()
