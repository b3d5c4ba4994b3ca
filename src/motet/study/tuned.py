"""What tuning chose for an arm: plain data, as it is kept with the arm's runs and shown in the report."""

from dataclasses import dataclass, field, replace
from typing import Any

from motet.problems.base import Training

SHARED = ""
"""Stands in place of a task's name where one model has all tasks."""


@dataclass(frozen=True)
class Point:
    """One setting of all that is searched.

    Attributes:
        learning_rate, weight_decay, dropout: Of `Training`; the learning rate is the arm's own where it has one.
        own: The arm's own options, as ``name.option``.
        weights: Of the tasks, with a mean of 1; empty where the arm has none.
    """

    learning_rate: float
    weight_decay: float
    dropout: float
    own: dict[str, Any] = field(default_factory=dict)
    weights: tuple[float, ...] = ()

    def training(self, usual: Training) -> Training:
        """The study's training with these values."""
        return replace(usual, learning_rate=self.learning_rate, weight_decay=self.weight_decay, dropout=self.dropout)


@dataclass(frozen=True)
class Choice:
    """The best trial. ``score`` is the best epoch's on validation, as `motet.study.choice.score` says."""

    trial: int
    point: Point
    score: float


@dataclass(frozen=True)
class Tuned:
    """What the trials of one arm came to.

    Attributes:
        trials: How many there were, pruned ones and those that broke down included.
        epochs: How many they trained in all. An epoch of single-task models is one of each of them.
        best: The choice for the shared model, under `SHARED`; of single-task models one for each task: they are
            independent, so the strongest baseline takes the best trial of each.
        tasks: All tasks, in the order of the weights.
    """

    arm: str
    trials: int
    epochs: int
    best: dict[str, Choice]
    tasks: tuple[str, ...]

    def training(self, usual: Training) -> Training | dict[str, Training]:
        """What to train with: one for a shared model, or one a task."""
        if SHARED in self.best:
            return self.best[SHARED].point.training(usual)
        return {task: choice.point.training(usual) for task, choice in self.best.items()}

    def settings(self) -> dict[str, Any]:
        """What `Run.settings` keeps: the budget, and the chosen values or, under ``tasks``, those of each task."""
        spent = {"trials": self.trials, "epochs": self.epochs}
        if SHARED in self.best:
            return spent | self._values(self.best[SHARED])
        return spent | {"tasks": {task: self._values(choice) for task, choice in self.best.items()}}

    def _values(self, choice: Choice) -> dict[str, Any]:
        point = choice.point
        found: dict[str, Any] = {
            "trial": choice.trial,
            "learning_rate": point.learning_rate,
            "weight_decay": point.weight_decay,
            "dropout": point.dropout,
        }
        if point.own:
            found["options"] = dict(point.own)
        if point.weights:
            found["weights"] = dict(zip(self.tasks, point.weights, strict=True))
        return found
