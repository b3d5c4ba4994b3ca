"""What a problem is: data, splits, tasks with their loss and metric, and a model with a trunk and heads.

A new problem is one file with one function of a seed that returns `Data`, and one line in `registry.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from motet.problems.encoder import view_encoder
from motet.problems.packages import Package
from motet.problems.views import Inputs, Views

Kind = Literal["regression", "binary", "multiclass"]


@dataclass(frozen=True)
class Task:
    """One outcome: how its head looks, how it is trained and how it is judged.

    Attributes:
        name: As it appears in tables.
        kind: Regression (mean squared error on standardised values), binary or multiclass (cross-entropy).
        metric: A name of `motet.metrics.METRICS`; the direction of improvement comes with it.
        classes: Number of classes of a multiclass task.
        unit: Of a regression target, for tables. ``scale`` takes a standardised error back to it.
        scale: Standard deviation of the target in the training split.
        labels: The names of the classes, in the order of their codes, where they have any.
    """

    name: str
    kind: Kind
    metric: str
    classes: int = 0
    unit: str = ""
    scale: float = 1.0
    labels: tuple[str, ...] = ()

    @property
    def outputs(self) -> int:
        """Width of the head."""
        return self.classes if self.kind == "multiclass" else 1


@dataclass(frozen=True)
class Split:
    """Rows of one part: inputs (N, …), or `Views` of N rows, and, for each task, targets (N,).

    Targets are float for regression and binary tasks, where NaN is a missing label, and int64 class codes
    for multiclass tasks, where -1 is missing.
    """

    inputs: Inputs
    targets: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.inputs)


@dataclass(frozen=True)
class Data:
    """The three parts of a problem for one seed. Everything fitted, scalers too, is fitted on ``train``."""

    tasks: tuple[Task, ...]
    train: Split
    validation: Split
    test: Split
    notes: tuple[str, ...] = ()
    """What a reader of the results must know of this data: leakage warnings, dropped rows, inferred types."""


@dataclass(frozen=True)
class Training:
    """How every arm of a study trains on a problem, unless the user says otherwise."""

    epochs: int = 40
    patience: int = 10
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    width: int = 128
    depth: int = 2
    dropout: float = 0.0


@dataclass(frozen=True)
class Problem:
    """A named way to get `Data` and a model for it.

    Attributes:
        name: Kebab-case.
        title: One line for lists.
        source: Where the data come from, with the licence as far as it is known.
        load: seed → Data. The same seed gives the same split, for every arm.
        caution: What this problem can't show, printed with its results.
        trunk: (inputs of shape (N, …) or `Views`, training) → module from inputs to features (N, width). None is an
            MLP on the flattened tensor, or the encoder of several views.
        package: The Python package whose files hold the data, where they must be fetched first.
        fresh: Whether every seed draws new rows, so that seeds are independent. Else seeds split the same rows anew.
        fixed_test: Whether the test rows are the same for every seed, as those of an official part are.
    """

    name: str
    title: str
    source: str
    load: Callable[[int], Data]
    caution: str = ""
    training: Training = field(default_factory=Training)
    trunk: Callable[[Any, Training], nn.Module] | None = None
    package: Package | None = None
    fresh: bool = False
    fixed_test: bool = False

    def model(self, data: Data, seed: int, training: Training | None = None) -> "Model":
        """A fresh model, identical for every arm with this seed, and torch's global generator untouched."""
        training = training or self.training
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            trunk = (self.trunk or _usual_trunk)(data.train.inputs, training)
            return Model(trunk, {task.name: nn.Linear(training.width, task.outputs) for task in data.tasks})


class Model(nn.Module):
    """Hard sharing: one trunk, one head a task. ``forward`` gives the features and every task's output."""

    def __init__(self, trunk: nn.Module, heads: dict[str, nn.Module]) -> None:
        super().__init__()
        self.trunk = trunk
        # ModuleDict forbids names with dots or names of its own methods, and a task may be called anything.
        self.tasks = tuple(heads)
        self.heads = nn.ModuleList(heads.values())

    def forward(self, inputs: Inputs) -> tuple[Tensor, dict[str, Tensor]]:
        """N rows → features (N, width), {task: (N, outputs)}."""
        features = self.trunk(inputs)
        return features, {task: head(features) for task, head in zip(self.tasks, self.heads, strict=True)}


def _usual_trunk(inputs: Inputs, training: Training) -> nn.Module:
    return view_encoder(inputs, training) if isinstance(inputs, Views) else mlp(inputs, training)


def mlp(inputs: Tensor, training: Training) -> nn.Module:
    """Linear–ReLU–dropout, ``depth`` times, on flattened inputs."""
    layers: list[nn.Module] = [nn.Flatten()]
    width = inputs[0].numel()
    for _ in range(training.depth):
        layers += [nn.Linear(width, training.width), nn.ReLU()]
        if training.dropout:
            layers.append(nn.Dropout(training.dropout))
        width = training.width
    return nn.Sequential(*layers)
