"""Checks of what a method declares: its scale, that no task loses, weights of many Gram matrices at once."""

import copy
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from motet.linalg import gram
from motet.methods import Method
from motet.testing.steps import (
    TASKS,
    WIDTH,
    ask,
    conflicting,
    difference,
    normal,
    scaled_losses,
    solvable_cases,
    some_losses,
    step,
)

Fresh = Callable[[], Method]
_FACTORS = (1e-6, 1e-3, 1e3, 1e6)
_ROUNDING = 1e-6
_SOLVED = 1e-5
"""Of the largest entry: what two ways to one answer may differ by. Motet's solvers stop at 1e-6."""


def scale(fresh: Fresh) -> Iterator[str]:
    """The first update when all losses are multiplied by c, beside cᵉ times what it was."""
    declared = fresh().scale
    assert declared is not None
    for rows in (normal(TASKS, WIDTH, seed=21), conflicting(seed=22)):
        method = fresh()
        losses = some_losses(method, seed=21)
        update = step(method, losses, rows)
        length = update.norm()
        if not length > 0:
            continue
        for factor in _FACTORS:
            method = fresh()
            other = step(method, scaled_losses(method, losses, factor), rows * factor)
            grown = float(other.norm() / length)
            if abs(grown / factor**declared - 1) > _ROUNDING:
                seen = f"with losses and gradients times {factor:g} the update is {grown:.3g} times as long"
                fits = round(math.log(grown, factor), 3) + 0.0 if grown > 0 else math.nan
                yield f"{seen}, and must be {factor**declared:.3g} times: scale = {fits:.3g} fits, None is for no law"
                return
            if (turned := float((other / other.norm() - update / length).norm())) > _ROUNDING:
                seen = f"with losses and gradients times {factor:g} the update turns by {turned:.2g}"
                yield f"{seen}, and must keep its direction: declare scale = None if it need not"
                return


def no_conflict(fresh: Fresh, counts: range) -> Iterator[str]:
    """No update against any task's gradient: the first on every input, and those of a run."""
    worst, what = 0.0, ""
    for case, rows in solvable_cases().items():
        method = fresh()
        if len(rows) not in counts:
            continue
        if (least := _least_cosine(step(method, some_losses(method, len(rows)), rows), rows)) < worst:
            worst, what = least, case
    method = fresh()
    for number in range(5):
        rows = conflicting(seed=30 + number)
        if (least := _least_cosine(step(method, some_losses(method, seed=number), rows), rows)) < worst:
            worst, what = least, f"step {number + 1} of a run"
    if worst < -_ROUNDING:
        yield (
            f"at worst ({what}) an update has the cosine {worst:.2g} with a task's gradient, and no_conflict promises "
            "none below 0: mend the weights, or declare no_conflict = False"
        )


def _least_cosine(update: Tensor, rows: Tensor) -> float:
    length = update.norm().clamp(min=1e-300)
    return float((rows @ update / rows.norm(dim=1) / length).min())


def batched(fresh: Fresh) -> Iterator[str]:
    """Weights of a stack of Gram matrices beside those of each alone."""
    zero = torch.tensor([1.0, 0.0, 1.0, 1.0, 1.0])[:, None]
    first, second = normal(TASKS, WIDTH, seed=41), conflicting(seed=42)
    matrices = [gram(rows) for rows in (first, second, second * 1e3, first * zero, first * 0, normal(TASKS, WIDTH))]
    single = torch.stack([fresh().weights(matrix.clone()) for matrix in matrices])
    stack = torch.stack(matrices)
    for given in (stack, stack.view(2, 3, TASKS, TASKS)):
        weights = fresh().weights(given)
        if weights.shape != given.shape[:-1]:
            came, due = tuple(weights.shape), tuple(given.shape[:-1])
            yield f"a stack {tuple(given.shape)} gave weights {came}, and must give {due}: declare batched = False?"
            return
        off = max(difference(one, other) for one, other in zip(weights.view_as(single), single, strict=True))
        if off > _SOLVED:
            yield f"the weights are off by {off:.2g} of the largest, and must be those of each matrix alone"
            return


def known_weights(fresh: Fresh) -> Iterator[str]:
    """Weights that need no gradients, where a method ever has any, have their shape and are numbers."""
    method = fresh()
    for number in range(12):
        losses, rows = some_losses(method, seed=number), conflicting(seed=number)
        method.observe(losses)
        # Asked of a copy, because a method that answers has counted the step.
        known = copy.deepcopy(method).known_weights(losses.clone())
        if known is not None and (known.shape != (TASKS,) or not known.isfinite().all() or known.requires_grad):
            yield f"known_weights came out as {known}, and must be None or {TASKS} finite numbers without a graph"
            return
        step(method, losses, rows)


def two_samples(fresh: Fresh) -> Iterator[str]:
    """Weights of the gradients on two batches: shape, numbers, no graph; a second batch may lack tasks or all."""
    usual, second = conflicting(seed=51), normal(TASKS, WIDTH, seed=52)
    some = torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0])[:, None]
    cases = {
        "gradients at random": (usual, second),
        "no gradient on the second batch": (usual, second * 0),
        "two tasks absent from the second batch": (usual, second * some),
        "no gradient on the first batch": (usual * 0, second),
        "the same batch twice": (usual, usual),
        "two opposite batches": (usual, -usual),
        "a second batch 1e6 times the first": (usual, second * 1e6),
        "one task": (usual[:1], second[:1]),
    }
    for what, rows in cases.items():
        joint = gram(torch.cat(rows)).requires_grad_()
        method = fresh()
        if len(rows[0]) < method.least_tasks:
            continue
        method.observe(some_losses(method, len(rows[0])))
        before = joint.detach().clone()
        weights = method.pair_weights(joint)
        if weights.shape != (len(joint),):
            yield f"pair_weights came out in the shape {tuple(weights.shape)}, and must have ({len(joint)},), one a row"
            return
        if not weights.isfinite().all():
            yield f"pair_weights came out as {_numbers(weights)} from {what}, and must be finite"
            return
        if weights.requires_grad:
            yield "pair_weights came out with a graph, and must have none: detach the input first"
            return
        if not torch.equal(joint, before):
            yield "pair_weights changed its input in place, and must leave it as given: clone first"
            return


def samples(fresh: Fresh) -> Iterator[str]:
    """Weights from signal and noise: shape, numbers, no graph; noise of any size, or not known of a task."""
    rows, spread = conflicting(seed=61), normal(TASKS, WIDTH, seed=62)
    unknown = torch.tensor([1.0, torch.nan, 1.0, 1.0, 1.0])[:, None]
    cases = {
        "signal and noise at random": (rows, spread),
        "no noise": (rows, spread * 0),
        "no signal": (rows * 0, spread),
        "noise 1e6 times the signal": (rows, spread * 1e6),
        "noise common to all tasks": (rows, spread[:1].expand(TASKS, WIDTH)),
        "a task whose noise is not known": (rows * unknown, spread * unknown),
        "no task whose noise is known": (rows * torch.nan, spread * torch.nan),
        "one task": (rows[:1], spread[:1]),
    }
    for what, (means, deviations) in cases.items():
        method = fresh()
        if len(means) < method.least_tasks:
            continue
        for number in range(60):  # Some methods only watch at first.
            method.observe(some_losses(method, len(means), seed=number))
            noise = gram(deviations).requires_grad_()
            signal = (gram(means) - gram(deviations)).requires_grad_()
            before = signal.detach().clone(), noise.detach().clone()
            weights = method.sample_weights(signal, noise)
        if weights.shape != (len(means),):
            yield f"sample_weights came out in the shape {tuple(weights.shape)}, and must have ({len(means)},)"
            return
        if not weights.isfinite().all():
            yield f"sample_weights came out as {_numbers(weights)} from {what}, and must be finite"
            return
        if weights.requires_grad:
            yield "sample_weights came out with a graph, and must have none: detach the input first"
            return
        pairs = zip((signal, noise), before, strict=True)
        if any(not torch.equal(now.nan_to_num(), was.nan_to_num()) for now, was in pairs):
            yield "sample_weights changed its input in place, and must leave it as given: clone first"
            return


def _numbers(values: Tensor) -> str:
    return f"[{', '.join(f'{number:.3g}' for number in values.tolist())}]"


def reads_losses(fresh: Fresh) -> bool:
    """Whether the losses' values play a part in a step, which a method on gradients may well leave alone."""
    method = fresh()
    kind = type(method)
    if method.needs == "losses" or kind.loss_weights is not Method.loss_weights or kind.observe is not Method.observe:
        return True
    try:
        ask(method, some_losses(method), conflicting())
    except Exception:  # Other checks say so.
        return True
    return method._observed is None
