"""motet: multi-task learning on PyTorch. One model for many outcomes, and the proof that it was worth it."""

from motet import grouping as grouping
from motet import linalg as linalg
from motet import methods as methods
from motet import metrics as metrics
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
