"""Optimizers whose momentum lets the multi-task gradient act: each is a torch.optim.Optimizer."""

from motet.optim.adamw import APTAdamW as APTAdamW
from motet.optim.hybrid import Hybrid as Hybrid
from motet.optim.hybrid import muon_for as muon_for
from motet.optim.momentum import AdaptiveMomentum as AdaptiveMomentum
from motet.optim.momentum import noise_of as noise_of
from motet.optim.muon import APTMuon as APTMuon
from motet.optim.per_task import AdaTask as AdaTask
from motet.optim.preservation import RankOne as RankOne
from motet.optim.preservation import effective_rank as effective_rank
from motet.optim.recorder import MomentumRecorder as MomentumRecorder
from motet.optim.report import momentum_report as momentum_report
from motet.optim.sgd import APTSGD as APTSGD
from motet.optim.task_rates import TaskRates as TaskRates
