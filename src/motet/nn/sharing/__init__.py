"""Sharing architectures: one trunk, experts, stitches, masks, branches or policies, all under one interface."""

from motet.nn.sharing.adashare import AdaShare
from motet.nn.sharing.base import Sharing, parameters_per_task
from motet.nn.sharing.cross_stitch import CrossStitch
from motet.nn.sharing.dselect import DSelectK
from motet.nn.sharing.hard import HardSharing
from motet.nn.sharing.ltb import LTB
from motet.nn.sharing.mmoe import MMoE
from motet.nn.sharing.model import SharedModel
from motet.nn.sharing.mtan import MTAN
from motet.nn.sharing.ple import CGC, PLE

__all__ = [
    "CGC",
    "LTB",
    "MTAN",
    "PLE",
    "AdaShare",
    "CrossStitch",
    "DSelectK",
    "HardSharing",
    "MMoE",
    "SharedModel",
    "Sharing",
    "parameters_per_task",
]
