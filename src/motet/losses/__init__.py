"""Losses of single tasks."""

from motet.losses.masked import labelled as labelled
from motet.losses.masked import task_loss as task_loss
