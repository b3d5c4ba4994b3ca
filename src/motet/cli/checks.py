"""What a command refuses before any work."""

import difflib
import math
import os
from collections import Counter
from pathlib import Path

from motet import methods
from motet.problems.base import Training
from motet.study import loggers
from motet.study.arms import DEFAULT_SEEDS, parse
from motet.study.options import Affinity, Compare
from motet.study.results import GROUPS, SINGLE, SUM, Rule

_SPECIAL = {SUM: ("tuned",), GROUPS: ("random", "fixed", "released")}


def check(training: Training, options: Compare) -> None:
    """Refuse what can't be trained or written.

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
        "margin": options.rule.margin or 0.0,
        "worst-task": options.rule.worst_task or 0.0,
    }
    for name, value in limits.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"--{name} must be a number of at least 0, not {value}")
    if options.arms is not None:
        _check_arms(options.arms)
    _check_numbers(options)
    loggers.check(options.running.log)
    check_out(options.out)
    check_report(options.report)


def _check_arms(arms: tuple[str, ...]) -> None:
    """Mistakes of the list; each arm by itself is read by `motet.study.arms.parse`."""
    if not arms:
        raise ValueError("--arms names none: leave it out for the usual arms, or name some, as in --arms si fair-grad")
    for text in arms:
        pieces = [piece.strip() for piece in text.split(",") if piece.strip()]
        if "," in text and all(_is_name(piece) for piece in pieces):
            raise ValueError(f"--arms takes names with spaces between them, not commas: --arms {' '.join(pieces)}")
    for text in arms:
        # These stand for no option of the method, so that the parser can't tell what was meant.
        name, _, rest = text.partition(":")
        near = difflib.get_close_matches(rest, _SPECIAL.get(name, ()), n=1)
        if near and rest not in _SPECIAL[name] and "=" not in rest:
            raise ValueError(f"there is no arm {text!r}: did you mean '{name}:{near[0]}'?")
    labels = Counter(parse(text).label for text in arms)
    if twice := [label for label, count in labels.items() if count > 1]:
        written = [text for text in arms if parse(text).label == twice[0]]
        same = f" ({' and '.join(written)} are the same)" if len(set(written)) > 1 else ""
        raise ValueError(f"--arms names the arm {twice[0]!r} {len(written)} times{same}: name it once")


def _is_name(text: str) -> bool:
    """Whether this is an arm without options."""
    if text in (SINGLE, GROUPS):
        return True
    try:
        methods.entry(text)
    except ValueError:
        return False
    return True


def _check_numbers(options: Compare) -> None:
    if options.seeds is not None and options.seeds < 1:
        raise ValueError(f"--seeds must be at least 1, and 6 to show anything, not {options.seeds}")
    if options.trials is not None and (options.trials < 0 or options.trials == 1):
        why = "a single trial leaves nothing to choose from" if options.trials == 1 else "it is a number of trials"
        raise ValueError(f"--trials must be 0, for no tuning, or at least 2, not {options.trials}: {why}")
    most = max(8, 2 * (os.cpu_count() or 1))
    if not 1 <= options.running.workers <= most:
        why = (
            f"more than {most} slow each other down on the {os.cpu_count()} processors of this machine"
            if options.running.workers > most
            else "one is this process alone"
        )
        raise ValueError(f"--workers must lie between 1 and {most}, not {options.running.workers}: {why}")
    seeds = DEFAULT_SEEDS if options.seeds is None else options.seeds
    if (most_seeds := options.rule.max_seeds) is not None and most_seeds <= seeds:
        raise ValueError(
            f"--max-seeds must be more than --seeds, which is {seeds}, not {most_seeds}: "
            "it is how far seeds are added where those do not decide"
        )


def check_out(path: Path | None) -> None:
    """The folder of the runs can be made and written, or is there and can be."""
    if path is None:
        return
    failed = "the runs can't be kept there"
    place = path
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise ValueError(f"--out {path}: {failed}, since {place} is a file: name a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ValueError(f"--out {path}: {failed}, since you may not write in {place.absolute()}: name another folder")


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
    given = options.rule
    if given.margin is None and given.worst_task is None:
        return None
    default = Rule()
    return Rule(
        margin=default.margin if given.margin is None else given.margin,
        worst_task=default.worst_task if given.worst_task is None else given.worst_task,
    )
