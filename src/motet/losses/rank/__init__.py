"""Rank losses over all comparable pairs of an outcome: exact, with gradients, in O(n) memory."""

from motet.losses.rank.function import KINDS as KINDS
from motet.losses.rank.pairs import Pairs as Pairs
from motet.losses.rank.pairs import pairwise_rank_loss as pairwise_rank_loss
from motet.losses.rank.sampling import SampledPairs as SampledPairs
