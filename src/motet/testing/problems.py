"""What every problem must hold, and one function that checks it."""

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from motet.losses.masked import labelled, task_loss
from motet.metrics.tasks import METRICS
from motet.nn.bag import Bag
from motet.problems.base import Data, Problem, Split, Task
from motet.problems.views import Inputs, Views

_PARTS = ("train", "validation", "test")


def check_problem(problem: Problem, *, seeds: tuple[int, int] = (0, 1), fixed_split: bool = False) -> None:
    """Load a problem and check all that a study relies on.

    Tasks have unique names and a metric of their kind. Every part has rows, of one shape, float32 and
    finite (a view of several may be missing in some rows), and labels of the right type and range; no part
    shares half of its rows with training. Regression
    targets are standardised on training. The same seed gives the same data and the same model, another
    seed another split, and neither touches a global random generator. The model's outputs have the tasks'
    widths, every loss is finite and reaches the trunk, every metric is a number.

    Args:
        problem: Its data must have been fetched.
        seeds: Two different ones.
        fixed_split: The problem's split is the same for all seeds, as an official or chronological one is.

    Raises:
        AssertionError: with one line for each thing that does not hold.
    """
    faults: list[str] = []
    with _generators_untouched(faults, "load"):
        data = problem.load(seeds[0])
    faults += _tasks(data)
    for name in _PARTS:
        faults += _part(data, name)
    if not faults:
        faults += _seeds(problem, data, seeds, fixed_split)
        faults += _overlap(data)
        faults += _scales(data)
        faults += _model(problem, data, seeds[0])
    if faults:
        raise AssertionError("\n".join([f"problem {problem.name!r} does not keep its promises:", *faults]))


def first_fault(problem: Problem, data: Data, seed: int) -> str:
    """The first thing that keeps a study from training on these data, or nothing: a part of `check_problem`."""
    faults = [*_tasks(data)]
    for name in _PARTS:
        faults += faults or _part(data, name)
    faults += faults or _scales(data)
    faults += faults or _model(problem, data, seed)
    return faults[0] if faults else ""


def _tasks(data: Data) -> Iterator[str]:
    names = [task.name for task in data.tasks]
    if not names:
        yield "there is no task"
    if len(set(names)) < len(names):
        yield f"task names are not unique: {names}"
    for task in data.tasks:
        if task.metric not in METRICS:
            yield f"task {task.name!r} has the metric {task.metric!r}, and there are {', '.join(METRICS)}"
        elif task.kind not in METRICS[task.metric].kinds:
            yield f"task {task.name!r} is {task.kind} and its metric {task.metric!r} is not for that"
        if task.kind == "multiclass" and task.classes < 2:
            yield f"task {task.name!r} is multiclass and has {task.classes} classes"
        if task.labels and task.kind != "regression" and len(task.labels) != max(task.classes, 2):
            yield f"task {task.name!r} has {len(task.labels)} labels for {max(task.classes, 2)} classes"


def _part(data: Data, name: str) -> Iterator[str]:
    part: Split = getattr(data, name)
    if not len(part):
        yield f"{name} has no rows"
        return
    yield from (f"{name} {fault}" for fault in _inputs(part.inputs, data.train.inputs))
    if set(part.targets) != {task.name for task in data.tasks}:
        yield f"{name} has targets {sorted(part.targets)}, which are not the tasks"
        return
    for task in data.tasks:
        yield from (f"{name} targets of {task.name!r} {fault}" for fault in _targets(task, part))


def _inputs(inputs: Inputs, train: Inputs) -> Iterator[str]:
    if isinstance(inputs, Tensor) and isinstance(train, Tensor):
        yield from _values("inputs", inputs, train)
    elif not isinstance(inputs, Views) or not isinstance(train, Views) or list(inputs.views) != list(train.views):
        yield "inputs are not the views of train"
    else:
        missing = torch.stack([inputs.missing(view) for view in inputs.views])
        if missing.all(dim=0).any():
            yield f"inputs lack every view in {int(missing.all(dim=0).sum())} rows"
        for (name, view), other in zip(inputs.views.items(), train.views.values(), strict=True):
            what = f"inputs of view {name!r}"
            if isinstance(view, Bag) and isinstance(other, Bag) and (view.offsets is None) == (other.offsets is None):
                yield from _values(what, view.flat().x, other.flat().x)
            elif isinstance(view, Tensor) and isinstance(other, Tensor):
                yield from _values(what, view[~inputs.missing(name)], other)
            else:
                yield f"{what} are of another form than those of train"


def _values(what: str, values: Tensor, train: Tensor) -> Iterator[str]:
    if values.dtype != torch.float32:
        yield f"{what} are {values.dtype}, not float32"
    if values.shape[1:] != train.shape[1:]:
        yield f"{what} have the shape {tuple(values.shape)}, unlike those of train"
    if not values.isfinite().all():
        yield f"{what} are not all finite"


def _overlap(data: Data) -> Iterator[str]:
    for name in _PARTS[1:]:
        if (shared := _share(getattr(data, name), data.train)) > 0.5:
            yield f"{shared:.0%} of the rows of {name} are in train, too"


def _targets(task: Task, part: Split) -> Iterator[str]:
    targets = part.targets[task.name]
    dtype = torch.int64 if task.kind == "multiclass" else torch.float32
    if targets.dtype != dtype or targets.shape != (len(part),):
        yield f"are {targets.dtype} {tuple(targets.shape)}, not {dtype} ({len(part)},)"
        return
    known = targets[labelled(task, targets)]
    if not len(known):
        yield "have no label"
    elif task.kind == "multiclass" and not (targets.min() >= -1 and targets.max() < task.classes):
        yield f"are not within -1 … {task.classes - 1}"
    elif task.kind == "binary" and set(known.tolist()) != {0, 1}:
        yield f"are {sorted(set(known.tolist()))[:5]}, and must be both 0 and 1; a missing label is NaN"
    elif not known.isfinite().all():
        yield "are infinite somewhere"


def _seeds(problem: Problem, data: Data, seeds: tuple[int, int], fixed_split: bool) -> Iterator[str]:
    if not _equal(data, problem.load(seeds[0])):
        yield f"seed {seeds[0]} gives other data the second time"
    if _equal(data, problem.load(seeds[1])) != fixed_split:
        yield f"seeds {seeds[0]} and {seeds[1]} give {'different splits' if fixed_split else 'the same split'}"


def _scales(data: Data) -> Iterator[str]:
    for task in data.tasks:
        if task.kind == "regression":
            targets = data.train.targets[task.name]
            known = targets[labelled(task, targets)].double()
            mean, deviation = float(known.mean()), float(known.std(correction=0))
            if abs(mean) > 1e-3 or abs(deviation - 1) > 1e-3:
                yield (
                    f"task {task.name!r} has mean {mean:.3g} and deviation {deviation:.3g} in train, not 0 and 1: let "
                    "motet.problems.assemble standardise its targets and keep their scale"
                )
            if not (task.scale > 0 and math.isfinite(task.scale)):
                yield f"task {task.name!r} has the scale {task.scale}"


def _model(problem: Problem, data: Data, seed: int) -> list[str]:
    faults: list[str] = []
    with _generators_untouched(faults, "model"):
        model, again = problem.model(data, seed), problem.model(data, seed)
    states = zip(model.state_dict().values(), again.state_dict().values(), strict=True)
    if not all(torch.equal(one, other) for one, other in states):
        faults.append(f"seed {seed} gives another model the second time")
    trunk = [parameter for parameter in model.trunk.parameters() if parameter.requires_grad]
    # Dropout off: the check must not depend on, nor advance, the global generator.
    model.eval()
    features, outputs = model(data.test.inputs)
    if features.shape != (len(data.test), problem.training.width):
        faults.append(f"features have the shape {tuple(features.shape)}, not (N, {problem.training.width})")
    for task in data.tasks:
        output, targets = outputs[task.name], data.test.targets[task.name]
        if output.shape != (len(data.test), task.outputs):
            faults.append(f"outputs of {task.name!r} have the shape {tuple(output.shape)}, not (N, {task.outputs})")
            continue
        loss = task_loss(task, output, targets)
        if loss is None or not loss.isfinite():
            faults.append(f"task {task.name!r} has the loss {loss}")
            continue
        gradients = torch.autograd.grad(loss, trunk, retain_graph=True, allow_unused=True) if trunk else ()
        if not any(gradient is not None and gradient.any() for gradient in gradients):
            faults.append(f"the loss of task {task.name!r} does not reach the trunk")
        if not math.isfinite(METRICS[task.metric](output, targets, task)):
            faults.append(f"the metric of task {task.name!r} is not a number on the test part")
    return faults


def _equal(one: Data, other: Data) -> bool:
    if one.tasks != other.tasks:
        return False
    for name in _PARTS:
        a, b = getattr(one, name), getattr(other, name)
        pairs = [*_pairs(a.inputs, b.inputs), *((a.targets[task], b.targets[task]) for task in a.targets)]
        if not all(x.shape == y.shape and torch.equal(x.nan_to_num(1e30), y.nan_to_num(1e30)) for x, y in pairs):
            return False
    return True


def _pairs(one: Inputs, other: Inputs) -> list[tuple[Tensor, Tensor]]:
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        assert isinstance(one, Tensor)
        assert isinstance(other, Tensor)
        return [(one, other)]
    return [(a, b) for (_, a), (_, b) in zip(one.tensors(), other.tensors(), strict=True)]


def _share(part: Split, train: Split) -> float:
    """Share of rows that occur in train with the same inputs and the same labels."""

    def rows(split: Split) -> list[bytes]:
        columns = [t[:, None].float() for t in split.targets.values()]
        if isinstance(split.inputs, Tensor):
            columns.append(split.inputs.flatten(1))
        targets = [row.tobytes() for row in torch.cat(columns, dim=1).numpy()]
        if isinstance(split.inputs, Tensor):
            return targets
        views = [_bytes(view) for view in split.inputs.views.values()]
        return [b"".join(row) for row in zip(targets, *views, strict=True)]

    known = set(rows(train))
    return sum(row in known for row in rows(part)) / len(part)


def _bytes(view: Tensor | Bag) -> list[bytes]:
    if isinstance(view, Tensor):
        return [row.tobytes() for row in view.numpy()]
    bag = view.flat()
    return [part.numpy().tobytes() for part in bag.x.split(bag.sizes.tolist())]


@contextmanager
def _generators_untouched(faults: list[str], what: str) -> Iterator[None]:
    before = _generators()
    yield
    after = _generators()
    faults += [f"{what} moves the global generator of {name}" for name in before if before[name] != after[name]]


def _generators() -> dict[str, object]:
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002  the global one is meant
    key = numpy_state["state"].pop("key").tobytes()
    return {"torch": torch.get_rng_state().tolist(), "numpy": (key, numpy_state), "random": random.getstate()}
