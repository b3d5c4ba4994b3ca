"""``motet repro RUN``: train a run of a study again, and say whether it comes out the same. Nothing is overwritten."""

import math
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from torch import Tensor
from tyro.conf import Positional, arg

from motet import problems
from motet.problems.base import Problem, Training
from motet.study import history
from motet.study.arms import Arm, parse
from motet.study.description import Description, differences, read_study, unscaled
from motet.study.files import DamagedError, StoreError, read_json, read_tensors
from motet.study.fit import Tick, Trained
from motet.study.options import Columns, Flag, OpenText
from motet.study.provenance import fingerprint, versions
from motet.study.results import GROUPS, SINGLE, Run
from motet.study.threads import single_thread
from motet.study.training import train
from motet.study.tuned import Point

ROUNDING = 1e-3
"""Results that differ by no more than this share are the same but for rounding: other versions and processors add in
another order, and training carries that on. No verdict rests on a thousandth."""

Outcome = Literal["identical", "rounding", "different"]


@dataclass(frozen=True)
class ReproOptions:
    """Train one run again and compare it with what is kept: results, curves and parameters. Nothing is overwritten.

    Exit codes: 0 the same, 1 different. Example: motet repro runs/digits-overlay/runs/sum-seed0
    """

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """Folder of the run, as the report names it: STUDY/runs/ARM-seedN."""
    table: Columns
    problem: OpenText = None
    """The table, or the MODULE:FUNCTION, that the study was of. Default: motet's own problem of the study's name."""
    json: Flag = False
    """Print the result as JSON."""
    quiet: Flag = False
    """No progress bar."""


@dataclass(frozen=True)
class Part:
    """One kind of result, compared: ``largest`` relative difference, and ``where`` it is; infinite where the two have
    other names, lengths or gaps."""

    name: str
    largest: float
    where: str = ""

    @property
    def same(self) -> bool:
        """To the last bit."""
        return self.largest == 0


@dataclass(frozen=True)
class Repro:
    """How a run came out when it was trained again.

    Attributes:
        run: Its folder.
        outcome: ``identical`` in every number that was compared; ``rounding``: results on the test and validation
            split agree within `ROUNDING`; or ``different``.
        parts: What was compared; empty where the data are others, since nothing was trained then.
        versions: Those that differ, then and now.
        data: Whether the data are the same.
    """

    run: str
    arm: str
    seed: int
    outcome: Outcome
    parts: list[Part] = field(default_factory=list)
    versions: dict[str, tuple[str, str]] = field(default_factory=dict)
    data: bool = True

    @property
    def exit_code(self) -> int:
        """0 for the same, also within rounding, else 1."""
        return int(self.outcome == "different")

    def sentences(self) -> list[str]:
        """The finding first, then what it rests on."""
        name = f"{self.arm}, seed {self.seed}"
        if not self.data:
            return [
                f"{name} can't be repeated: the data are not those that it was trained on.",
                "A file, a column's role or the way the problem is split has changed since.",
            ]
        names = ", ".join(part.name for part in self.parts)
        if self.outcome == "identical":
            found = [f"{name} came out identical, to the last bit: {names}."]
        else:
            worst = max(self.parts[:2], key=lambda part: part.largest)
            size = "in other numbers, or gaps in others" if math.isinf(worst.largest) else f"by {worst.largest:.2g}"
            same = "the same within rounding" if self.outcome == "rounding" else "DIFFERENT"
            found = [f"{name} came out {same}: the {worst.name} differ at most {size}, relative, in {worst.where}."]
            if not worst.largest:
                found = [f"{name} came out {same}: its results are equal."]
            if equal := [part.name for part in self.parts if part.same]:
                found.append(f"Equal to the last bit: {', '.join(equal)}.")
            if other := [f"{part.name} ({part.where})" for part in self.parts if not part.same]:
                found.append(f"Not equal: {', '.join(other)}.")
        if self.versions:
            changed = "; ".join(f"{n} was {then} and is {now}" for n, (then, now) in self.versions.items())
            found.append(f"Versions differ: {changed}.")
        elif self.outcome != "identical":
            found.append("Data and versions are the same: motet's own code, the processor or its libraries differ.")
        return found


def repro(
    run_folder: str | Path, problem: Problem | None = None, tick: Callable[[Tick], None] = lambda _: None
) -> Repro:
    """Train a run again with its own arm, seed and settings, and compare every number but times.

    Args:
        run_folder: ``STUDY/runs/ARM-seedN``.
        problem: What the study was of; by default motet's own problem of that name.
        tick: Called after each epoch.

    Raises:
        StoreError: if the folder is no run of a study, a run that this one depends upon is not there, or the problem
            has other tasks, also in another order.
        ValueError: if the study was of a table or a function of one's own, and ``problem`` is not given; or as
            `motet.study.training.train` does.
    """
    place = Path(run_folder).expanduser()
    study = place.resolve().parent.parent
    if not (place / "run.json").exists():
        raise StoreError(f"{place} is no run: name a folder such as STUDY/runs/sum-seed0, as the report lists them")
    stored, run = read_study(study), read_json(place / "run.json", Run)
    problem = problem or _own(stored, study, place)
    data = problem.load(run.seed)
    if other := list(differences("tasks", stored.tasks, unscaled(data.tasks))):
        raise StoreError(f"{problem.name} is not what {study} is a study of: {'; '.join(other)}")
    now = versions()
    changed = {n: (str(run.provenance[n]), v) for n, v in now.items() if n in run.provenance and run.provenance[n] != v}
    known = run.provenance.get("data", "")
    if known and fingerprint(data) != known:
        return Repro(str(place), run.arm, run.seed, "different", versions=changed, data=False)
    arm, training = settled(run, stored, study)
    reference = None if run.arm == SINGLE else _other(study, run, SINGLE).validation
    with single_thread():
        again = train(problem, data, arm, run.seed, training, reference, tick)
    parts = list(compare(run, read_tensors(place / "model.safetensors"), again))
    return Repro(str(place), run.arm, run.seed, judge(parts), parts, changed)


def judge(parts: Sequence[Part]) -> Outcome:
    """By all parts for ``identical``, and by the first two, the results, for the rest."""
    if all(part.same for part in parts):
        return "identical"
    return "rounding" if all(part.largest <= ROUNDING for part in parts[:2]) else "different"


def compare(run: Run, parameters: Mapping[str, Tensor], again: Trained) -> Iterator[Part]:
    """Test and validation results first. What the kept run does not tell is left out."""
    new = again.run
    yield _numbers("test results", run.test, new.test)
    yield _numbers("validation results", run.validation, new.validation)
    yield _numbers("best epochs", run.best_epoch, new.best_epoch)
    yield _numbers("learning curve", dict(_curve(run, run)), dict(_curve(new, run)))
    if run.specialised:
        yield _numbers("results of each task's own best epoch", run.specialised, new.specialised)
    if run.weights:
        yield _numbers("weights", dict(_stream(run)), dict(_stream(new)))
    yield _tensors("parameters", parameters, again.parameters)


def settled(run: Run, stored: Description, study: Path) -> tuple[Arm, Training | dict[str, Training]]:
    """The arm with what tuning chose and its number of groups filled in, and the settings that it trained with.

    Raises:
        StoreError: if the `groups` run that it takes its number from is not there.
    """
    arm, usual, chosen = parse(run.arm), stored.training, run.settings
    if tasks := chosen.get("tasks"):
        return arm, {task: _point(values).training(usual) for task, values in tasks.items()}
    if chosen:
        point = _point(chosen)
        arm, usual = arm.at(point), point.training(usual)
    return (arm.settled(_other(study, run, GROUPS)) if arm.follows else arm), usual


def _point(values: Mapping[str, Any]) -> Point:
    return Point(
        values["learning_rate"],
        values["weight_decay"],
        values["dropout"],
        {name: tuple(value) if isinstance(value, list) else value for name, value in values.get("options", {}).items()},
        tuple(values.get("weights", {}).values()),
    )


def _own(stored: Description, study: Path, place: Path) -> Problem:
    """Motet's own problem of the study's name."""
    if not stored.table:
        try:
            return problems.get(stored.problem)
        except ValueError:
            pass
    what = "a table" if stored.table else "a problem that is none of motet's own"
    told = next((words for line in history.read_history(study).commands if (words := _told(line))), "")
    hint = f"motet repro {shlex.quote(str(place))} --problem {told or 'TABLE --target COLUMN …'}"
    raise ValueError(f"the study in {study} is of {what}, {stored.problem!r}, so its place must be named: {hint}")


def _told(line: str) -> str:
    """The problem and its columns, as the command that started the study named them."""
    words = shlex.split(line)
    if "compare" not in words:
        return ""
    parts: list[str] = []
    keep, named = True, False
    for word in words[words.index("compare") + 1 :]:
        if word.startswith("--"):
            keep = word.partition("=")[0] in ("--target", "--group", "--time", "--drop")
        elif not parts and not named:
            keep, named = True, True
        if keep:
            parts.append(word)
    return shlex.join(parts) if parts and not parts[0].startswith("--") else ""


def _other(study: Path, run: Run, arm: str) -> Run:
    """The run of another arm with the same seed, on which this one depends."""
    place = study / "runs" / f"{arm}-seed{run.seed}"
    try:
        return read_json(place / "run.json", Run)
    except DamagedError:
        raise StoreError(
            f"{run.arm} was trained after {arm} of the same seed and depends upon it, and {place} is missing or "
            "damaged: repeat the study's command with --resume to have it again"
        ) from None


def _curve(run: Run, kept: Run) -> Iterator[tuple[str, float]]:
    """All of it but seconds, and what ``kept`` does not tell."""
    first = kept.curve[0] if kept.curve else None
    for row in run.curve:
        where = f"epoch {row.epoch}"
        for name, of in (("loss", row.train_loss), ("validation", row.validation), ("test", row.test)):
            if first is not None and (name != "test" or first.test):
                yield from ((f"{where}, {name} of {task}", value) for task, value in of.items())
        for name in ("updates", "forwards", "backwards"):
            if first is not None and getattr(first, name):
                yield f"{where}, {name}", getattr(row, name)


def _stream(run: Run) -> Iterator[tuple[str, float]]:
    for row in run.weights:
        yield from ((f"step {row.step}, {task}", weight) for task, weight in row.of.items())


def _numbers(name: str, kept: Mapping[str, float], again: Mapping[str, float]) -> Part:
    """The largest relative difference; NaN equals NaN."""
    if other := kept.keys() ^ again.keys():
        missing = next(key for key in (*kept, *again) if key in other)
        return Part(name, math.inf, missing)
    largest, where = 0.0, ""
    for key, value in kept.items():
        if (difference := _apart(value, again[key])) > largest:
            largest, where = difference, key
    return Part(name, largest, where)


def _apart(a: float, b: float) -> float:
    if a == b or (math.isnan(a) and math.isnan(b)):
        return 0.0
    if not (math.isfinite(a) and math.isfinite(b)):
        return math.inf
    return abs(a - b) / max(abs(a), abs(b))


def _tensors(name: str, kept: Mapping[str, Tensor], again: Mapping[str, Tensor]) -> Part:
    """As `_numbers`, the difference of each tensor's entries over its largest entry."""
    worst = Part(name, 0.0)
    if other := sorted(kept.keys() ^ again.keys()):
        return replace(worst, largest=math.inf, where=other[0])
    for key, value in kept.items():
        new = again[key]
        if value.shape != new.shape:
            return replace(worst, largest=math.inf, where=key)
        if not value.equal(new):
            size = float((value - new).abs().max() / value.abs().max().clamp_min(1e-30)) if value.numel() else 0.0
            size = math.inf if math.isnan(size) else max(size, 1e-30)
            worst = max(worst, Part(name, size, key), key=lambda part: part.largest)
    return worst
