"""A method's first update beside its definition, which the caller solves in another way, however slowly."""

import copy
import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from motet.linalg import combine, gram
from motet.methods import Method
from motet.testing.steps import ask, loss_cases, row_cases, solvable_cases, some_losses, steps

Oracle = Callable[..., Any]
"""Takes what its parameters name, of ``losses`` (K,), ``gram`` (K, K), ``jacobian`` (K, P) and ``generator``. Returns
the direction (P,) if it takes ``jacobian``, else weights (K,), as a tensor, an array or a list, or None where the
definition has no answer."""

_TAKES = ("losses", "gram", "jacobian", "generator")
TOLERANCE = 1e-4
"""Of the largest entry. Motet's solvers stop at 1e-6, generic ones that an oracle may use often sooner."""


def parameters(oracle: Oracle) -> tuple[str, ...]:
    """What an oracle takes.

    Raises:
        ValueError: if it takes something else.
    """
    names = tuple(inspect.signature(oracle).parameters)
    if not names or not set(names) <= set(_TAKES):
        raise ValueError(
            f"the oracle takes ({', '.join(names)}), and its parameters must be among {', '.join(_TAKES)}: "
            "their names say what it is given"
        )
    return names


def first_is_all(fresh: Callable[[], Method]) -> bool:
    """Whether a method does in every step what it does in the first, so that an oracle of one update is all of it.

    It is not where three steps leave a state other than random numbers, or where there is a second batch, which an
    oracle is not given.
    """
    method = fresh()
    steps(method, 0, 3)
    return not (method.two_samples or any(name.rpartition(".")[2] != "generator" for name in method.state_dict()))


def oracle_check(oracle: Oracle, counts: range) -> Callable[[Callable[[], Method]], Iterator[str]]:
    """The check of a method against an oracle, on as many tasks as the method is made for."""
    taken = parameters(oracle)

    def check(fresh: Callable[[], Method]) -> Iterator[str]:
        worst, what, answers = 0.0, "", 0
        for case, (losses, rows) in _inputs(fresh()).items():
            if len(losses) not in counts:
                continue
            method = fresh()
            expected = _answer(oracle, taken, losses, rows, method)
            if expected is None:
                continue
            answers += 1
            off = _off(ask(method, losses, rows), expected, rows)
            if off > worst:
                worst, what = off, case
        if not answers:
            yield "it has no answer on any input, and must have one on some: look for a condition that never holds"
        elif worst > TOLERANCE:
            yield f"at worst ({what}) the update is off the oracle's by {worst:.2g} of its largest entry"

    return check


def _inputs(method: Method) -> dict[str, tuple[Tensor, Tensor]]:
    """Losses (K,) and their gradients (K, P).

    A method that does not look at gradients gets special losses, too, with unit vectors, which show every weight.
    """
    rows = {**row_cases(), **solvable_cases()}
    cases = {what: (some_losses(method, len(matrix)), matrix) for what, matrix in rows.items()}
    if method.needs == "losses":
        for what, losses in loss_cases(method.lower_bound).items():
            if losses.isfinite().all():
                cases[what] = losses, torch.eye(len(losses), dtype=losses.dtype)
    return cases


def _answer(oracle: Oracle, taken: tuple[str, ...], losses: Tensor, rows: Tensor, method: Method) -> Tensor | None:
    given: dict[str, Any] = {"losses": losses.clone(), "jacobian": rows.clone(), "gram": gram(rows)}
    given["generator"] = copy.deepcopy(method.generator)
    answer = oracle(**{name: given[name] for name in taken})
    if answer is None:
        return None
    answer = torch.as_tensor(answer, dtype=torch.float64)
    due = rows.shape[1] if "jacobian" in taken else len(rows)
    if answer.shape != (due,):
        raise ValueError(f"the oracle's answer has the shape {tuple(answer.shape)}, and must have ({due},)")
    return answer if "jacobian" in taken else combine(answer, rows)


def _off(update: Tensor, expected: Tensor, rows: Tensor) -> float:
    """Largest difference over the oracle's largest entry; an oracle's zero is one to the rounding of the rows."""
    norms = rows.norm(dim=1)
    least = norms[norms > 0].amin() if (norms > 0).any() else norms.new_ones(())
    size = expected.abs().max()
    if size <= 1e-9 * least:
        size = least
    off = float((update - expected).abs().max() / size)
    return off if math.isfinite(off) else math.inf
