"""Fourteen functional classes of yeast genes, which overlap: fourteen binary tasks on 103 features."""

import io

from motet.problems import splits
from motet.problems.assemble import assemble, cut, standardise
from motet.problems.base import Data, Problem, Task, Training
from motet.problems.packages import Package

PACKAGE = Package(
    problem="yeast",
    name="river",
    version="0.26.1",
    file="river-0.26.1-cp311-cp311-manylinux_2_28_x86_64.whl",
    sha256="6a11e1a9749beec3ea138efeb0205b2c5cea8d424e9deee306c8980faec01bef",
    size=2_738_776,
)

TASKS = tuple(Task(f"class{number}", "binary", "auroc") for number in range(1, 15))


def load(seed: int, package: Package = PACKAGE) -> Data:
    """Inputs (N, 103), standardised. The file has no split of its own: random by gene, 60/20/20."""
    import pandas as pd

    (file,) = package.read("river/datasets/yeast.csv.gz")
    table = pd.read_csv(io.BytesIO(file), compression="gzip")
    parts = splits.random(len(table), seed)
    features = table[[name for name in table.columns if name.startswith("Att")]].to_numpy()
    targets = {task.name: cut(table[task.name.capitalize()].to_numpy(), parts) for task in TASKS}
    return assemble(TASKS, standardise(cut(features, parts)), targets)


PROBLEM = Problem(
    name="yeast",
    title="Functions of yeast genes: fourteen overlapping classes",
    source="yeast.csv.gz in river 0.26.1 (BSD-3): the 2,417 genes of Elisseeff and Weston, NIPS 2001; "
    "licence of the data unknown",
    caution="Class 14 has 34 positive genes of 2,417, about seven of them in the test part: its AUROC is mostly noise.",
    load=load,
    training=Training(epochs=30, patience=8, batch_size=64, learning_rate=1e-3, width=128, depth=2),
    package=PACKAGE,
)
