"""What was done with a study: the commands that trained its runs, and when its verdict was looked at."""

import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from motet.study.files import DamagedError, read_json, write_json

_log = logging.getLogger(__name__)

NAME = "history.json"


@dataclass(frozen=True)
class History:
    """What happened in one folder.

    Attributes:
        commands: One for every start that trained something, in order.
        looks: With how many seeds each of these starts ended, and so a verdict could be read.
        arms, seeds: All that were ever to be trained here; empty where it is not known.
    """

    commands: list[str] = field(default_factory=list)
    looks: list[int] = field(default_factory=list)
    arms: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)


def read_history(folder: Path) -> History:
    """Empty where there is none; a damaged one is lost, and a warning says so."""
    path = folder / NAME
    if not path.exists():
        return History()
    try:
        return read_json(path, History)
    except DamagedError as error:
        _log.warning("%s: which commands made these runs is not known any more", error)
        return History()


def planned(folder: Path, arms: Iterable[str], seeds: Iterable[int]) -> None:
    """A start is to train these, beside what is there."""
    history = read_history(folder)
    more = replace(history, arms=list(dict.fromkeys([*history.arms, *arms])), seeds=sorted({*history.seeds, *seeds}))
    if more != history:
        write_json(folder / NAME, asdict(more))


def started(folder: Path, command: str) -> None:
    """A start has trained something."""
    history = read_history(folder)
    write_json(folder / NAME, asdict(replace(history, commands=[*history.commands, command])))


def looked(folder: Path, seeds: int) -> None:
    """A start has ended. With as many seeds as at the last look there is nothing new to see."""
    history = read_history(folder)
    if history.looks[-1:] != [seeds]:
        write_json(folder / NAME, asdict(replace(history, looks=[*history.looks, seeds])))
