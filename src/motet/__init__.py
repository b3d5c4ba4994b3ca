"""motet: multi-task learning on PyTorch. One model for many outcomes, and the proof that it was worth it."""

import importlib
from typing import TYPE_CHECKING, Any

from motet import grouping as grouping
from motet import linalg as linalg
from motet import losses as losses
from motet import methods as methods
from motet import metrics as metrics
from motet import nn as nn
from motet import optim as optim
from motet import pareto as pareto
from motet import problems as problems
from motet import routes as routes
from motet import testing as testing
from motet.balancer import Balancer as Balancer
from motet.grouping import GroupedUpdates as GroupedUpdates
from motet.loop import Loop as Loop
from motet.step import BalancerStep as BalancerStep
from motet.step import NonFiniteError as NonFiniteError
from motet.study.study import Study as Study

if TYPE_CHECKING:
    from motet import estimators as estimators
    from motet.estimators.outcomes import Survival as Survival


def __getattr__(name: str) -> Any:
    """Load the estimators when they are asked for: scikit-learn takes longer than all else together."""
    if name in ("estimators", "Survival"):
        estimators = importlib.import_module("motet.estimators")
        return estimators if name == "estimators" else estimators.Survival
    raise AttributeError(f"module 'motet' has no attribute {name!r}")
