"""Which optimizer an arm trains with, and how it is written: ``muon+sum``, ``apt-adamw(beta_min=0.3,rule=A2)+mgda``."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from motet.optim import APTAdamW, muon_for
from motet.optim.momentum import SMOOTHING
from motet.optim.per_task import AdaTask
from motet.optim.preservation import BY_TASKS
from motet.problems.base import Model, Training
from motet.study.networks import Network, gates_of, inputs_of, shared_of
from motet.study.prefixes import find, read_prefix
from motet.study.written import canonical, write_options

_ADAPTIVE = {"beta_min": 0.5, "rule": "A1", "reference": "previous", "scope": "global", "smoothing": None}
_PRESERVING = {"preserve": 0.0, "variant": "L2"}
OPTIONS: dict[str, dict[str, Any]] = {
    "adamw": {"lr": None, "beta": 0.9},
    "muon": {"lr": None, "beta": 0.95} | _PRESERVING,
    "apt-adamw": {"lr": None, "beta": 0.9} | _ADAPTIVE | {"adapt_second": False},
    "apt-muon": {"lr": None, "beta": 0.95} | _ADAPTIVE | _PRESERVING,
    "ada-task": {"lr": None, "beta": 0.9},
}
"""Optimizers, and their options with defaults; lr is the study's learning rate where None, and beta is AdamW's β₁ or
Muon's momentum, and β_max where it adapts."""

_ELSEWHERE = {"rho": "preserve", "momentum": "beta", "betas": "beta", "beta1": "beta", "learning_rate": "lr"}
"""What options are called elsewhere."""


@dataclass(frozen=True)
class Chosen:
    """An optimizer and its options, as (name, value) pairs without those that equal their default."""

    name: str = "adamw"
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def label(self) -> str:
        """What stands before the method; nothing for the optimizer that an arm has where none is written."""
        written = f"{self.name}({write_options(self.options)})" if self.options else self.name
        return f"{written}+" if self != PLAIN else ""

    @property
    def learning_rate(self) -> float | None:
        """Its own, None where it has the study's."""
        own: float | None = dict(self.options).get("lr")
        return own

    @property
    def wants_tasks(self) -> bool:
        """Whether a step looks at the tasks' gradients, which must be handed over then."""
        given = OPTIONS[self.name] | dict(self.options)
        return self.name == "ada-task" or (bool(given.get("preserve")) and given["variant"] in BY_TASKS)

    def make(self, model: Network, training: Training) -> Optimizer:
        """A fresh one for a model, with the study's weight decay, and its learning rate unless the arm has its own.

        Raises:
            ValueError: if an option is out of range, or Muon finds no matrix in this model.
        """
        given = OPTIONS[self.name] | dict(self.options)
        beta, own, decay = given.pop("beta"), given.pop("lr"), training.weight_decay
        lr = training.learning_rate if own is None else own
        if self.name == "adamw":
            return torch.optim.AdamW(model.parameters(), lr=lr, betas=(beta, 0.999), weight_decay=decay)
        if self.name == "ada-task":
            return AdaTask(model.parameters(), lr=lr, betas=(beta, 0.999), weight_decay=decay)
        if self.name == "apt-adamw":
            # No method changes the gradients of heads, and of what else is one task's own, so these neither adapt nor
            # enter the cosine.
            shared = shared_of(model)
            known = set(map(id, shared))
            rest = [parameter for parameter in model.parameters() if id(parameter) not in known]
            trunk: dict[str, Any] = {"params": shared}
            heads: dict[str, Any] = {"params": rest, "beta_min": None}
            return APTAdamW([trunk, heads], lr=lr, betas=(beta, 0.999), weight_decay=decay, **given)
        apt = self.name == "apt-muon"
        heads_of = [model.heads, *gates_of(model)]
        optimizer = muon_for(
            model, lr, heads=heads_of, inputs=inputs_of(model), apt=apt, weight_decay=decay, momentum=beta, **given
        )
        if all(route.optimizer != "muon" for route in optimizer.routes):
            raise ValueError(
                f"{self.name} has nothing to train in this model: its first layer and its heads go to AdamW, and it "
                "has no other matrix. Give the trunk another layer (--depth)"
            )
        return optimizer


PLAIN = Chosen()
"""torch.optim.AdamW as torch has it."""


def is_name(word: str) -> bool:
    """Whether a word, in any spelling, names an optimizer."""
    return find(word, OPTIONS) is not None


def read_optimizer(text: str, spec: str | None = None) -> tuple[Chosen, str]:
    """The optimizer at the front of an arm, or of the part ``spec`` of it, and what stands behind it.

    Raises:
        ValueError: that names the arm, for an unknown option, with the nearest ones, or a refused value.

    >>> read_optimizer("APT-AdamW(rule=A4)+fair-grad")
    (Chosen(name='apt-adamw', options=(('reference', 'momentum'),)), 'fair-grad')
    """
    spec = text if spec is None else spec
    found = read_prefix(text, spec, OPTIONS, "an optimizer", _ELSEWHERE)
    if found is None:
        return PLAIN, spec
    name, given, rest = found
    try:
        _check(given)
        chosen = Chosen(name, canonical(_normal(name, given), OPTIONS[name]))
        chosen.make(_trial(), Training())
    except (TypeError, ValueError) as error:
        raise ValueError(f"arm {text!r}: {error}") from None
    return chosen, rest


def optimizer_of(label: str) -> Chosen:
    """The optimizer of an arm's label; `PLAIN` also where it can't be read, as one of another version of motet."""
    try:
        return read_optimizer(label)[0]
    except ValueError:
        return PLAIN


def _check(given: dict[str, Any]) -> None:
    """Kinds of values; most ranges are the optimizers' own to check."""
    for option, value in given.items():
        if option in ("rule", "reference", "scope", "variant"):
            right, what = isinstance(value, str), "a word"
        elif option == "adapt_second":
            right, what = isinstance(value, bool), "True or False"
        else:
            right, what = isinstance(value, int | float) and not isinstance(value, bool), "a number"
        if not right:
            raise ValueError(f"{option} must be {what}, not {value!r}")
    if not 0 < given.get("lr", 1) < math.inf:
        raise ValueError(f"lr must be positive and finite, not {given['lr']}")
    if not 0 <= given.get("beta", 0) < 1:
        raise ValueError(f"beta must be in [0, 1), not {given['beta']}")


def _normal(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """One form of what trains the same: A4 and A6 are A1 with another reference and smoothing, and so on."""
    found = OPTIONS[name] | given
    found |= {option: found[option].upper() for option in ("rule", "variant") if option in found}
    if "rule" in found:
        smoothing = SMOOTHING.get(found["rule"], 0.0) if found["smoothing"] is None else found["smoothing"]
        if found["rule"] == "A4":
            found |= {"rule": "A1", "reference": "momentum"}
        elif found["rule"] == "A6":
            found["rule"] = "A1"
        elif found["rule"] == "A7":
            found["reference"] = "previous"  # It looks at both.
        found["smoothing"] = None if smoothing == SMOOTHING.get(found["rule"], 0.0) else smoothing
        if name == "apt-adamw" and found["scope"] == "group":
            found["scope"] = "global"  # Of its groups the trunk alone adapts.
    if found.get("preserve") == 0:
        found["variant"] = OPTIONS[name]["variant"]
    return found


def _trial() -> Model:
    """The smallest model with a part for every optimizer, on which all options are tried before any training."""
    with torch.random.fork_rng(devices=[]):
        return Model(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), {"a": nn.Linear(2, 1)})
