"""Which model an arm trains, and how it is written: ``mmoe(experts=4)+sum``, ``muon+umda(branching=false)+mgda``."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from motet.problems.base import Data, Problem, Split, Task, Training
from motet.study.networks import Network, ViewModel, hard, sharing, umda
from motet.study.optimizers import read_optimizer
from motet.study.prefixes import find, key, read_prefix
from motet.study.written import canonical, write_options

_UMDA = {"heads": None, "rank": 8, "neighbours": 8, "attention": True, "pooling": "graph", "fuse": "mean"}
OPTIONS: dict[str, dict[str, Any]] = {
    "hard": {"width": None},
    "mmoe": {"experts": 8, "width": None},
    "cgc": {"shared": 1, "own": 1, "width": None},
    "ple": {"shared": 1, "own": 1, "width": None},
    "dselect-k": {"experts": 8, "k": 2, "static": False, "entropy": 0.0, "width": None},
    "cross-stitch": {"alpha": 0.9, "width": None},
    "umda": {**_UMDA, "branching": True, "signed": False, "penalties": True, "width": None},
}
"""Architectures, and their options with defaults. Where None, width is the study's, and heads is the most up to 4 that
divide the width."""

DESCRIPTIONS = {
    "hard": "one trunk for all tasks",
    "mmoe": "experts that are trunks, mixed for each task by a gate",
    "cgc": "shared trunks and trunks of each task's own, mixed by a gate",
    "ple": "the same in levels, one for each layer of the trunk",
    "dselect-k": "trunks as experts, of which each task's gate chooses at most k",
    "cross-stitch": "a trunk for each task, mixed after each of its layers",
    "umda": "attention between views, pooled bags and task branches; its loss has penalties beside the tasks'",
}

_ELSEWHERE = {"dim": "width", "hidden": "width", "num_experts": "experts", "n_experts": "experts"}
_WORDS = {"pooling": ("graph", "mean", "max", "attention", "transformer"), "fuse": ("mean", "concat")}
_SWITCHES = ("static", "attention", "branching", "signed", "penalties")
_LEFT_OUT = {
    "AdaShare": "the temperature of its policies falls by a schedule, and it is trained in two phases",
    "LTB": "the temperature of its branches falls by a schedule",
    "MTAN": "its masks need a trunk of convolutional stages, which a problem does not name",
}


@dataclass(frozen=True)
class Architecture:
    """A model and its options, as (name, value) pairs without those that equal their default."""

    name: str = "hard"
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def label(self) -> str:
        """What stands before the method; nothing for plain hard sharing."""
        written = f"{self.name}({write_options(self.options)})" if self.options else self.name
        return f"{written}+" if self != HARD else ""

    @property
    def penalised(self) -> bool:
        """Whether something is added to the tasks' losses."""
        given = self._given()
        return bool(given.get("penalties") or given.get("entropy"))

    def model(self, problem: Problem, data: Data, seed: int, training: Training) -> Network:
        """A fresh one, with torch's global generator untouched.

        Raises:
            ValueError: if it can't be made for this problem.
        """
        given = self._given()
        width = given.pop("width")
        training = training if width is None else replace(training, width=width)
        if self.name == "hard":
            return hard(problem, data, seed, training)
        if self.name == "umda":
            given.pop("penalties")
            return umda(given, problem, data, seed, training)
        return sharing(self.name, given, problem, data, seed, training)

    def check(self, problem: Problem, data: Data, training: Training) -> None:
        """Whether it can be made for this problem, by one pass of two rows.

        Raises:
            ValueError: that says why not.
        """
        model = self.model(problem, data, 0, training).eval()
        with torch.no_grad():
            model(data.train.inputs[torch.arange(min(2, len(data.train)))])

    def penalty(self, model: Network, info: Mapping[str, Any], step: int, total: int) -> Tensor | None:
        """What is added to the losses in this step of so many; None for nothing that could be trained."""
        if not self.penalised:
            return None
        if isinstance(model, ViewModel):
            penalty = model.umda.regularisation(dict(info), step, total)
        else:
            penalty = self._given()["entropy"] * info["regularisers"]["entropy"]
        return penalty if penalty.requires_grad else None

    def _given(self) -> dict[str, Any]:
        return OPTIONS[self.name] | dict(self.options)


HARD = Architecture()
"""The problem's own model: one trunk, a head a task."""


def is_architecture(word: str) -> bool:
    """Whether a word, in any spelling, names an architecture."""
    return find(word, OPTIONS) is not None


def read_architecture(text: str, spec: str) -> tuple[Architecture, str]:
    """The architecture at the front of ``spec``, a part of the arm ``text``, and what stands behind it.

    Raises:
        ValueError: that names the arm, for an unknown option, with the nearest ones, or a refused value.

    >>> read_architecture("MMoE(experts=4)+uw", "MMoE(experts=4)+uw")
    (Architecture(name='mmoe', options=(('experts', 4),)), 'uw')
    """
    word = key(spec.partition("+")[0].partition("(")[0].strip())
    for name, why in _LEFT_OUT.items():
        if word == key(name):
            raise ValueError(
                f"arm {text!r}: {name} is no arm, since {why}: use motet.nn.{name} in a loop of your own. The "
                f"architectures are {', '.join(OPTIONS)}"
            )
    found = read_prefix(text, spec, OPTIONS, "an architecture", _ELSEWHERE)
    if found is None:
        return HARD, spec
    name, given, rest = found
    try:
        given = {option: _value(option, value) for option, value in given.items()}
        chosen = Architecture(name, canonical(given, OPTIONS[name]))
        _try(chosen)
    except (TypeError, ValueError) as error:
        raise ValueError(f"arm {text!r}: {error}") from None
    return chosen, rest


def _value(option: str, value: Any) -> Any:
    """As it must be; other ranges are the modules' own to check."""
    if option in _SWITCHES:
        if str(value).lower() not in ("true", "false"):
            raise ValueError(f"{option} must be true or false, not {value!r}")
        return str(value).lower() == "true"
    if option in _WORDS:
        if value not in _WORDS[option]:
            near = difflib.get_close_matches(str(value), _WORDS[option], n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(_WORDS[option])}"
            raise ValueError(f"{option} is not {value!r}: {hint}")
        return value
    if option in ("alpha", "entropy"):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e6:
            raise ValueError(f"{option} must be a number of at least 0, not {value!r}")
        return value
    least = 0 if option == "own" else 1
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{option} must be a whole number of at least {least}, not {value!r}")
    return value


def _try(chosen: Architecture) -> None:
    """Make one for two tasks on two columns, so that options which do not fit are seen before any training."""
    tasks = (Task("a", "regression", "mae"), Task("b", "regression", "mae"))
    part = Split(torch.zeros(2, 2), {task.name: torch.zeros(2) for task in tasks})
    data = Data(tasks, part, part, part)
    problem = Problem("trial", "", "", lambda _: data)
    # Any number of attention heads divides this width; whether it divides the study's is seen by `check`.
    width = (dict(chosen.options).get("heads") or 4) * 2
    chosen.model(problem, data, 0, Training(width=width, depth=2))


def architecture_of(label: str) -> Architecture:
    """The architecture of an arm's label; `HARD` also where it can't be read, as one of another version of motet."""
    try:
        return read_architecture(label, read_optimizer(label)[1])[0]
    except ValueError:
        return HARD
