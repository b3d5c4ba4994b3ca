"""A problem that trains in milliseconds: three outcomes of different kinds, with missing labels, from six columns."""

import torch

from motet.problems.base import Data, Problem, Split, Task, Training

TASKS = (
    Task("dose", "regression", "mae", unit="mg"),
    Task("ill", "binary", "accuracy"),
    Task("grade", "multiclass", "accuracy", classes=3),
)


def load(seed: int) -> Data:
    generator = torch.Generator().manual_seed(seed)

    def split(rows: int) -> Split:
        x = torch.randn(rows, 6, generator=generator)
        noise = 0.3 * torch.randn(rows, generator=generator)
        dose = x[:, 0] + x[:, 1] + noise
        dose[::7] = torch.nan
        ill = (x[:, 0] - x[:, 3] > 0).float()
        ill[3::11] = torch.nan
        grade = (x[:, 2] > -0.4).long() + (x[:, 2] > 0.4).long()
        grade[5::13] = -1
        return Split(x, {"dose": dose, "ill": ill, "grade": grade})

    return Data(TASKS, split(96), split(48), split(48), notes=("made up",))


TINY = Problem(
    "tiny",
    "three made-up outcomes",
    "generated",
    load,
    caution="It means nothing.",
    training=Training(epochs=3, patience=3, batch_size=32, width=8, depth=1, dropout=0.2),
)
