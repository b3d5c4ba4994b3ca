"""Two real digits laid over each other: which is on the left, which on the right, their sum, their ink.

The four tasks want different things of one small trunk, and equal weights lose clearly against single-task
networks. It needs no download: the digits come with scikit-learn.
"""

import numpy as np

from motet.problems.assemble import Array, Triple, assemble
from motet.problems.base import Data, Problem, Task, Training

_DIGITS = (1197, 240, 360)
"""Source images of training, validation and test. They are split before pairs are made, so no digit is in two parts."""

_PAIRS = (6000, 1000, 1500)

_TASKS = (
    Task("left", "multiclass", "accuracy", classes=10, labels=tuple("0123456789")),
    Task("right", "multiclass", "accuracy", classes=10, labels=tuple("0123456789")),
    Task("sum", "regression", "mae"),
    Task("ink", "regression", "mae", unit="pixels"),
)


def load(seed: int) -> Data:
    """Inputs (N, 12, 12), each pixel centred. Sum is of the two digits, ink the brightness of all pixels together."""
    # Imported here, as everywhere in this package: it takes a second, and listing problems should not.
    from sklearn.datasets import load_digits

    pixels, digits = load_digits(return_X_y=True)
    images = pixels.reshape(-1, 8, 8) / 16
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(images))
    first, second = _DIGITS[0], _DIGITS[0] + _DIGITS[1]
    canvases, targets = [], []
    for sources, pairs in zip((order[:first], order[first:second], order[second:]), _PAIRS, strict=True):
        left, right = generator.choice(sources, pairs), generator.choice(sources, pairs)
        canvas = overlay(images[left], images[right])
        canvases.append(canvas)
        targets.append((digits[left], digits[right], digits[left] + digits[right], canvas.sum(axis=(1, 2))))
    by_task = {task.name: _triple([part[i] for part in targets]) for i, task in enumerate(_TASKS)}
    # One deviation for all pixels: some hardly vary, and their noise should stay small.
    mean, deviation = canvases[0].mean(axis=0), canvases[0].std()
    return assemble(_TASKS, _triple([(canvas - mean) / deviation for canvas in canvases]), by_task)


def overlay(left: Array, right: Array) -> Array:
    """The left image in the upper left corner, the right one in the lower right, the brighter pixel wins.

    (N, 8, 8) twice → (N, 12, 12): they overlap in the middle 4×4 pixels.
    """
    canvas = np.zeros((len(left), 12, 12))
    canvas[:, :8, :8] = left
    canvas[:, 4:, 4:] = np.maximum(canvas[:, 4:, 4:], right)
    return canvas


def _triple(parts: list[Array]) -> Triple:
    train, validation, test = parts
    return train, validation, test


PROBLEM = Problem(
    name="digits-overlay",
    title="Two overlaid handwritten digits: left, right, sum and ink",
    source="the digits of scikit-learn: 1,797 images of 8×8 pixels, UCI Optical Recognition of Handwritten Digits",
    caution="The images are real, but the overlay is composed and sum and ink are derived from it: "
    "the conflict between the tasks is partly built in. Ink is nearly linear in the pixels, so its single-task "
    "error is tiny and its change in per cent large: look at each task, not at the mean alone.",
    load=load,
    training=Training(epochs=25, patience=8, batch_size=256, learning_rate=1e-3, width=128, depth=2),
)
