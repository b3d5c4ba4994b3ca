"""One model for each preference, and what all of them reach together."""

import json
import logging
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from motet.pareto import measures
from motet.pareto.preferences import preferences as spread
from motet.report.numbers import measure, short
from motet.study.progress import Progress

logger = logging.getLogger("motet")

FORMAT = 1
"""Version of the files of points. Another version is refused."""


@dataclass(frozen=True)
class Front:
    """Points in the space of the losses, one for each preference. Lower is better."""

    tasks: tuple[str, ...]
    preferences: Tensor
    """(N, K), float64, rows sum to 1: those that a model was trained for."""
    points: Tensor
    """(N, K), float64: the losses of those models."""
    reference: Tensor
    """(K,): up to where the hypervolume counts."""
    complete: bool = True
    """False if the sweep was interrupted before its last preference."""

    @property
    def nondominated(self) -> Tensor:
        """Which points no other one betters: (N,) bool."""
        return measures.nondominated(self.points)

    @property
    def hypervolume(self) -> float:
        """Exact volume of what the points dominate, up to `reference`. For more than 6 tasks use `hypervolume_to`."""
        return self.hypervolume_to(self.reference)

    def hypervolume_to(self, reference: Tensor | Sequence[float], samples: int | None = None, seed: int = 0) -> float:
        """`motet.pareto.hypervolume` of the points to another reference, or estimated from samples."""
        return measures.hypervolume(self.points, reference, samples, seed)

    def table(self) -> str:
        """Preferences, losses and which points are dominated, as text."""
        best = self.nondominated.tolist()
        losses = zip(*(_apart(column) for column in self.points.T.tolist()), strict=True)
        rows = [
            [" ".join(f"{share:.3f}" for share in preference), *texts, "" if good else "dominated"]
            for preference, texts, good in zip(self.preferences.tolist(), losses, best, strict=True)
        ]
        rows.insert(0, ["preference", *self.tasks, ""])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:-1], widths[1:-1]), row[-1]]).rstrip()
            for row in rows
        ]
        lines += ["", f"{sum(best)} of {len(best)} points not dominated"]
        if len(self.tasks) <= measures.MOST_TASKS:
            to = ", ".join(measure(loss) for loss in self.reference.tolist())
            lines.append(f"hypervolume {measure(self.hypervolume)} to the reference ({to})")
        if not self.complete:
            lines.append("interrupted before the last preference")
        return "\n".join(lines)

    def plot(self, path: str | Path) -> Path:
        """Write the figure to an .svg or .html file, light or dark as its reader is.

        Two tasks: the points with the staircase of what they dominate, and the rays on which preference times loss is
        equal. More: one axis a task.

        Raises:
            ValueError: for another suffix.
        """
        from motet.pareto.plot import write  # matplotlib takes a second

        return write(self, Path(path))


Losses = Sequence[float] | Mapping[str, float] | Tensor


def front(
    train: Callable[[Tensor], Losses],
    preferences: int | Tensor | Sequence[Sequence[float]] = 11,
    tasks: int | Sequence[str] | None = None,
    reference: Tensor | Sequence[float] | None = None,
    seed: int | None = 0,
    progress: bool | None = None,
    path: str | Path | None = None,
    label: str = "",
) -> Front:
    """Train one model for each preference and keep its losses.

    Args:
        train: Given a preference (K,), float64, trains a model and returns its K losses, in the order of the tasks or
            by their names. Lower is better: turn accuracies into errors. Losses on validation data, please.
        preferences: How many, spread evenly, or the preferences themselves, (N, K), positive.
        tasks: Their names or their number. None: by the preferences given, or two; names by the first result.
        reference: Losses up to which the hypervolume counts. None: those of the worst points and a tenth of the
            range beyond, which changes with the points: give one to compare fronts.
        seed: torch is seeded with it before each model, so that all start alike. None: it is left alone.
        progress: Whether to show a bar on standard error. None: if that is a terminal.
        path: A file of JSON lines to which each point is added when it is there. If it exists, its points aren't
            trained again, which is logged.
        label: What ``train`` does, in your words, kept in the file: points under another label are refused. Change it
            when ``train`` changes, which motet can't see.

    Returns:
        The front. After Ctrl-C that of the points so far, with ``complete`` false, if there is one.

    Raises:
        ValueError: for a result that isn't K finite losses, or a file that holds something else. The message, or for an
            error of ``train`` the note that is added to it, names the preference.
    """
    wanted, names = _plan(preferences, tasks)
    file = None if path is None else _File(Path(path), wanted, seed, label)
    done = {} if file is None else file.read(names)
    if done and names is None:
        names = tuple(next(iter(done.values())))
    if done:
        logger.info("%d of %d points read from %s", len(done), len(wanted), path)
    complete = True
    shown = sys.stderr.isatty() if progress is None else progress
    with Progress(shown, len(wanted)) as bar:
        for index, preference in enumerate(wanted):
            if index not in done:
                where = f"preference ({', '.join(short(share) for share in preference.tolist())}), number {index + 1}"
                bar.start(where)
                try:
                    losses = _losses(_seeded(train, preference.clone(), seed), len(preference), names, where)
                except KeyboardInterrupt:
                    if not done:
                        raise
                    complete = False
                    logger.warning("interrupted: %d of %d points are there", len(done), len(wanted))
                    break
                except Exception as error:
                    kept = "its earlier points are lost: give path= to keep them" if file is None else f"see {path}"
                    error.add_note(f"while training for {where}; {kept if done else 'no point was there yet'}")
                    raise
                names = tuple(losses)
                done[index] = losses
                if file is not None:
                    file.add(index, preference, losses)
            bar.finish()
    assert names is not None
    rows = sorted(done)
    points = torch.tensor([[done[row][name] for name in names] for row in rows], dtype=torch.float64)
    return Front(names, wanted[rows], points, _reference(points, reference), complete)


def _plan(
    preferences: int | Tensor | Sequence[Sequence[float]], tasks: int | Sequence[str] | None
) -> tuple[Tensor, tuple[str, ...] | None]:
    """The preferences, (N, K), and the names of the tasks, where they are known."""
    names = None if tasks is None or isinstance(tasks, int) else tuple(tasks)
    if names is not None and len(set(names)) != len(names):
        raise ValueError(f"tasks must have different names, not {', '.join(map(repr, names))}")
    count = tasks if isinstance(tasks, int) else None if names is None else len(names)
    if isinstance(preferences, int):
        return spread(2 if count is None else count, preferences), names
    wanted = torch.as_tensor(preferences, dtype=torch.float64).detach().cpu()
    if wanted.dim() != 2 or not wanted.numel() or not (wanted.isfinite() & (wanted > 0)).all():
        raise ValueError("preferences must be a number, or rows of one positive number a task")
    if count is not None and wanted.shape[1] != count:
        raise ValueError(f"preferences have {wanted.shape[1]} values each, and there are {count} tasks")
    return wanted / wanted.sum(1, keepdim=True), names


def _seeded(train: Callable[[Tensor], Losses], preference: Tensor, seed: int | None) -> Losses:
    if seed is None:
        return train(preference)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return train(preference)


def _losses(given: Any, count: int, names: tuple[str, ...] | None, where: str) -> dict[str, float]:
    """What ``train`` returned, by task."""
    if isinstance(given, Tensor):
        given = given.detach().cpu()
    if not hasattr(given, "__len__") or isinstance(given, str) or (hasattr(given, "ndim") and given.ndim != 1):
        kind = f"a tensor of shape {tuple(given.shape)}" if isinstance(given, Tensor) else f"{given!r}"
        raise ValueError(f"train returned {kind} for {where}: it must return {count} losses, a sequence or by task")
    if len(given) != count:
        raise ValueError(f"train returned {len(given)} losses for {where}, which has {count} values: is tasks= right?")
    if not isinstance(given, Mapping):
        given = dict(zip(names or [f"task {k + 1}" for k in range(count)], given, strict=True))
    losses = {str(name): _number(value, str(name), where) for name, value in given.items()}
    if names is not None:
        if set(losses) != set(names):
            raise ValueError(f"train returned losses of {_list(losses)} for {where}, and the tasks are {_list(names)}")
        losses = {name: losses[name] for name in names}
    for name, value in losses.items():
        if not math.isfinite(value):
            raise ValueError(f"the loss of {name!r} is {value} for {where}: did the training diverge?")
    return losses


def _number(value: object, name: str, where: str) -> float:
    try:
        return float(value.detach() if isinstance(value, Tensor) else value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"the loss of {name!r} must be one number, not {value!r}, for {where}") from None


def _apart(values: Sequence[float]) -> list[str]:
    """With four digits, or as many more, up to 12, as tell different values apart."""
    texts = [measure(value) for value in values]
    for digits in range(5, 13):
        if len(set(texts)) == len(set(values)):
            break
        more = [f"{value:#.{digits}g}".rstrip(".").replace("-", "−") for value in values]
        texts = more if len(set(more)) > len(set(texts)) else texts
    return texts


def _reference(points: Tensor, given: Tensor | Sequence[float] | None) -> Tensor:
    if given is not None:
        reference = torch.as_tensor(given, dtype=torch.float64)
        if reference.shape != points.shape[1:] or not reference.isfinite().all():
            raise ValueError(f"reference must be {points.shape[1]} finite losses, one a task, not {given}")
        return reference
    worst, best = points.amax(0), points.amin(0)
    extent = torch.where(worst > best, worst - best, worst.abs())
    return worst + 0.1 * torch.where(extent > 0, extent, 1.0)


def _list(names: object) -> str:
    return ", ".join(map(repr, names))  # type: ignore[call-overload]


class _File:
    """Points as JSON lines, the first of which says what they are points of."""

    def __init__(self, path: Path, preferences: Tensor, seed: int | None, label: str) -> None:
        self.path = path
        self._head = {"motet": "front", "format": FORMAT, "seed": seed, "preferences": preferences.tolist()}
        self._label = label

    def read(self, names: tuple[str, ...] | None) -> dict[int, dict[str, float]]:
        """The points that are there, by the number of their preference."""
        try:
            text = self.path.read_text(encoding="utf8") if self.path.exists() else ""
        except UnicodeDecodeError:
            raise ValueError(f"{self.path} is no file of a front: name another file") from None
        start = json.dumps(self._head | ({"label": self._label} if self._label else {}))
        if "\n" not in text:
            # Empty, or killed while the first line was written. Anything else is somebody's.
            if not start.startswith(text):
                raise ValueError(f"{self.path} is no file of a front, and is left as it is: name another file")
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(start + "\n", encoding="utf8")
            return {}
        whole, _, torn = text.rpartition("\n")
        try:
            head, *points = [json.loads(line) for line in whole.splitlines()]
            label = head.pop("label", "")
            done = {int(point["index"]): {str(k): float(v) for k, v in point["losses"].items()} for point in points}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{self.path} is no file of a front, or damaged ({error})") from None
        if head != self._head:
            raise ValueError(f"{self.path} holds the points of other preferences or of another seed: name another file")
        if label != self._label:
            raise ValueError(
                f"{self.path} holds points with label={label!r}, not {self._label!r}: name another file, or that label"
            )
        for losses in done.values():
            if names is not None and tuple(losses) != names:
                raise ValueError(f"{self.path} holds losses of {_list(losses)}, and the tasks are {_list(names)}")
            names = tuple(losses)
        if torn:
            # A kill in the middle of a line: the point is trained again.
            logger.warning("%s ends in half a line, which is left out", self.path)
            self.path.write_text(whole + "\n", encoding="utf8")
        return done

    def add(self, index: int, preference: Tensor, losses: Mapping[str, float]) -> None:
        line = json.dumps({"index": index, "preference": preference.tolist(), "losses": dict(losses)})
        with self.path.open("a", encoding="utf8") as file:
            file.write(line + "\n")
