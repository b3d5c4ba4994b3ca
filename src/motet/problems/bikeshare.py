"""Hired bicycles by the hour: how many casual riders and how many registered ones."""

import io

import numpy as np

from motet.problems import splits
from motet.problems.assemble import assemble, cut
from motet.problems.base import Data, Problem, Task, Training
from motet.problems.packages import Package
from motet.problems.table import preprocessing
from motet.problems.table.columns import Features

PACKAGE = Package(
    problem="bikeshare",
    name="islp",
    version="0.6.0",
    file="islp-0.6.0-py3-none-any.whl",
    sha256="ca772cecca1747a2f84ee799a5503ddddbdf0e98f90c235494790c1d036c694b",
    size=16_593_353,
)

_NUMBERS = ["temp", "atemp", "hum", "windspeed", "holiday", "workingday"]
_CATEGORIES = ["season", "mnth", "hr", "weekday", "weathersit"]
_TASKS = tuple(Task(name, "regression", "mae", unit="ln(1 + riders)") for name in ("casual", "registered"))


def load(seed: int, package: Package = PACKAGE) -> Data:
    """The weather and the calendar of 8,645 hours. Random by day, 60/20/20: no day is in two parts."""
    import pandas as pd

    (file,) = package.read("ISLP/data/Bikeshare.csv")
    table = pd.read_csv(io.BytesIO(file))
    parts = splits.grouped(table["day"].to_numpy(np.int64), seed)
    inputs = preprocessing.inputs(Features(table[_NUMBERS], table[_CATEGORIES].astype(str), ()), parts)
    targets = {task.name: cut(np.log1p(table[task.name].to_numpy(np.float64)), parts) for task in _TASKS}
    return assemble(_TASKS, inputs, targets)


PROBLEM = Problem(
    name="bikeshare",
    title="Hired bicycles by the hour: casual and registered riders",
    source="Bikeshare.csv in islp 0.6.0 (BSD): 2011 of the UCI Bike Sharing Dataset of Fanaee-T and Gama; "
    "licence of the data not confirmed",
    caution="Neighbouring days resemble each other and may be in different parts, so that errors are lower than for "
    "days to come. Counts are judged by their logarithm, where 2 instead of 1 rider weighs as much as 200 instead of "
    "100 or so. The two tasks go well together: it is a control for gains, not for harm.",
    load=load,
    training=Training(epochs=40, patience=10, batch_size=128, learning_rate=1e-3, width=128, depth=2),
    package=PACKAGE,
)
