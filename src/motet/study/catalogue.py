"""What the command line shows of methods and problems, and the documentation's table of methods."""

import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from motet.methods.registry import Entry
from motet.problems.base import Problem
from motet.study import architectures
from motet.study.optimizers import OPTIONS

_TWO, _SAMPLES = "two batches", "single samples"
_KINDS = {
    "Weights from the losses: one backward pass, as the plain sum": ("losses", "extra-forward"),
    "Weights from the Gram matrix of the tasks' gradients, on any route": ("gram",),
    "Weights from two batches (exact route), or single samples (last-layer, features)": (_TWO, _SAMPLES),
    "Directions from the gradients themselves, on the exact route or at the features": ("jacobian",),
}
"""Headings and what is under them: costs, or methods that need a second batch or look at single samples."""
_WRAPPERS = (
    ("ema=0.9+METHOD", "averages the method's weights over the steps", "EMA"),
    ("log+METHOD", "gives the method log-losses, so that no task's unit of measurement matters", "LogLosses"),
    ("every=10+METHOD", "asks the method for weights every tenth step and keeps them in between", "Every"),
    ("prefer=[2,1]+METHOD", "multiplies losses and gradients by a preference, one number a task", "Preference"),
)
"""What goes around a method: as an arm, what it does, its class."""
_AROUND = "Around a method, as arms of motet compare"
_GROUPED = (
    ("groups:option=value,…", "one update a group of tasks, learnt by what helps what", "GroupedUpdates"),
    ("groups:released", "the same as its authors released it", "GroupedUpdates.released"),
    ("groups:random=3", "control: three groups drawn at random and kept", ""),
    ("groups:fixed=[[0,1],[2]]", "control: the same groups from the first batch to the last", ""),
    ("sum:steps=3", "control: plain sum, three optimizer steps on every batch", ""),
    ("sum:epochs=3", "control: plain sum, three times the epochs", ""),
)
"""Arms with several updates a batch and their controls: as an arm, what it does, its class."""
_SEVERAL = "Updates group by group, and controls, as arms of motet compare"
_TAKEN = (
    "In a study that has the arm groups, sum:steps=groups and sum:epochs=groups take the number of updates a batch "
    "that it made with the same seed, and groups:random its number of groups."
)
_OPTIMIZERS = (
    ("adamw", "AdamW; with no option it is what every arm has without a prefix", "torch.optim.AdamW"),
    ("muon", "Muon for hidden matrices, AdamW for the rest", "motet.optim.muon_for"),
    ("apt-adamw", "AdamW whose β₁ falls from beta to beta_min as the gradient turns", "motet.optim.APTAdamW"),
    ("apt-muon", "Muon with such a momentum; preserve=0.1 keeps the tasks' directions too", "motet.optim.APTMuon"),
    ("ada-task", "reference, for sum only: AdamW with moments of each task's own", "motet.optim.per_task.AdaTask"),
)
"""What makes steps of an arm's gradients: name, what it does, its class or function."""
_STEPS = "Optimizers before an arm, as in muon+sum or apt-adamw(beta_min=0.3,rule=A2)+fair-grad"
_MIXED = (
    "An optimizer stands before all else, wrappers too, and takes the study's weight decay, and its learning rate "
    "unless lr sets another, as in muon(lr=0.01)+sum; Muon's updates are scaled to the size of AdamW's. With preserve "
    "(but for variants L3 and L4) and with ada-task every step takes the exact route. stl and sum, with which arms are "
    "compared, always have plain AdamW at the study's learning rate: a change against them is the optimizer's own gain "
    "and the multi-task method's together. Hold muon+fair-grad against muon+sum, and apt-adamw+fair-grad against "
    "adamw(beta=…)+fair-grad with the best fixed beta, to tell the two apart. Arms of groups take a prefix too; those "
    "that follow the arm groups need a number then, and the comparison of groups with their controls is of arms "
    "without a prefix."
)
_MODELS = "Models before an arm, behind an optimizer, as in mmoe(experts=4)+sum or muon+umda+fair-grad"
_OTHER_MODELS = (
    "Experts and columns are the problem's trunk several times over: compare at equal size, as with hard(width=…)+sum. "
    "UMDA takes views and bags as the problem has them, and adds its penalties to the losses. stl is always plain."
)
_LEGEND = (
    (
        "✓",
        "passes motet.testing.check_method; ✓✓ agrees with its definition, solved in another way, too. Methods that "
        "keep state from step to step have no ✓✓, because only first updates are compared",
    ),
    (
        "length",
        "of the first update over the mean gradient's, where five tasks agree and where they clash: medians. "
        "Methods that differ here need learning rates that differ as much",
    ),
    (
        "conflict",
        "whether an update goes against a task's gradient: none, as the method promises where gradients are "
        "independent, on the exact route; seen or unseen in the check, where it promises nothing",
    ),
)


def methods(console: Console, entries: Sequence[Entry]) -> None:
    """All methods by kind, with badge, step length, options and reference."""
    name = max(len(entry.name) for entry in entries)
    for heading, found in _by_kind(entries):
        console.print(Text(f"\n{heading}", style="bold"))
        console.print(Text(f"{'':<{name}}      length of update", style="dim"))
        console.print(Text(f"{'name':<{name}}   ✓  agree  clash  conflict  options", style="dim"))
        for entry in found:
            badge, agree, clash, conflict = _conformance(entry)
            line = Text(f"{entry.name:<{name}}", style="bold")
            line.append(f"  {badge:>2} {agree:>6} {clash:>6}  {conflict:<8}  ", style="not bold")
            if options := _options(entry):
                # Under one another where one line is not enough.
                console.print(_hanging(line, Text(options, style="cyan"), console.width))
            else:
                console.print(line)
            about = Text(entry.summary)
            if entry.cost == "extra-forward":
                about.append(" Takes one more forward pass.")
            about.append(f" [{entry.reference}]", style="dim")
            for wrapped in about.wrap(console, console.width - 2):
                wrapped.rstrip()
                console.print(Text("  ").append_text(wrapped))
    console.print(Text(f"\n{_AROUND}", style="bold"))
    for written, does, cls in _WRAPPERS:
        console.print(
            _hanging(Text(f"{written:<21}", style="bold"), Text(f"{does} [motet.methods.{cls}]"), console.width)
        )
    console.print(Text(f"\n{_SEVERAL}", style="bold"))
    for written, does, cls in _GROUPED:
        about = Text(f"{does} [motet.{cls}]" if cls else does)
        console.print(_hanging(Text(f"{written:<26}", style="bold"), about, console.width))
    console.print(Text(_TAKEN))
    console.print(Text(f"\n{_STEPS}", style="bold"))
    for name_of, does, cls in _OPTIMIZERS:
        about = Text(f"{does} [{cls}] ").append(_choices(name_of), style="cyan")
        console.print(_hanging(Text(f"{name_of + '+…':<13}", style="bold"), about, console.width))
    console.print(Text(_MIXED))
    console.print(Text(f"\n{_MODELS}", style="bold"))
    models = [f"{model}({_choices(model, architectures.OPTIONS)})" for model in architectures.OPTIONS]
    console.print(Text(", ".join(models), style="cyan"))
    console.print(Text(_OTHER_MODELS))
    console.print()
    for term, meaning in _LEGEND:
        console.print(_hanging(Text(f"{term:<10}"), Text(meaning), console.width))
    console.print(Text("motet methods NAME describes one: formula, options, where definitions differ."))


def _by_kind(entries: Sequence[Entry]) -> Iterator[tuple[str, list[Entry]]]:
    for heading, kinds in _KINDS.items():
        if found := [entry for entry in entries if _kind(entry) in kinds]:
            yield heading, found


def _kind(entry: Entry) -> str:
    return _TWO if entry.cls.two_samples else _SAMPLES if entry.cls.samples else entry.cost


def _hanging(head: Text, rest: Text, width: int) -> Table:
    """A text whose later lines start where its first does, after a head."""
    grid = Table.grid()
    grid.add_column(width=head.cell_len, no_wrap=True)
    grid.add_column(max_width=max(width - head.cell_len, 20))
    grid.add_row(head, rest)
    return grid


@cache
def _record() -> dict[str, dict[str, Any]]:
    """What `motet.testing.conformance` has written."""
    found: dict[str, dict[str, Any]] = json.loads(
        resources.files("motet.methods").joinpath("conformance.json").read_text(encoding="utf-8")
    )
    return found


def _conformance(entry: Entry) -> tuple[str, str, str, str]:
    """Badge, length where tasks agree and where they clash, conflict; ? where the method was not checked."""
    record = _record().get(entry.name)
    if record is None:
        return "?", "?", "?", "?"
    if not record["passes"]:
        return "✗", "", "", ""
    seen = "unseen" if record["never_conflicted"] else "seen"
    lengths = (record["length_agreeing"], record["length_conflicting"])
    agree, clash = (f"{length:.3g}" if length < 1000 else f"{length:.0f}" for length in lengths)
    return "✓✓" if _all_compared(record) else "✓", agree, clash, "none" if record["no_conflict_declared"] else seen


def _all_compared(record: dict[str, Any]) -> bool:
    """Whether the oracle is the whole definition, and not only that of the first update."""
    return record.get("oracle_covers") == "every update"


def method_json(entry: Entry) -> dict[str, Any]:
    """One method for machines."""
    return {
        "name": entry.name,
        "title": entry.title,
        "reference": entry.reference,
        "year": entry.year,
        "cost": entry.cost,
        "summary": entry.summary,
        "options": {option.name: option.default for option in entry.options},
        "conformance": _record().get(entry.name),
    }


def method(console: Console, entry: Entry) -> None:
    """One method in full."""
    console.print(Text(f"{entry.name}: {entry.title}", style="bold"))
    console.print(Text(f"{entry.reference} · needs {entry.cost}"))
    console.print(Text(f"{_verdict(entry)}\n"))
    for indent, text in _paragraphs(inspect.getdoc(entry.cls) or ""):
        console.print(Padding(Text(text), (0, 0, 0, indent)))
    if _options(entry):
        console.print(Text(f"\nAs an arm: {entry.name}:option=value,… with {_options(entry)}"))


def _verdict(entry: Entry) -> str:
    record = _record().get(entry.name)
    if record is None:
        return "? not in the record of motet.testing.check_method"
    badge, agree, clash, conflict = _conformance(entry)
    if not record["passes"]:
        return f"{badge} fails motet.testing.check_method"
    scale = record["scale"]
    law = "its length follows no power of the losses" if scale is None else f"losses times c make it c^{scale:g} times"
    compared = "definition" if _all_compared(record) else "first update"
    definition = f"; {compared} checked: {record['oracle']}" if record["oracle"] else ""
    return (
        f"{badge} passes motet.testing.check_method{definition}. First update: {agree} times the mean gradient where "
        f"tasks agree, {clash} where they clash; {law}; conflict with a task's gradient: {conflict}"
        + (", as promised." if record["no_conflict_declared"] else " in the check.")
    )


def _choices(name: str, options: Mapping[str, Mapping[str, Any]] = OPTIONS) -> str:
    """The options of an optimizer or a model with their defaults, as an arm has them."""
    given = options[name].items()
    return ", ".join(option if value is None else f"{option}={value}" for option, value in given)


def _options(entry: Entry) -> str:
    # A generator is an object, which no one can write on a command line.
    return ", ".join(_written(entry, generator=False))


def _written(entry: Entry, generator: bool) -> list[str]:
    return [
        option.name if option.default is inspect.Parameter.empty else f"{option.name}={option.default!r}"
        for option in entry.options
        if generator or option.name != "generator"
    ]


def _paragraphs(doc: str) -> Iterator[tuple[int, str]]:
    """A docstring with the line breaks of its source taken out: (indent, text)."""
    indent, text = 0, ""
    for line in doc.splitlines():
        here = len(line) - len(line.lstrip())
        starts = re.match(r"\w+: ", line.lstrip()) and here
        if text and line.strip() and here == indent and not starts and not text.endswith(":"):
            text += " " + line.strip()
            continue
        if text:
            yield indent, text
        if not line.strip():
            yield 0, ""
        indent, text = here, line.strip()
    yield indent, text


def methods_markdown(entries: Sequence[Entry]) -> str:
    """The documentation's table of methods."""
    columns = ("name", "✓", "agree", "clash", "conflict", "what it does", "options", "needs", "reference")
    lines = ["# Methods", "", "Made from the registry by `motet methods --markdown`; do not edit.", ""]
    for heading, found in _by_kind(entries):
        lines += [f"## {heading}", "", f"| {' | '.join(columns)} |", "| --- | --- | ---: | ---: |" + " --- |" * 5]
        for entry in found:
            options = ", ".join(f"`{option}`" for option in _written(entry, generator=True))
            cells = (f"`{entry.name}`", *_conformance(entry), entry.summary, options, entry.cost, entry.reference)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    lines += [f"## {_AROUND}", "", "| arm | what it does | class |", "| --- | --- | --- |"]
    lines += [f"| `{written}` | {does} | `motet.methods.{cls}` |" for written, does, cls in _WRAPPERS]
    lines += ["", f"## {_SEVERAL}", "", "| arm | what it does | class |", "| --- | --- | --- |"]
    lines += [f"| `{written}` | {does} | {f'`motet.{cls}`' if cls else ''} |" for written, does, cls in _GROUPED]
    lines += ["", _TAKEN]
    lines += ["", f"## {_STEPS}", "", "| optimizer | what it does | options | class |", "| --- | --- | --- | --- |"]
    lines += [f"| `{name}+…` | {does} | `{_choices(name)}` | `{cls}` |" for name, does, cls in _OPTIMIZERS]
    lines += ["", _MIXED]
    lines += [
        "",
        "`losses`: one backward pass of a weighted sum. `extra-forward`: one more forward pass. `gram`: the K×K "
        "products of the tasks' gradients, on any route; of those on two batches, on the exact route. `jacobian`: the "
        "gradients themselves, on the exact route or at the features.",
        "",
        " ".join(f"{term}: {meaning}." for term, meaning in _LEGEND),
        "",
    ]
    return "\n".join(lines)


def problems(console: Console, found: Sequence[Problem]) -> None:
    """All problems, and whether their data are here."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("name", "data", "what it is"):
        table.add_column(name, no_wrap=name == "name")
    for problem in found:
        ready = "ready" if is_ready(problem) else f"motet problems fetch {problem.name}"
        table.add_row(problem.name, ready, Text(problem.title))
    console.print(table)
    console.print(Text("Or a table of your own: motet compare TABLE.csv --target COLUMN …"))


def is_ready(problem: Problem) -> bool:
    """Whether the problem's data are on this machine."""
    return problem.package is None or problem.package.is_fetched()
