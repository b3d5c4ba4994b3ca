"""The role of the current gradient in an optimizer's updates: a report of plain numbers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.optim.optimizer import Optimizer

from motet.optim.linear import all_parameters, buffer_of, check_supported, coefficient, nominal_weight
from motet.optim.recorder import ATTACHED, MomentumRecorder, MomentumStep

_AGES = 8
"""Ages of which an optimizer's state alone gives the weights."""
_SHOWN = 12
"""Ages, and measured steps, that the text shows; `MomentumReport.rows` has all."""


@dataclass(frozen=True)
class MomentumReport:
    """What `momentum_report` found, in plain numbers.

    Attributes:
        optimizer: Name of its class.
        numbers: How many numbers were measured: the parameters' sizes added up.
        recorded: Whether a recorder measured steps; False where only the optimizer's state was there to ask.
        steps: The measured steps, oldest first; one, with what the state tells, without a recorder.
    """

    optimizer: str
    numbers: int
    recorded: bool
    steps: tuple[MomentumStep, ...]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One flat dictionary a step, for a table: ``share_0``, ``weight_0``, ``cosine_task_NAME``, ``beta_group_0``, …

        All have the same keys; what a step does not have is None.
        """
        ages = max((len(step.weights) for step in self.steps), default=0)
        groups = max((len(step.betas) for step in self.steps), default=0)
        tasks = self._tasks
        rows = []
        for step in self.steps:
            row = {name: getattr(step, name) for name in _PLAIN}
            row |= {f"beta_group_{i}": _at(step.betas, i) for i in range(groups)}
            row |= {f"share_{k}": _at(step.shares or (), k) for k in range(ages)}
            row |= {f"weight_{k}": _at(step.weights, k) for k in range(ages)}
            row |= {f"cosine_task_{name}": step.cosine_tasks.get(name) for name in tasks}
            names = ("plain", "preserved", "update")
            row |= {f"effective_rank_{name}": _at(step.effective_ranks or (), i) for i, name in enumerate(names)}
            rows.append(row)
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Nested dictionaries, lists and numbers, which JSON can hold."""
        return _plain(asdict(self))  # type: ignore[no-any-return]

    def median(self, name: str) -> float | None:
        """The median over the steps of one column of `rows`, None where no step has it."""
        return _median(row.get(name) for row in self.rows)

    @property
    def _tasks(self) -> list[str]:
        return list(dict.fromkeys(name for step in self.steps for name in step.cosine_tasks))

    def __str__(self) -> str:
        head = f"momentum of {self.optimizer}, {self.numbers:,} numbers: "
        if not self.steps:
            return head + "no step measured yet"
        if not self.recorded:
            return "\n".join(
                [f"{head}what its state tells (attach a MomentumRecorder for shares)", *self._state_lines()]
            )
        first, last = self.steps[0].step, self.steps[-1].step
        span = f"step {first}" if first == last else f"{len(self.steps)} steps from {first} to {last}"
        return "\n".join([f"{head}{span}, medians", *self._summary(), "", *self._ages(), "", *self._table()])

    def _state_lines(self) -> list[str]:
        step = self.steps[0]
        weights = " ".join(_text(w) for w in step.weights)
        return [
            f"  β {_text(step.beta)}; weight of the current gradient in the update by β {_text(step.nominal, 4)}",
            f"  weights by age if β stays: {weights}",
            f"  norm of the momentum {_text(step.momentum_norm, 4)}",
        ]

    def _summary(self) -> list[str]:
        lines = [
            f"  the current gradient is {_text(self.median('instant'))} of what the update is made of "
            f"({_text(self.median('nominal'), 4)} by β alone)",
            f"  cosine of the update with the current gradient {_text(self.median('cosine_gradient'))}, "
            f"with the momentum before it {_text(self.median('cosine_momentum'))}",
        ]
        if self._tasks:
            each = ", ".join(f"{name} {_text(self.median(f'cosine_task_{name}'))}" for name in self._tasks)
            lines.append(f"  cosine of the update with the gradient of: {each}")
            untold = [step.reason for step in self.steps if step.reason is not None]
            if untold:
                lines.append(f"  of {len(untold)} steps neither cosines nor change can be told: {untold[-1]}")
            change = self.median("counterfactual")
            lines.append(
                f"  given the plain sum instead, the update would have changed by {_text(change)} of its length"
            )
        if self.median("effective_rank_plain") is not None:
            ranks = (
                f"{name} {_text(self.median(f'effective_rank_{name}'), 1)}" for name in ("plain", "preserved", "update")
            )
            lines.append(f"  effective rank: {', '.join(ranks)}")
        return lines

    def _ages(self) -> list[str]:
        ages = range(min(_SHOWN, max(len(step.weights) for step in self.steps)))
        found = [(step.shares, step.weights) for step in self.steps]
        older = [
            _median(1 - sum(values[: len(ages)]) for values in column if values is not None)
            for column in zip(*found, strict=True)
        ]
        shares, weights = ([self.median(f"{name}_{k}") for k in ages] for name in ("share", "weight"))
        return _aligned(
            [
                ("age of the gradient", *map(str, ages), "older"),
                ("share of the momentum", *map(_text, shares), _text(older[0])),
                ("weight by β", *map(_text, weights), _text(older[1])),
            ]
        )

    def _table(self) -> list[str]:
        columns = ["beta", "instant", "cosine_gradient", "cosine_momentum"]
        columns += [f"cosine_task_{name}" for name in self._tasks]
        columns += ["counterfactual"] if self._tasks else []
        heads = ["step", *(column.replace("cosine_task_", "cosine_") for column in columns)]
        rows = self.rows
        shown = min(_SHOWN, len(rows))
        chosen = [rows[round(i * (len(rows) - 1) / max(1, shown - 1))] for i in range(shown)]
        return _aligned([heads, *([str(row["step"]), *(_text(row[column]) for column in columns)] for row in chosen)])


def momentum_report(source: Optimizer | MomentumRecorder) -> MomentumReport:
    """What share the current gradient has in an optimizer's updates, and what it changes.

    Args:
        source: A `MomentumRecorder`, attached or removed; or an optimizer. Of an optimizer the one attached recorder
            is asked. Without one the report has what the state alone tells: β of the last step, the weights that it
            gives to gradients by age if it stays, and the momentum's norm; shares and cosines need gradients of the
            past and are None.

    >>> weight = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    >>> optimizer = torch.optim.Adam([weight])
    >>> with MomentumRecorder(optimizer, window=2, every=100) as recorder:
    ...     for _ in range(100):
    ...         weight.grad = torch.ones_like(weight)
    ...         optimizer.step()
    >>> report = momentum_report(recorder)
    >>> [round(share, 4) for share in report.steps[0].shares]
    [0.1, 0.09]
    >>> round(report.steps[0].cosine_gradient, 4)
    1.0
    """
    if isinstance(source, MomentumRecorder):
        recorder = source
    else:
        if not isinstance(source, Optimizer):
            raise TypeError(f"momentum_report takes an optimizer or a MomentumRecorder, not {type(source).__name__}")
        found = [each for each in ATTACHED if each.optimizer is source]
        if len(found) > 1:
            raise ValueError(f"{len(found)} recorders are attached to this optimizer: give the one that you mean")
        if not found:
            return _from_state(source)
        recorder = found[0]
    numbers = sum(p.numel() for p in recorder.parameters)
    return MomentumReport(type(recorder.optimizer).__name__, numbers, True, tuple(recorder.steps))


@torch.no_grad()
def _from_state(optimizer: Optimizer) -> MomentumReport:
    check_supported(optimizer)
    numbers = sum(p.numel() for p in all_parameters(optimizer))
    beta = nominal = square = 0.0
    weights = [0.0] * _AGES
    betas: list[float | None] = []
    for group in optimizer.param_groups:
        whole, mean = coefficient(group), 0.0
        count = sum(p.numel() for p in group["params"])
        for j, p in enumerate(group["params"]):
            own = float(whole[j] if isinstance(whole, torch.Tensor) else whole)
            share = p.numel() / max(1, numbers)
            beta += own * share
            mean += own * p.numel() / max(1, count)
            nominal += nominal_weight(group, own) * share
            weights = [w + (1 - own) * own**k * share for k, w in enumerate(weights)]
            m = optimizer.state.get(p, {}).get(buffer_of(group))
            square += 0.0 if m is None else float(torch.linalg.vector_norm(m.float())) ** 2
        betas.append(mean if count else None)
    norm = math.sqrt(square)
    step = MomentumStep(None, beta, tuple(betas), nominal, tuple(weights), norm if math.isfinite(norm) else None)
    return MomentumReport(type(optimizer).__name__, numbers, False, (step,))


_PLAIN = (
    "step",
    "beta",
    "nominal",
    "instant",
    "older",
    "cosine_gradient",
    "cosine_momentum",
    "counterfactual",
    "gradient_norm",
    "momentum_norm",
    "update_norm",
)


def _at(values: Sequence[Any], i: int) -> Any:
    return values[i] if i < len(values) else None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (tuple, list)) else value


def _median(values: Iterable[Any]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _text(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *rest in rows:
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        lines.append("  " + "  ".join([first.ljust(widths[0]), *cells]))
    return lines
