"""The options of the commands, as the command line and its help have them."""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from motet.problems.base import Training
from motet.study.arms import DEFAULT_ARMS, DEFAULT_SEEDS
from motet.study.results import Rule

# Options that may be left open, without "{None}|" before their type in the help.
OpenText = Annotated[str | None, arg(metavar="TEXT")]
OpenPath = Annotated[Path | None, arg(metavar="PATH")]
OpenInt = Annotated[int | None, arg(metavar="INT")]
OpenFloat = Annotated[float | None, arg(metavar="FLOAT")]


@dataclass(frozen=True)
class Tasks:
    """What to train on: a problem, or a table and its columns."""

    problem: Annotated[Positional[str], arg(metavar="PROBLEM|TABLE")]
    """A problem's name (`motet problems`), or a CSV or Parquet file."""
    target: Annotated[tuple[str, ...], arg(metavar="COLUMN[:TYPE] ...")] = ()
    """Columns of the table to predict, each NAME or NAME:TYPE with TYPE regression, binary or multiclass."""
    group: OpenText = None
    """Column of the table whose rows must not be split, such as a patient's number."""
    time: OpenText = None
    """Column of the table to split by: train on what was earlier, test on what came later."""
    drop: Annotated[tuple[str, ...], arg(metavar="COLUMN ...")] = ()
    """Columns of the table to leave out."""


@dataclass(frozen=True)
class Compare(Tasks):
    """Train the arms on a problem or a table, print the verdict and write the report.

    Examples: motet compare digits-overlay --seeds 8 · motet compare patients.csv --target age er:binary grade
    """

    arms: Annotated[tuple[str, ...], arg(metavar="ARM ...")] = DEFAULT_ARMS
    """METHOD[:option=value,...][@route], as in fair-grad:alpha=1@exact, or groups[:option=value,...] to update group by
    group, with its controls groups:random, sum:steps=groups and sum:epochs=groups. An optimizer may stand before, as
    in muon(lr=0.01)+sum, and another model, as in mmoe(experts=4)+sum or umda+self-guided. stl (a model a task) and sum
    are always in."""
    seeds: int = DEFAULT_SEEDS
    """How many paired seeds. Fewer than 6 can never give p < 0.05, and more arms need more seeds."""
    out: OpenPath = None
    """Folder of the runs. Default: runs/PROBLEM."""
    report: Path = Path("report.html")
    """Where to write the report."""
    resume: bool = False
    """Go on with an interrupted study, or add arms or seeds to a finished one."""
    epochs: OpenInt = None
    """Most epochs a run. Default: the problem's own, as for all that follow."""
    patience: OpenInt = None
    """Epochs without a better validation result before a run stops."""
    batch_size: OpenInt = None
    """Rows a step."""
    learning_rate: OpenFloat = None
    """The same for every arm, unless its prefix sets lr."""
    weight_decay: OpenFloat = None
    """Of AdamW."""
    width: OpenInt = None
    """Units of each layer of the trunk."""
    depth: OpenInt = None
    """Layers of the trunk."""
    dropout: OpenFloat = None
    """Share of the trunk's units that are dropped."""
    margin: OpenFloat = None
    """A difference in Δm below this many points does not matter. Default: 1, or with --resume the study's own."""
    worst_task: OpenFloat = None
    """No task may lose more than this many per cent against single-task. Default: 10, or the study's own."""
    json: bool = False
    """Print the result as JSON."""
    quiet: bool = False
    """No progress bar."""


@dataclass(frozen=True)
class Affinity(Tasks):
    """Measure which tasks help which by a short training, and propose groups: map, timeline, look-ahead, cosines.

    Examples: motet affinity digits · motet affinity patients.csv --target age er grade · motet affinity train:loop
    """

    problem: Annotated[Positional[str], arg(metavar="PROBLEM|TABLE|MODULE:FACTORY")]
    """A problem's name, a CSV or Parquet file, or a function of your own code that returns a motet.Loop."""
    epochs: OpenInt = None
    """Passes over the training rows. Default: 300 batches, or 10 passes where these are fewer, but at least 60 batches.
    """
    runs: int = 3
    """Trainings with other seeds, of which the map is the mean. One alone does not know how sure it is."""
    seed: int = 0
    """Of the first training: the split, the initial weights and the order of batches and updates."""
    estimator: Literal["pairwise", "regression"] = "pairwise"
    """pairwise updates each task alone: exact, a pass a task and batch. regression: random groups, cheaper for many."""
    decay: OpenFloat = None
    """Rate at which the affinity forgets. Default: so that it remembers about a third of the training."""
    out: Path = Path("affinity.html")
    """Where to write the page."""
    json: bool = False
    """Print the result as JSON."""
    quiet: bool = False
    """No progress bar."""


@dataclass(frozen=True)
class Report:
    """Write the HTML report of finished runs, also while a study is still running."""

    run: Annotated[Positional[tuple[Path, ...]], arg(metavar="FOLDER ...")]
    """Folders of studies, such as runs/digits-overlay."""
    out: OpenPath = None
    """Where to write it. Default: report.html in the study's folder."""
    json: bool = False
    """Print the results as JSON instead of a table."""


@dataclass(frozen=True)
class Methods:
    """List the methods, or describe one: formula, options, reference and cost."""

    name: Annotated[Positional[str | None], arg(metavar="[NAME]")] = None
    """A method's name."""
    json: bool = False
    """Print JSON."""
    markdown: bool = False
    """Print the table of the documentation."""


@dataclass(frozen=True)
class Problems:
    """List the problems, or fetch the data of one: motet problems fetch yeast."""

    action: Annotated[Positional[Literal["list", "fetch"]], arg(metavar="[list|fetch]")] = "list"
    """What to do."""
    name: Annotated[Positional[str | None], arg(metavar="[NAME]")] = None
    """The problem to fetch."""
    json: bool = False
    """Print JSON."""


def check(training: Training, options: Compare) -> None:
    """Refuse what can't be trained or written, before any work.

    Raises:
        ValueError: that names the option.
    """
    for name in ("epochs", "patience", "batch_size", "width", "depth"):
        if getattr(training, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(training, name)}")
    if not 0 < training.learning_rate < math.inf:
        raise ValueError(f"--learning-rate must be positive, not {training.learning_rate}")
    if not 0 <= training.dropout < 1:
        raise ValueError(f"--dropout must be at least 0 and below 1, not {training.dropout}")
    limits = {
        "weight-decay": training.weight_decay,
        "margin": options.margin or 0.0,
        "worst-task": options.worst_task or 0.0,
    }
    for name, value in limits.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"--{name} must be a number of at least 0, not {value}")
    check_report(options.report)


def check_affinity(options: Affinity) -> None:
    """As `check`.

    Raises:
        ValueError: that names the option.
    """
    if options.epochs is not None and options.epochs < 1:
        raise ValueError(f"--epochs must be at least 1, not {options.epochs}")
    if options.runs < 1:
        raise ValueError(f"--runs must be at least 1, not {options.runs}")
    if options.decay is not None and not 0 < options.decay < 1:
        raise ValueError(f"--decay must lie between 0 and 1, not {options.decay}")
    if not 0 <= options.seed <= 2**32 - options.runs:
        raise ValueError(
            f"--seed must be a whole number from 0 to {2**32 - options.runs} with --runs {options.runs}, "
            f"not {options.seed}"
        )
    check_report(options.out, "page")


def check_report(path: Path, what: str = "report") -> None:
    """Before training, and not after it."""
    failed = f"the {what} can't be written"
    try:
        if path.is_dir():
            raise ValueError(f"{failed}: {path} is a folder, name a file in it")
        if path.exists() and not path.is_file():
            raise ValueError(f"{failed}: {path} is a device or a pipe, name a file")
        if not path.resolve().parent.is_dir():
            raise ValueError(f"{failed}: there is no folder {path.resolve().parent}")
        # Rights, names too long and a disk that is read-only are all seen by trying, beside the file that may be there.
        trial = path.with_name(f".{path.name}.{os.getpid()}.part")
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise ValueError(f"{failed}: {path.absolute().parent} takes no such file ({error.strerror})") from error


def rule(options: Compare) -> Rule | None:
    """None where nothing was said, so that a resumed study keeps its own."""
    if options.margin is None and options.worst_task is None:
        return None
    default = Rule()
    return Rule(
        margin=default.margin if options.margin is None else options.margin,
        worst_task=default.worst_task if options.worst_task is None else options.worst_task,
    )
