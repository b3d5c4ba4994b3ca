"""Methods: how the tasks' losses or gradients are combined. One file each, one line here each."""

from motet.methods.base import GramMethod as GramMethod
from motet.methods.base import JacobianMethod as JacobianMethod
from motet.methods.base import LossMethod as LossMethod
from motet.methods.base import Method as Method
from motet.methods.registry import available as available
from motet.methods.registry import entry as entry
from motet.methods.registry import get as get
from motet.methods.sum import Sum as Sum
