"""What every method must hold, and one function that checks it."""

import copy
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from motet import methods
from motet.linalg import combine, gram
from motet.methods import Method
from motet.testing import promises
from motet.testing.method_report import MethodReport, measure
from motet.testing.oracle import Oracle, oracle_check
from motet.testing.steps import (
    TASKS,
    WIDTH,
    ask,
    conflicting,
    difference,
    loss_cases,
    normal,
    row_cases,
    some_losses,
    step,
    steps,
)

_Fresh = Callable[[], Method]
_Check = Callable[[_Fresh], Iterator[str]]
_TOLERANCE = 1e-5
"""Of the largest entry: what two ways to one answer may differ by in float64. Motet's solvers stop at 1e-6."""
_TORCH = str(Path(torch.__file__).parent)
_REMEMBER = "keep all state as tensors through self.recall and self.remember"


def check_method(
    method: Method | Callable[[], Method] | str, *, report: bool = False, oracle: Oracle | None = None
) -> MethodReport | None:
    """Check all that motet relies on in a method, a user's own or one of the registry.

    Weights and directions have their shapes, are finite for zero, duplicated, dependent and badly scaled gradients
    and for all losses above `Method.lower_bound`, are the same in float32 and float64, and carry no graph. Inputs stay
    as they are. The same state and input give the same answer, and torch's global generator is left alone.
    A Gram method's direction is Jᵀ times its weights. A saved state continues bit for bit. An absent task keeps its
    rows of state. A loss not above the bound is an error that names its index; a task that is not finite leaves later
    steps alone.

    What a method declares holds, too: all losses times 1e-6 … 1e6 change the first update as `Method.scale` says;
    with `Method.no_conflict` no update goes against a task's gradient where gradients are independent; the tasks'
    order does not matter, unless `Method.symmetric` is False or there is a generator; with `Method.batched` many Gram
    matrices at once give the weights of each alone; with `Method.two_samples` a second batch may lack tasks, and
    with `Method.samples` a task may lack samples.

    Args:
        method: One that has made no step (copies are checked), a class or function that makes one, or a name. A
            method with options of one value a task must be made for five tasks, and one with a main task for no
            more: its `Method.least_tasks` says which inputs have too few for it.
        report: Whether to measure step length, scale and conflict, too, and to return them.
        oracle: The method's definition, solved in another way. Its parameters name what it is given: any of
            ``losses`` (K,), ``gram`` (K, K), ``jacobian`` (K, P), of the losses themselves and in float64, and
            ``generator``, a copy of the method's. It returns the direction (P,) if it takes ``jacobian``, else weights
            (K,), or None where the definition has no answer. First updates must agree to 1e-4 of the largest entry;
            where a method keeps state, what later steps do with it is not compared.

    Raises:
        AssertionError: with one line for each thing that does not hold.
        TypeError: if this is no method.
        ValueError: if it has made steps and holds state, is not made for five tasks, or the oracle
            takes what there is not.

    Cost:
        About 400 steps of five tasks, 550 with a state, and 150 for the report.

    >>> check_method("mgda")
    >>> check_method("sum", oracle=lambda jacobian: jacobian.sum(0))
    """
    original = _make(method)
    fresh = partial(copy.deepcopy, original)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        counts = _counts(fresh)
        faults = [*_run(fresh, _single(fresh, counts))]
        repeated = [*_run(fresh, {"the same steps twice": _repeat})]
        # Where two runs never agree, comparing others would only say so again.
        faults += repeated or _run(fresh, _compared(original, counts))
        if oracle is not None and not repeated:
            faults += _run(fresh, {"the oracle": oracle_check(oracle, counts)})
        if faults:
            raise AssertionError("\n- ".join([f"{original!r} does not keep what motet relies on:", *_lines(faults)]))
        return measure(fresh) if report else None


def _make(method: Method | Callable[[], Method] | str) -> Method:
    make = partial(methods.get, method) if isinstance(method, str) else method
    made = make if isinstance(make, Method) else make()
    if not isinstance(made, Method) or getattr(made, "needs", None) not in ("losses", "gram", "jacobian"):
        raise TypeError(f"{made!r} must derive from LossMethod, GramMethod or JacobianMethod to be a method")
    held = [name for name in made.state_dict() if name.rpartition(".")[2] != "generator"]  # A wrapper's: inner.…
    if made is method and held:
        raise ValueError(f"{made!r} has made steps and holds the state {', '.join(held)}: pass a new one")
    return made


def _counts(fresh: _Fresh) -> range:
    """How many tasks the method takes: `Method.least_tasks` and more, or five and no others, as `Method.chosen` says.

    Raises:
        ValueError: if five are not among them.
    """
    if (least := fresh().least_tasks) > TASKS:
        raise ValueError(f"{fresh()!r} wants {least} tasks or more, and check_method works with {TASKS}")

    def refusal(tasks: int) -> str | None:
        method = fresh()
        try:
            ask(method, some_losses(method, tasks), conflicting(tasks))
        except ValueError as error:
            return str(error) if "one a task" in str(error) else None
        except Exception:  # The checks say so.
            return None
        return None

    if refused := refusal(TASKS):
        raise ValueError(f"{refused}; check_method works with {TASKS}: make the method for {TASKS} tasks")
    return range(TASKS, TASKS + 1) if refusal(TASKS - 1) else range(least, sys.maxsize)


def _run(fresh: _Fresh, checks: dict[str, _Check]) -> Iterator[tuple[str, str]]:
    """What was done and what is wrong, for each fault."""
    for done, check in checks.items():
        try:
            yield from ((done, fault) for fault in check(fresh))
        except Exception as error:  # Whatever a user's method raises belongs in the report.
            first = (str(error).splitlines() or [""])[0]
            yield done, f"raised {type(error).__name__}, and must give an answer: {first}{_where(error)}"


def _where(error: Exception) -> str:
    """The last line of the method's own, or of the check's where there is none, which an error came through."""
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_TORCH)]
    return f" (line {own[-1].lineno} of {Path(own[-1].filename).name})" if own else ""


def _lines(faults: list[tuple[str, str]]) -> list[str]:
    """One line for each fault, with all that leads to it."""
    causes: dict[str, list[str]] = {}
    for done, fault in faults:
        causes.setdefault(fault, []).append(done)
    more = {fault: f" and {len(done) - 3} more" if len(done) > 3 else "" for fault, done in causes.items()}
    return [f"{', '.join(done[:3])}{more[fault]}: {fault}" for fault, done in causes.items()]


def _single(fresh: _Fresh, counts: range) -> dict[str, _Check]:
    """The checks of one run, by what is done, on as many tasks as the method is made for."""
    method = fresh()
    checks: dict[str, _Check] = {}
    inputs: dict[str, tuple[Tensor, Tensor]] = {}
    if method.needs != "losses":
        inputs |= {what: (some_losses(method, len(rows)), rows) for what, rows in row_cases().items()}
    if promises.reads_losses(fresh):
        given = loss_cases(method.lower_bound)
        inputs |= {what: (losses, normal(len(losses), WIDTH)) for what, losses in given.items()}
    for what, (losses, rows) in inputs.items():
        if len(losses) in counts:
            checks[what] = partial(_finite, losses=losses, rows=rows)
    checks |= {"inputs that require gradients": _graph, "a step": _kept}
    checks["a task absent from a step"] = partial(_absent, joins=TASKS + 1 in counts)
    if (bound := method.lower_bound) is not None:
        checks |= {f"a loss of {bad:g}": partial(_bound, bad=bad) for bad in (bound, bound - 1)}
    for bad in (torch.nan, torch.inf):
        checks[f"a loss of {bad}"] = partial(_broken_task, loss=bad, gradient=1.0)
        if method.needs != "losses":
            checks[f"a gradient of {bad}"] = partial(_broken_task, loss=1.0, gradient=bad)
    if type(method).known_weights is not Method.known_weights:
        checks["known weights"] = promises.known_weights
    if method.two_samples:
        checks["a second batch"] = promises.two_samples
    if method.samples:
        checks["noise between samples"] = promises.samples
    return checks


def _compared(method: Method, counts: range) -> dict[str, _Check]:
    """The checks that compare two runs, and those of what is declared."""
    checks: dict[str, _Check] = {"float32 in place of float64": _precision, "a resume from the saved state": _resume}
    if method.generator is None and method.symmetric:
        checks["the tasks in another order"] = _order
    if method.needs == "gram":
        checks["direction(J) beside weights(J Jᵀ)"] = _direction
    if method.scale is not None:
        checks[f"the declared scale {method.scale:.3g}"] = promises.scale
    if method.no_conflict:
        checks["the declared no_conflict"] = partial(promises.no_conflict, counts=counts)
    if method.batched and method.generator is None:
        checks["the declared batched"] = promises.batched
    return checks


def _answers(fresh: _Fresh, losses: Tensor, rows: Tensor) -> Iterator[tuple[str, Tensor, int]]:
    """Name, value and due length of all that a method says in three steps on one input."""
    method, other = fresh(), fresh()
    for _ in range(3):
        for each in (method, other):
            each.observe(losses.clone())
        known, _ = method.known_weights(losses.clone()), other.known_weights(losses.clone())
        if known is not None:
            yield "known_weights", known, len(losses)
        elif method.needs == "losses":
            yield "weights", method.weights(losses.clone()), len(losses)
        else:
            scaled = rows.clone()
            if (factors := method.loss_weights(losses.clone())) is not None:
                yield "loss_weights", factors, len(losses)
                scaled = factors.to(rows)[:, None] * rows
            if method.needs == "gram":
                yield "weights", other.weights(gram(scaled)), len(rows)
            yield "direction", method.direction(scaled), rows.shape[1]
        for each in (method, other):
            each.update(losses.clone())


def _finite(fresh: _Fresh, losses: Tensor, rows: Tensor) -> Iterator[str]:
    for dtype in (torch.float64, torch.float32):
        for name, value, length in _answers(fresh, losses.to(dtype), rows.to(dtype)):
            if value.shape != (length,):
                came, due = f"in the shape {tuple(value.shape)}", f"have the shape ({length},)"
            elif not value.is_floating_point() or (name == "direction" and value.dtype != dtype):
                came, due = f"in {value.dtype}", "have the dtype of the Jacobian, as weights have a floating one"
            elif not value.isfinite().all():
                came = f"as [{', '.join(f'{number:.3g}' for number in value.tolist())}]"
                due = "be finite: look for a division by zero, a logarithm or an overflow"
            else:
                continue
            yield f"{name} came out {came} from {dtype}, and must {due}"
            return  # The other answers have the same cause.


def _graph(fresh: _Fresh) -> Iterator[str]:
    losses, rows = some_losses(fresh()).requires_grad_(), conflicting().requires_grad_()
    if keep := sorted({name for name, value, _ in _answers(fresh, losses, rows) if value.requires_grad}):
        yield f"{' and '.join(keep)} came out with a graph, and must have none: detach the input first"


def _kept(fresh: _Fresh) -> Iterator[str]:
    method, other = fresh(), fresh()
    given = {"losses": some_losses(method), "jacobian": conflicting(), "gram": gram(conflicting())}
    before = {name: value.clone() for name, value in given.items()}
    step(method, given["losses"], given["jacobian"])
    if method.needs != "losses":
        fresh().direction(given["jacobian"])
    if method.needs == "gram":
        other.weights(given["gram"])
    if changed := [name for name in given if not torch.equal(given[name], before[name])]:
        yield f"{' and '.join(changed)} changed in place, and must stay as given: clone first"
    flag = method.converged
    if not (isinstance(flag, bool) or (isinstance(flag, Tensor) and flag.shape == () and flag.dtype == torch.bool)):
        yield f"converged came out as {flag!r}, and must be a bool or a 0-dim bool tensor"


def _bound(fresh: _Fresh, bad: float) -> Iterator[str]:
    method = fresh()
    losses = some_losses(method)
    losses[3] = bad
    try:
        ask(method, losses, conflicting())
    except ValueError as error:
        if not re.search(r"\b3\b", str(error)):
            yield f"the error does not name the loss, whose index is 3: {error}"
    else:
        yield "was accepted, and must be a ValueError that names its index: use self.above_bound(losses)"


def _broken_task(fresh: _Fresh, loss: float, gradient: float) -> Iterator[str]:
    method = fresh()
    steps(method, 0, 2)
    losses, rows = some_losses(method), conflicting()
    losses[1] *= loss
    rows[1] *= gradient
    try:
        step(method, losses, rows)
    except (ValueError, ArithmeticError):
        pass
    except Exception as error:
        yield f"raised {type(error).__name__}, and must give numbers, finite or not, or raise a ValueError"
    bad = [name for name, value in _state(method).items() if not value.isfinite().all()]
    if bad or not steps(method, 2, 5).isfinite().all():
        held = f" {', '.join(map(repr, bad))}" if bad else ""
        yield f"it stays in the state{held}, and later steps must not know of it: remember finite numbers only"


def _absent(fresh: _Fresh, joins: bool) -> Iterator[str]:
    method = fresh()
    tasks = 6 if joins else TASKS
    more = tasks + joins

    def on(rows: list[int], count: int) -> dict[str, Tensor]:
        with method.on_tasks(torch.tensor(rows), count):
            step(method, some_losses(method, count, seed=count)[rows], conflicting(count, seed=count)[rows])
        return _state(method)

    on([*range(tasks)], tasks)
    before, after = on([*range(tasks)], tasks), on([row for row in range(more) if row not in (1, 4)], more)
    for name, rows in before.items():
        # That a task joins tells rows of tasks from other state.
        of_tasks = rows.dim() and len(rows) == tasks and len(after[name]) == more
        if of_tasks and not torch.equal(rows[[1, 4]], after[name][[1, 4]]):
            yield f"its rows of the state {name!r} changed, and must stay: write through self.remember alone"
    on([*range(more)], more)


def _repeat(fresh: _Fresh) -> Iterator[str]:
    before = torch.get_rng_state()
    one, other = steps(fresh(), 0, 3), steps(fresh(), 0, 3)
    if not torch.equal(torch.get_rng_state(), before):
        yield "torch's global generator moved, and must not: call self.use_generator(None), draw from self.generator"
    elif difference(one, other) > 0:
        yield f"two new copies gave different updates, and must give the same: {_REMEMBER}"


def _precision(fresh: _Fresh) -> Iterator[str]:
    losses, rows = some_losses(fresh()).float(), conflicting().float()
    double = step(fresh(), losses.double(), rows.double())
    off = difference(step(fresh(), losses, rows).double(), double)
    if off > 1e-3:
        yield f"the update is off by {off:.2g} of its largest entry, and must be the same: compute in float64"


def _order(fresh: _Fresh) -> Iterator[str]:
    off = difference(steps(fresh(), 0, 3, torch.tensor([3, 0, 4, 2, 1])), steps(fresh(), 0, 3))
    if off > _TOLERANCE:
        yield f"the update is off by {off:.2g} of its largest entry, and must be the same: treat all tasks alike"


def _direction(fresh: _Fresh) -> Iterator[str]:
    method, other = fresh(), fresh()
    off = 0.0
    for number in range(3):
        rows = conflicting(seed=number)
        for each in (method, other):
            each.observe(some_losses(method, seed=number))
        off = max(off, difference(method.direction(rows.clone()), combine(other.weights(gram(rows)), rows)))
    if off > _TOLERANCE:
        yield f"direction is off Jᵀw by {off:.2g} of its largest entry, and must be it: leave it to GramMethod"


def _resume(fresh: _Fresh) -> Iterator[str]:
    method, resumed = fresh(), fresh()
    steps(method, 0, 5)
    # DWA fills its windows by step 50 and STCH its warm-up by 100: before and after. Without state, less will do.
    first, last = (55, 105) if method.state_dict() else (15, 25)
    steps(method, 5, first)
    state, saved = method.state_dict(), _state(method)
    if wrong := [repr(name) for name in state if name not in saved]:
        yield f"state_dict holds {', '.join(wrong)}, and must hold tensors only: {_REMEMBER}"
        return
    expected = steps(method, first, last)
    if any(not torch.equal(state[name], value) for name, value in saved.items()):
        yield "the saved state changed as the method went on, and must stay: clone what state_dict returns"
    resumed.load_state_dict(saved)
    if difference(steps(resumed, first, last), expected) > 0:
        moved = _moved(vars(fresh()), vars(method))
        unsaved = f"{', '.join(moved)} changed and is not saved; " if moved else ""
        yield f"the updates are not those of an uninterrupted run, and must be, bit for bit: {unsaved}{_REMEMBER}"


def _moved(before: dict[str, object], after: dict[str, object]) -> list[str]:
    """Names of attributes of a method's own that steps have changed."""
    own = {name: repr(value) for name, value in after.items() if name not in vars(Method())}
    # An address in memory says nothing.
    return [f"self.{name}" for name, now in own.items() if " at 0x" not in now and now != repr(before.get(name))]


def _state(method: Method) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in method.state_dict().items() if isinstance(value, Tensor)}
