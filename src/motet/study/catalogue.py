"""What the command line shows of methods and problems, and the documentation's table of methods."""

import inspect
import re
from collections.abc import Iterator, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from motet.methods.registry import Entry
from motet.problems.base import Problem


def methods(console: Console, entries: Sequence[Entry]) -> None:
    """All methods, with reference and options."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("name", "needs", "what it does"):
        table.add_column(name, no_wrap=name != "what it does")
    for entry in entries:
        about = Text(entry.summary)
        about.append(f"\n{entry.reference}", style="dim")
        if _options(entry):
            about.append(f"\n{_options(entry)}", style="cyan")
        table.add_row(entry.name, entry.cost, about)
    console.print(table)
    console.print(Text("motet methods NAME describes one: formula, options, where definitions differ."))


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
    }


def method(console: Console, entry: Entry) -> None:
    """One method in full."""
    console.print(Text(f"{entry.name}: {entry.title}", style="bold"))
    console.print(Text(f"{entry.reference} · needs {entry.cost}\n"))
    for indent, text in _paragraphs(inspect.getdoc(entry.cls) or ""):
        console.print(Padding(Text(text), (0, 0, 0, indent)))
    if _options(entry):
        console.print(Text(f"\nAs an arm: {entry.name}:option=value,… with {_options(entry)}"))


def _options(entry: Entry) -> str:
    # A generator is an object, which no one can write on a command line.
    written = [option for option in entry.options if option.name != "generator"]
    return ", ".join(f"{option.name}={option.default!r}" for option in written)


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
    rows = ["| name | what it does | options | needs | reference |", "| --- | --- | --- | --- | --- |"]
    for entry in entries:
        options = ", ".join(f"`{option.name}={option.default!r}`" for option in entry.options)
        cells = (f"`{entry.name}`", entry.summary, options, entry.cost, entry.reference)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    head = "# Methods\n\nMade from the registry by `motet methods --markdown`; do not edit.\n\n"
    costs = (
        "\n\n`losses`: one backward pass of a weighted sum. `extra-forward`: one more forward pass. `gram`: the K×K "
        "products of the tasks' gradients, on any route. `jacobian`: the gradients themselves, on the exact route or "
        "at the features.\n"
    )
    return head + "\n".join(rows) + costs


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
