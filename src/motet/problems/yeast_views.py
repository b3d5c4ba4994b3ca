"""The fourteen classes of yeast genes from two views: expression on microarrays, and phylogenetic profile."""

import io
from dataclasses import replace

import torch

from motet.problems import splits, yeast
from motet.problems.assemble import assemble, cut
from motet.problems.base import Data, Problem, Training
from motet.problems.packages import Package
from motet.problems.views import Views, standardised

PACKAGE = replace(yeast.PACKAGE, problem="yeast-views")

EXPRESSION = 79
"""The columns of the first view; the other 24 are the second."""


def load(seed: int, package: Package = PACKAGE) -> Data:
    """Views "expression" (N, 79) and "phylogeny" (N, 24), standardised, with the rows and parts of problem yeast."""
    import pandas as pd

    (file,) = package.read("river/datasets/yeast.csv.gz")
    table = pd.read_csv(io.BytesIO(file), compression="gzip")
    parts = splits.random(len(table), seed)
    features = torch.as_tensor(table[[name for name in table.columns if name.startswith("Att")]].to_numpy())
    views = Views({"expression": features[:, :EXPRESSION], "phylogeny": features[:, EXPRESSION:]})
    ready = standardised(views, torch.as_tensor(parts[0]))
    train, validation, test = (ready[torch.as_tensor(part)] for part in parts)
    targets = {task.name: cut(table[task.name.capitalize()].to_numpy(), parts) for task in yeast.TASKS}
    return assemble(yeast.TASKS, (train, validation, test), targets)


PROBLEM = Problem(
    name="yeast-views",
    title="Functions of yeast genes from expression and phylogeny: two views, fourteen classes",
    source=yeast.PROBLEM.source,
    caution=f"{yeast.PROBLEM.caution} The file does not mark the views: 79 + 24 columns are the literature's.",
    load=load,
    training=Training(epochs=30, patience=8, batch_size=64, learning_rate=1e-3, width=128, depth=2),
    package=PACKAGE,
)
