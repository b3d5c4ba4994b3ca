"""How the momentum of each optimizer is made of gradients: m = a m + b d, and the step of c d + e m."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW
from torch.optim.optimizer import Optimizer

from motet.optim.adamw import APTAdamW
from motet.optim.hybrid import Hybrid
from motet.optim.momentum import Group, beta_max
from motet.optim.muon import APTMuon
from motet.optim.per_task import AdaTask
from motet.optim.sgd import APTSGD

_MUON: tuple[type[Optimizer], ...] = (torch.optim.Muon,) if hasattr(torch.optim, "Muon") else ()
SUPPORTED: tuple[type[Optimizer], ...] = (SGD, Adam, AdamW, *_MUON, APTAdamW, APTSGD, APTMuon, Hybrid)
"""Optimizers whose momentum is m = a m + b d with coefficients that the recorder knows."""


def check_supported(optimizer: Optimizer) -> None:
    """Refuse what has another momentum than m = a m + b d, and complex parameters."""
    if isinstance(optimizer, AdaTask):
        raise TypeError(
            "AdaTask keeps a momentum for each task and steps by the sum of their normalised steps, so that no one "
            "gradient has a share of its update; it can be compared by its results only"
        )
    if not isinstance(optimizer, SUPPORTED):
        names = ", ".join(cls.__name__ for cls in SUPPORTED)
        raise TypeError(f"{type(optimizer).__name__} is not one of the optimizers whose momentum is known: {names}")
    if any(p.is_complex() for p in all_parameters(optimizer)):
        raise TypeError("a parameter is complex; only real parameters are supported")


def all_parameters(optimizer: Optimizer) -> list[Tensor]:
    """The parameters of all groups."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def buffer_of(group: Group) -> str:
    """The momentum's name in the state."""
    return "exp_avg" if "betas" in group else "momentum_buffer"


def coefficient(group: Group) -> float | Tensor:
    """β of a group's last step: one number, or one a parameter where it adapts."""
    adapts = group.get("beta_min") is not None and len(group.get("beta", ())) == len(group["params"])
    return group["beta"] if adapts else beta_max(group)


def fresh_weight(optimizer: Optimizer, group: Group, a: float, first: bool) -> float:
    """b of m = a m + b d; `first` where there was no momentum before."""
    if isinstance(optimizer, SGD):
        return 1.0 if first or not a else 1 - float(group["dampening"])
    return 1.0 if isinstance(optimizer, APTSGD) and first else 1 - a


def _decoupled(optimizer: Optimizer, group: Group) -> bool:
    own = getattr(optimizer, "decoupled_weight_decay", isinstance(optimizer, (AdamW, *_MUON)))
    return bool(group.get("decoupled_weight_decay", own))


def decoupled_decay(optimizer: Optimizer, group: Group) -> float:
    """The share lr λ by which the parameters shrink."""
    return float(group["lr"]) * float(group["weight_decay"]) if _decoupled(optimizer, group) else 0.0


def entering(optimizer: Optimizer, group: Group, p: Tensor) -> Tensor:
    """d, as it enters the momentum: a copy."""
    assert p.grad is not None
    d = p.grad.clone()
    if group.get("maximize"):
        d.neg_()
    if group["weight_decay"] and not _decoupled(optimizer, group):
        d.add_(p, alpha=float(group["weight_decay"]))
    return d


def made_of(optimizer: Optimizer, group: Group, a: float) -> tuple[float, float]:
    """(c, e) of c d + e m, which the step is made of."""
    if not group.get("nesterov"):
        return 0.0, 1.0
    return (1.0 if isinstance(optimizer, SGD) else 1 - a), a


def nominal_weight(group: Group, beta: float) -> float:
    """The current gradient's weight in what the step is made of, as a share of all weights."""
    return (1 - beta) * (1 + beta) if group.get("nesterov") else 1 - beta
