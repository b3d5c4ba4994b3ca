"""Train one arm with one seed: a shared model, or one model a task."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from statistics import median

import torch

from motet.problems.base import Data, Model, Problem, Task, Training
from motet.study.arms import Arm
from motet.study.fit import Fit, Tick, Trained
from motet.study.results import Epoch, Run, RunCost


def train(
    problem: Problem,
    data: Data,
    arm: Arm,
    seed: int,
    training: Training | Mapping[str, Training],
    reference: Mapping[str, float] | None = None,
    tick: Callable[[Tick], None] = lambda _: None,
) -> Trained:
    """Train an arm.

    The order of the batches depends on the seed alone, and so do the initial parameters and the dropout masks of all
    arms with one architecture, so they are the same for every arm; other architectures start alike in their heads and
    their first expert or column, but for UMDA. The epoch that counts is chosen on validation data, as
    `motet.study.choice.score` says: of a single-task model the one with the best metric, of a shared model the one
    with the best Δm on validation against ``reference``, the single-task models' validation metrics of the same seed.

    A candidate whose training breaks down (a loss or a gradient that is not finite) keeps its best epoch before,
    or has results of NaN where there is none, and a notice says so.

    Args:
        training: One for each task where single-task models have settings of their own.
        reference: Validation metric of every task; needed for shared models.
        tick: Called after each epoch; what it raises ends the training, as pruning does.

    Raises:
        ValueError: if the method refuses the losses of the first epoch, or single-task or the plain sum, with which
            all arms are compared, breaks down before it has a result.
    """
    with torch.random.fork_rng(devices=[]):
        if arm.method is None:
            return _single(problem, data, arm, seed, training, tick)
        assert reference is not None
        assert isinstance(training, Training)
        model = arm.model(problem, data, seed, training)
        training = replace(training, epochs=arm.longer * training.epochs, patience=arm.longer * training.patience)
        return Fit(model, data, data.tasks, arm, seed, training, reference, tick).finish()


def _single(
    problem: Problem,
    data: Data,
    arm: Arm,
    seed: int,
    training: Training | Mapping[str, Training],
    tick: Callable[[Tick], None],
) -> Trained:
    """One model a task, each the whole shared model with its own head only."""
    parts = {}
    for task in data.tasks:
        own = training if isinstance(training, Training) else training[task.name]
        parts[task.name] = train_alone(problem, data, task, arm, seed, own, tick)
    runs = {task: part.run for task, part in parts.items()}
    return Trained(
        Run(
            arm=arm.label,
            seed=seed,
            test={k: v for run in runs.values() for k, v in run.test.items()},
            validation={k: v for run in runs.values() for k, v in run.validation.items()},
            best_epoch={k: v for run in runs.values() for k, v in run.best_epoch.items()},
            curve=_join_curves([run.curve for run in runs.values()]),
            weights=[],
            cosines=[],
            cost=_add_costs([run.cost for run in runs.values()]),
            warnings=[
                replace(notice, text=f"task {task!r}: {notice.text}")
                for task, run in runs.items()
                for notice in run.warnings
            ],
            specialised={k: v for run in runs.values() for k, v in run.specialised.items()},
        ),
        {f"{task}/{name}": value for task, part in parts.items() for name, value in part.parameters.items()},
        {name: value for part in parts.values() for name, value in part.predictions.items()},
    )


def train_alone(
    problem: Problem,
    data: Data,
    task: Task,
    arm: Arm,
    seed: int,
    training: Training,
    tick: Callable[[Tick], None] = lambda _: None,
) -> Trained:
    """The model of one task, as `train` trains it among those of an arm.

    Raises:
        ValueError: if it breaks down before it has a result.
    """
    with torch.random.fork_rng(devices=[]):
        whole = problem.model(data, seed, training)
        alone = Model(whole.trunk, {task.name: whole.heads[whole.tasks.index(task.name)]})
        named = partial(_named, tick, arm.label, task.name, task is data.tasks[-1])
        return Fit(alone, data, (task,), Arm(arm.label, "sum"), seed, training, None, named).finish()


def _named(tick: Callable[[Tick], None], arm: str, task: str, counts: bool, found: Tick) -> None:
    tick(replace(found, arm=arm, task=task, counts=counts))


def _join_curves(curves: list[list[Epoch]]) -> list[Epoch]:
    """The single-task curves side by side, as long as the longest."""
    rows = []
    for index in range(max(map(len, curves))):
        here = [curve[index] for curve in curves if index < len(curve)]
        ended = [curve[-1] for curve in curves if index >= len(curve)]
        rows.append(
            Epoch(
                epoch=index + 1,
                seconds=sum(row.seconds for row in here + ended),
                train_loss={k: v for row in here for k, v in row.train_loss.items()},
                validation={k: v for row in here for k, v in row.validation.items()},
                test={k: v for row in here + ended for k, v in row.test.items()},
                updates=sum(row.updates for row in here + ended),
                forwards=sum(row.forwards for row in here + ended),
                backwards=sum(row.backwards for row in here + ended),
            )
        )
    return rows


def _add_costs(costs: list[RunCost]) -> RunCost:
    """One step of the arm is one step of each of its models; they are trained one after another."""
    return RunCost(
        steps=max(cost.steps for cost in costs),
        seconds=sum(cost.seconds for cost in costs),
        seconds_per_step=sum(cost.seconds_per_step for cost in costs),
        peak_memory_mib=max(cost.peak_memory_mib for cost in costs),
        forwards_per_step=sum(cost.forwards_per_step for cost in costs),
        backwards_per_step=sum(cost.backwards_per_step for cost in costs),
        parameters=sum(cost.parameters for cost in costs),
        step_length=median(cost.step_length for cost in costs),
        updates=sum(cost.updates for cost in costs),
        forwards=sum(cost.forwards for cost in costs),
        backwards=sum(cost.backwards for cost in costs),
    )
