"""Which tasks help which, and which are updated together: affinities, partitions, updates of one group at a time."""

from motet.grouping.affinity import Affinity as Affinity
from motet.grouping.lookahead import feature_affinity as feature_affinity
from motet.grouping.lookahead import lookahead_affinity as lookahead_affinity
from motet.grouping.partition import partition as partition
from motet.grouping.stability import stability as stability
from motet.grouping.step import GroupedStep as GroupedStep
from motet.grouping.updates import GroupedUpdates as GroupedUpdates
