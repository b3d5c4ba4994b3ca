"""What all runs in one folder share, as it stands in study.json: written before the first run and never changed."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from motet.problems.base import Task, Training
from motet.study.files import DamagedError, StoreError, plain, read_json
from motet.study.pairing import joined
from motet.study.results import Labels, Rule, Tuning

NAME = "study.json"
_TOLD = ("source", "fresh", "fixed_test", "labels", "usual")
"""Fields that say more of data which a fingerprint stands for. They make no study another one: a table may lie
elsewhere on another machine."""


@dataclass(frozen=True)
class Description:
    """The settings of a study.

    Attributes:
        problem: Name of the problem; title, source, caution and notes are its own.
        tasks: With scale 1: standardisation differs between splits, so the scale of one seed describes no study.
        table: Whether the problem is a user's own table, whose rows recur in every seed.
        rule: Fixed before the first result.
        first_seed: The seed whose data are fingerprinted here, so that changed data are noticed before any work.
        data: Fingerprint of the data of ``first_seed``.
        tuning: How every arm is tuned; None where all have the study's own settings.
        fresh, fixed_test: As `motet.problems.base.Problem` says.
        labels: Of the training rows of ``first_seed``; None is not known.
        usual: What the problem itself says of training; None is not known.
    """

    problem: str
    title: str
    source: str
    caution: str
    notes: list[str]
    tasks: list[Task]
    table: bool
    training: Training
    rule: Rule
    versions: dict[str, str]
    first_seed: int
    data: str
    tuning: Tuning | None = None
    fresh: bool = False
    fixed_test: bool = False
    labels: Labels | None = None
    usual: Training | None = None

    def digest(self) -> str:
        """Stands in every run, so that a lost study.json can be made anew only as it was."""
        own = {name: value for name, value in asdict(self).items() if name not in _TOLD}
        text = json.dumps(plain(own), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def must_equal(self, stored: "Description", folder: Path) -> None:
        """Refuse to go on with a study that has other settings.

        Raises:
            StoreError: that names what differs and what to do.
        """
        names = [f.name for f in fields(self) if f.name not in _TOLD]
        changed = [name for name in names if _json(getattr(self, name)) != _json(getattr(stored, name))]
        # Other tasks or a table with other rows have other data, titles and notes too: the cause is named first.
        causes = [name for name in changed if name in ("problem", "tasks", "table", "training", "tuning", "versions")]
        if not causes and "data" in changed:
            raise StoreError(
                f"the data of seed {self.first_seed} are not those that the finished runs in {folder} were trained on: "
                "start anew in another folder with --out"
            )
        if not causes and "rule" in changed:
            raise StoreError(
                f"the rule of the study in {folder} was fixed before its first result as {rule_text(stored.rule)}, and "
                f"can't become {rule_text(self.rule)}: leave --margin, --worst-task and --max-seeds out, "
                "or start anew with --out"
            )
        if names := causes or changed:
            parts = [part for n in names for part in differences(n, getattr(stored, n), getattr(self, n))]
            raise StoreError(
                f"{folder} holds runs of another study ({'; '.join(parts)}): "
                "start this one in another folder with --out, or use the settings of that one"
            )


def read_study(folder: str | Path) -> Description:
    """The description of the study in a folder.

    Raises:
        StoreError: if there is none, or it is damaged or of another format.
    """
    path = Path(folder) / NAME
    if not path.exists():
        raise StoreError(f"{folder} holds no study: there is no {NAME} in it")
    try:
        return read_json(path, Description)
    except DamagedError as error:
        raise DamagedError(
            f"{error}: repeat the command that started the study, with --resume --out {folder}, and this file is "
            "made anew; the runs are kept"
        ) from None


def unscaled(tasks: Iterable[Task]) -> list[Task]:
    """As a description has them."""
    return [replace(task, scale=1.0) for task in tasks]


def differences(name: str, was: Any, now: Any) -> Iterator[str]:
    """In words, down to the fields that differ: "epochs was 8 and is 5"."""
    was, now = (json.loads(_json(value)) for value in (was, now))
    if name == "tasks":
        before, after = ([task["name"] for task in tasks] for tasks in (was, now))
        if before != after:
            order = ", and their order counts" if sorted(before) == sorted(after) else ""
            yield f"the tasks were {joined(before)} and are {joined(after)}{order}"
            return
        was, now = (
            {f"{field} of {task['name']}": task[field] for task in tasks for field in task} for tasks in (was, now)
        )
    if not (isinstance(was, dict) and isinstance(now, dict)):
        was, now = {name: was}, {name: now}
    for field in {**was, **now}:
        if was.get(field) != now.get(field):
            yield f"{field} was {_text(was.get(field))} and is {_text(now.get(field))}"


def rule_text(rule: Rule) -> str:
    """The rule in half a line."""
    looks = f", looks after {', '.join(map(str, rule.looks))} seeds" if rule.looks else ""
    return f"alpha {rule.alpha:g}, margin {rule.margin:g}, worst task {rule.worst_task:g}{looks}"


def _text(value: Any) -> str:
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value)


def _json(value: Any) -> str:
    return json.dumps(plain(value), default=asdict, sort_keys=True)
