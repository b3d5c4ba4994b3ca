"""What every method must hold, and one function that checks it."""

import copy
import re
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from motet import methods
from motet.linalg import combine, gram
from motet.methods import GramMethod, JacobianMethod, LossMethod, Method
from motet.testing.method_report import MethodReport, measure
from motet.testing.steps import WIDTH, conflicting, difference, loss_cases, normal, row_cases, some_losses, step, steps

_Fresh = Callable[[], Method]
_Check = Callable[[_Fresh], Iterator[str]]
_TOLERANCE = 1e-5
"""Of the largest entry: what two ways to one answer may differ by in float64. Motet's solvers stop at 1e-6."""
_REMEMBER = "keep all state as tensors through self.recall and self.remember"


def check_method(method: Method | Callable[[], Method] | str, *, report: bool = False) -> MethodReport | None:
    """Check all that motet relies on in a method, a user's own or one of the registry.

    Weights and directions have their shapes, are finite for zero, duplicated, dependent and badly scaled gradients
    and for all losses above `Method.lower_bound`, are the same in float32 and float64, and carry no graph. Inputs stay
    as they are. The same state and input give the same answer, and torch's global generator is left alone.
    The tasks' order does not matter, unless the method has a generator. A Gram method's direction is Jᵀ times its
    weights. A saved state continues bit for bit. An absent task keeps its rows of state. A loss not above the
    bound is an error that names its index; a task that is not finite leaves later steps alone.

    Args:
        method: One that has made no step (copies are checked), a class or function that makes one, or a name.
        report: Whether to measure step length, scale and conflict, too, and to return them.

    Raises:
        AssertionError: with one line for each thing that does not hold.
        TypeError: if this is no method.
        ValueError: if it has made steps and holds state.

    Cost:
        About 500 steps of five tasks, and 150 for the report.
    """
    original = _make(method)
    fresh = partial(copy.deepcopy, original)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        faults = [*_run(fresh, _single(original))]
        repeated = [*_run(fresh, {"the same steps twice": _repeat})]
        # Where two runs never agree, comparing others would only say so again.
        faults += repeated or _run(fresh, _compared(original))
        if faults:
            raise AssertionError("\n- ".join([f"{original!r} does not keep what motet relies on:", *_lines(faults)]))
        return measure(fresh) if report else None


def _make(method: Method | Callable[[], Method] | str) -> Method:
    make = partial(methods.get, method) if isinstance(method, str) else method
    made = make if isinstance(make, Method) else make()
    if not isinstance(made, LossMethod | GramMethod | JacobianMethod):
        raise TypeError(f"{made!r} must derive from LossMethod, GramMethod or JacobianMethod to be a method")
    if made is method and made._state:
        raise ValueError(f"{made!r} has made steps and holds the state {', '.join(made._state)}: pass a new one")
    return made


def _run(fresh: _Fresh, checks: dict[str, _Check]) -> Iterator[tuple[str, str]]:
    """What was done and what is wrong, for each fault."""
    for done, check in checks.items():
        try:
            yield from ((done, fault) for fault in check(fresh))
        except Exception as error:  # Whatever a user's method raises belongs in the report.
            first = (str(error).splitlines() or [""])[0]
            yield done, f"raised {type(error).__name__}, and must give an answer: {first}"


def _lines(faults: list[tuple[str, str]]) -> list[str]:
    """One line for each fault, with all that leads to it."""
    causes: dict[str, list[str]] = {}
    for done, fault in faults:
        causes.setdefault(fault, []).append(done)
    more = {fault: f" and {len(done) - 3} more" if len(done) > 3 else "" for fault, done in causes.items()}
    return [f"{', '.join(done[:3])}{more[fault]}: {fault}" for fault, done in causes.items()]


def _single(method: Method) -> dict[str, _Check]:
    """The checks of one run, by what is done."""
    checks: dict[str, _Check] = {}
    on_losses = isinstance(method, LossMethod)
    if not on_losses:
        for what, rows in row_cases().items():
            checks[what] = partial(_finite, losses=some_losses(method, len(rows)), rows=rows)
    if on_losses or type(method).loss_weights is not Method.loss_weights:
        for what, losses in loss_cases(method.lower_bound).items():
            checks[what] = partial(_finite, losses=losses, rows=normal(len(losses), WIDTH))
    checks |= {"inputs that require gradients": _graph, "a step": _kept, "a task absent from a step": _absent}
    if (bound := method.lower_bound) is not None:
        checks |= {f"a loss of {bad:g}": partial(_bound, bad=bad) for bad in (bound, bound - 1)}
    for bad in (torch.nan, torch.inf):
        checks[f"a loss of {bad}"] = partial(_broken_task, loss=bad, gradient=1.0)
        if not on_losses:
            checks[f"a gradient of {bad}"] = partial(_broken_task, loss=1.0, gradient=bad)
    return checks


def _compared(method: Method) -> dict[str, _Check]:
    """The checks that compare two runs."""
    checks: dict[str, _Check] = {"float32 in place of float64": _precision, "a resume after 55 steps": _resume}
    if method.generator is None:
        checks["the tasks in another order"] = _order
    if isinstance(method, GramMethod) and method.needs == "gram":
        checks["direction(J) beside weights(J Jᵀ)"] = _direction
    return checks


def _answers(fresh: _Fresh, losses: Tensor, rows: Tensor) -> Iterator[tuple[str, Tensor, int]]:
    """Name, value and due length of all that a method says in three steps on one input."""
    method, other = fresh(), fresh()
    for _ in range(3):
        if isinstance(method, LossMethod):
            yield "weights", method.weights(losses.clone()), len(losses)
            method.update(losses)
            continue
        assert isinstance(method, GramMethod | JacobianMethod)
        scaled = rows.clone()
        if (factors := method.loss_weights(losses.clone())) is not None:
            yield "loss_weights", factors, len(losses)
            scaled = factors.to(rows)[:, None] * rows
        if isinstance(other, GramMethod):
            yield "weights", other.weights(gram(scaled)), len(rows)
        yield "direction", method.direction(scaled), rows.shape[1]


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
    if isinstance(other, GramMethod):
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
        _ = method.weights(losses) if isinstance(method, LossMethod) else method.loss_weights(losses)
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


def _absent(fresh: _Fresh) -> Iterator[str]:
    method = fresh()

    def on(rows: list[int], count: int) -> dict[str, Tensor]:
        with method.on_tasks(torch.tensor(rows), count):
            step(method, some_losses(method, count, seed=count)[rows], conflicting(count, seed=count)[rows])
        return _state(method)

    on([*range(6)], 6)
    before, after = on([*range(6)], 6), on([0, 2, 3, 5, 6], 7)
    for name, rows in before.items():
        # Task 6 joins, which tells rows of tasks from other state.
        if (
            rows.dim()
            and len(rows) == 6
            and len(after[name]) == 7
            and not torch.equal(rows[[1, 4]], after[name][[1, 4]])
        ):
            yield f"its rows of the state {name!r} changed, and must stay: write through self.remember alone"
    on([*range(7)], 7)


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
    method, other, rows = fresh(), fresh(), conflicting()
    assert isinstance(method, GramMethod)
    assert isinstance(other, GramMethod)
    off = difference(method.direction(rows.clone()), combine(other.weights(gram(rows)), rows))
    if off > _TOLERANCE:
        yield f"direction is off Jᵀw by {off:.2g} of its largest entry, and must be it: leave it to GramMethod"


def _resume(fresh: _Fresh) -> Iterator[str]:
    method, resumed = fresh(), fresh()
    steps(method, 0, 55)  # DWA fills its windows by step 50 and STCH its warm-up by 100: before and after.
    state, saved = method.state_dict(), _state(method)
    if wrong := [repr(name) for name in state if name not in saved]:
        yield f"state_dict holds {', '.join(wrong)}, and must hold tensors only: {_REMEMBER}"
        return
    expected = steps(method, 55, 105)
    if any(not torch.equal(state[name], value) for name, value in saved.items()):
        yield "the saved state changed as the method went on, and must stay: clone what state_dict returns"
    resumed.load_state_dict(saved)
    if difference(steps(resumed, 55, 105), expected) > 0:
        yield f"the updates are not those of an uninterrupted run, and must be, bit for bit: {_REMEMBER}"


def _state(method: Method) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in method.state_dict().items() if isinstance(value, Tensor)}
