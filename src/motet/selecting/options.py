"""The options of ``motet select``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

OpenText = Annotated[str | None, arg(metavar="TEXT")]
OpenPath = Annotated[Path | None, arg(metavar="PATH")]


@dataclass(frozen=True)
class Select:
    """Find the few columns of a table that matter for outcomes of different kinds, and predict these.

    Examples: motet select patients.csv --outcome age er:binary os:survival=time,event --drop patient_id ·
    motet select patients.csv --outcome grade:ordinal=low,mid,high --stability 50 --predict new_patients.csv
    """

    table: Annotated[Positional[Path], arg(metavar="TABLE")]
    """A CSV or Parquet file with a header: a row a patient or sample, a column a feature or outcome."""
    outcome: Annotated[tuple[str, ...], arg(metavar="COLUMN[:KIND] ...")] = ()
    """What to predict, each COLUMN, COLUMN:KIND with KIND continuous, binary, ordinal, count or nominal, or
    NAME:survival=TIME,EVENT. COLUMN:ordinal=low,mid,high gives an order, and COLUMN:binary=no,yes the positive class,
    yes. All other columns are features."""
    drop: Annotated[tuple[str, ...], arg(metavar="COLUMN ...")] = ()
    """Columns that are not to be used, such as what is known only after the outcomes."""
    group: OpenText = None
    """Column whose rows must not be split, such as a patient's number. Not a feature."""
    predict: OpenPath = None
    """A table of new rows to predict. If it has the outcomes too, it also tells how good the predictions are."""
    folds: int = 5
    """Of the cross-validation that chooses λ, and with it how many features are used."""
    selection: Literal["1se", "best", "within_tol"] = "1se"
    """1se: the fewest features within one standard error of the best prediction. within_tol: within 0.005 of it."""
    penalty: Literal["group_lasso", "group_mcp", "lassonet"] = "group_lasso"
    """group_mcp shrinks large effects less; lassonet ties each feature to a linear effect."""
    stability: int = 0
    """Pairs of random halves of the rows on which the selection is repeated, 50 for a paper: which features hold, with
    a bound on false ones. Each takes two fits. An interrupted one goes on with --resume."""
    permutations: int = 0
    """Repeats of the whole analysis with the outcomes' rows shuffled, 19 for p = 0.05: what chance alone would find."""
    level: float = 0.9
    """Of the prediction intervals."""
    seed: int = 0
    """Of the folds, initial weights and halves."""
    lambdas: int = 60
    """Steps of the path from all features to none. Fewer are quicker and coarser."""
    jobs: int = 1
    """Processes at a time."""
    out: OpenPath = None
    """Folder of the results. Default: runs/TABLE-select."""
    resume: bool = False
    """Go on with an interrupted analysis of the same table, or add --stability, --permutations or --predict to it."""
    json: bool = False
    """Print the result as JSON."""
    quiet: bool = False
    """No progress bar."""


def check_select(options: Select) -> None:
    """Refuse what can't be done, before any work.

    Raises:
        ValueError: that names the option.
    """
    least = {"folds": 2, "stability": 0, "permutations": 0, "lambdas": 2, "jobs": 1, "seed": 0}
    for name, value in least.items():
        if getattr(options, name) < value:
            raise ValueError(f"--{name} must be at least {value}, not {getattr(options, name)}")
    if options.seed >= 2**31:
        raise ValueError(f"--seed must be below {2**31}, not {options.seed}")
    if not 0 < options.level < 1:
        raise ValueError(f"--level must lie between 0 and 1, such as 0.9, not {options.level}")
    if options.out is not None and options.out.exists() and not options.out.is_dir():
        raise ValueError(f"--out is a folder for the results, and {options.out} is a file: name another")
