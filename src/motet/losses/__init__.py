"""Losses of single tasks."""

from motet.losses import rank as rank
from motet.losses.cosine_penalty import gradient_cosine_penalty as gradient_cosine_penalty
from motet.losses.masked import labelled as labelled
from motet.losses.masked import task_loss as task_loss
