"""Problems: data, splits, tasks with their loss and metric, and a model. One file each.

`motet.problems.table.from_table` makes a problem of a user's own CSV or Parquet file, `Bags` one of bags of instances,
and `assemble` the data of any other from arrays.
"""

from motet.problems.assemble import assemble as assemble
from motet.problems.assemble import cut as cut
from motet.problems.assemble import standardise as standardise
from motet.problems.attention_maps import write_attention as write_attention
from motet.problems.bags import Bags as Bags
from motet.problems.base import Data as Data
from motet.problems.base import Model as Model
from motet.problems.base import Problem as Problem
from motet.problems.base import Split as Split
from motet.problems.base import Task as Task
from motet.problems.base import Training as Training
from motet.problems.buckets import Buckets as Buckets
from motet.problems.packages import DataError as DataError
from motet.problems.packages import Package as Package
from motet.problems.packages import cache as cache
from motet.problems.registry import available as available
from motet.problems.registry import fetch as fetch
from motet.problems.registry import get as get
from motet.problems.views import Views as Views
