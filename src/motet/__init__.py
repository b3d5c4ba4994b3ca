"""motet: multi-task learning on PyTorch. One model for many outcomes, and the proof that it was worth it."""

import importlib
from typing import TYPE_CHECKING, Any

from motet import grouping as grouping
from motet import linalg as linalg
from motet import losses as losses
from motet import methods as methods
from motet import metrics as metrics
from motet import optim as optim
from motet import routes as routes
from motet.balancer import Balancer as Balancer
from motet.grouping import GroupedUpdates as GroupedUpdates
from motet.loop import Loop as Loop
from motet.step import BalancerStep as BalancerStep
from motet.step import NonFiniteError as NonFiniteError

if TYPE_CHECKING:
    from motet import estimators as estimators
    from motet import nn as nn
    from motet import pareto as pareto
    from motet import problems as problems
    from motet import testing as testing
    from motet.estimators.outcomes import Survival as Survival
    from motet.study.study import Study as Study

_LATER = {"Survival": "motet.estimators.outcomes", "Study": "motet.study.study"}
_MODULES = ("estimators", "nn", "pareto", "problems", "testing")


def __getattr__(name: str) -> Any:
    """Load what a training loop does not need when it is asked for: pandas and scikit-learn take seconds."""
    if name in _MODULES:
        return importlib.import_module(f"motet.{name}")
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module 'motet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, *_LATER})
