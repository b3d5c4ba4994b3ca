"""The options of the commands, as the command line and its help have them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from motet.study.arms import DEFAULT_ARMS, DEFAULT_SEEDS

# Options that may be left open, without "{None}|" before their type in the help, and without "(default: None)" behind.
OpenText = Annotated[str | None, arg(metavar="TEXT", help_behavior_hint="")]
OpenPath = Annotated[Path | None, arg(metavar="PATH", help_behavior_hint="")]
OpenInt = Annotated[int | None, arg(metavar="INT", help_behavior_hint="")]
OpenFloat = Annotated[float | None, arg(metavar="FLOAT", help_behavior_hint="")]
Flag = Annotated[bool, arg(help_behavior_hint="")]

# In one line each: the help keeps the line breaks of a docstring.
_PROBLEM = (
    "A problem's name (`motet problems`), a CSV or Parquet file, or a function of your own code that returns a "
    "motet.problems.Problem, also PATH/FILE.py:FUNCTION."
)
_ARMS = (
    "METHOD[:option=value,...][@route], as in fair-grad:alpha=1 (`motet methods`), or groups, to update group by "
    "group; an optimizer or another model may stand before, as in muon(lr=0.01)+sum or mmoe+sum. stl (a model a task) "
    f"and sum are always in. Default: {' '.join(DEFAULT_ARMS)}, or with --resume the study's."
)
_SEEDS = (
    f"How many paired seeds. Fewer than 6 can never give p < 0.05, and more arms need more seeds. Default: "
    f"{DEFAULT_SEEDS}, or with --resume the study's."
)
_TRIALS = (
    "Tune every arm before its seeds: learning rate, weight decay, dropout and the arm's own options. Every arm, stl "
    "and sum too, gets so many trials. Default: 0, no tuning."
)


# Classes within a command are headings of its help: "table options", "rule options" …
@dataclass(frozen=True)
class Columns:
    """What the columns of a table are; all others are features."""

    target: Annotated[tuple[str, ...], arg(metavar="COLUMN[:TYPE] ...", help_behavior_hint="")] = ()
    """To predict, each NAME or NAME:TYPE with TYPE regression, binary or multiclass."""
    group: OpenText = None
    """Whose rows must not be split, such as a patient's number."""
    time: OpenText = None
    """To split by: train on what was earlier, test on what came later."""
    drop: Annotated[tuple[str, ...], arg(metavar="COLUMN ...", help_behavior_hint="")] = ()
    """To leave out, such as what is known only after the outcome."""


@dataclass(frozen=True)
class Evidence:
    """When to adopt an arm: fixed before the first result."""

    margin: OpenFloat = None
    """A difference in Δm below this many points does not matter. Default: 1, or with --resume the study's own."""
    worst_task: OpenFloat = None
    """No task may lose more than this many per cent against single-task. Default: 10, or the study's own."""
    max_seeds: OpenInt = None
    """Add seeds to --seeds until the verdict is decided, up to so many; the 5 % are shared out between the looks."""


@dataclass(frozen=True)
class TrainingChoice:
    """How every arm is trained. Default: as the problem has it, or with --resume the study."""

    epochs: OpenInt = None
    """Most epochs a run."""
    patience: OpenInt = None
    """Epochs without a better validation result before a run stops."""
    batch_size: OpenInt = None
    """Rows a step."""
    learning_rate: OpenFloat = None
    """The same for every arm, unless its prefix sets lr or --trials finds one."""
    weight_decay: OpenFloat = None
    """Of AdamW."""
    width: OpenInt = None
    """Units of each layer of the trunk."""
    depth: OpenInt = None
    """Layers of the trunk."""
    dropout: OpenFloat = None
    """Share of the trunk's units that are dropped."""


@dataclass(frozen=True)
class Running:
    """Where the work is done and shown."""

    workers: int = 1
    """Processes that train at the same time; the numbers stay the same."""
    storage: Annotated[str | None, arg(metavar="URL", help_behavior_hint="")] = None
    """Database that several machines share: postgresql://USER@HOST/NAME. Default: files in the study's folder."""
    log: Annotated[tuple[str, ...], arg(metavar="tensorboard|mlflow ...", help_behavior_hint="")] = ()
    """Write every epoch to these too. MLflow's server: MLFLOW_TRACKING_URI."""
    json: Flag = False
    """Print the result as JSON."""
    quiet: Flag = False
    """No progress bar."""


@dataclass(frozen=True)
class Compare:
    """Train the arms on a problem or a table, print the verdict and write the report.

    Examples: motet compare digits --seeds 8 · motet compare patients.csv --target age er:binary grade
    """

    problem: Annotated[Positional[str], arg(metavar="PROBLEM|TABLE|MODULE:FUNCTION", help=_PROBLEM)]
    table: Columns
    rule: Evidence
    training: TrainingChoice
    running: Running
    arms: Annotated[tuple[str, ...] | None, arg(metavar="ARM ...", help=_ARMS, help_behavior_hint="")] = None
    seeds: Annotated[int | None, arg(metavar="INT", help=_SEEDS, help_behavior_hint="")] = None
    trials: Annotated[int | None, arg(metavar="INT", help_behavior_hint="", help=_TRIALS)] = None
    out: OpenPath = None
    """Folder of the runs. Default: runs/PROBLEM."""
    report: Path = Path("report.html")
    """Where to write the report."""
    resume: Flag = False
    """Go on with an interrupted study, or add arms or seeds to a finished one."""


@dataclass(frozen=True)
class Affinity:
    """Measure which tasks help which by a short training, and propose groups: map, timeline, look-ahead, cosines.

    Examples: motet affinity digits · motet affinity patients.csv --target age er grade · motet affinity train:loop
    """

    problem: Annotated[Positional[str], arg(metavar="PROBLEM|TABLE|MODULE:FACTORY")]
    """A problem's name, a CSV or Parquet file, or a function of your own code that returns a motet.Loop."""
    table: Columns
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
    json: Flag = False
    """Print the result as JSON."""
    quiet: Flag = False
    """No progress bar."""


@dataclass(frozen=True)
class Report:
    """Write the HTML report of finished runs, also while a study is still running: then the verdict is one so far."""

    run: Annotated[Positional[tuple[Path, ...]], arg(metavar="FOLDER ...", help_behavior_hint="")]
    """Folders of studies, such as runs/digits-overlay."""
    out: OpenPath = None
    """Where to write it. Default: report.html in the study's folder."""
    json: Flag = False
    """Print the results as JSON instead of a table."""


@dataclass(frozen=True)
class Methods:
    """List the methods, or describe one: formula, options, reference and cost."""

    name: Annotated[Positional[str | None], arg(metavar="[NAME]")] = None
    """A method's name."""
    json: Flag = False
    """Print JSON."""
    markdown: Flag = False
    """Print the table of the documentation."""


@dataclass(frozen=True)
class Problems:
    """List the problems, or fetch the data of one: motet problems fetch yeast."""

    action: Annotated[Positional[Literal["list", "fetch"]], arg(metavar="[list|fetch]")] = "list"
    """What to do."""
    name: Annotated[Positional[str | None], arg(metavar="[NAME]")] = None
    """The problem to fetch."""
    json: Flag = False
    """Print JSON."""
