"""Methods: how the tasks' losses or gradients are combined. One file each, one line here each."""

from motet.methods.base import GramMethod as GramMethod
from motet.methods.base import JacobianMethod as JacobianMethod
from motet.methods.base import LossMethod as LossMethod
from motet.methods.base import Method as Method
from motet.methods.base import TwoSampleMethod as TwoSampleMethod
from motet.methods.registry import available as available
from motet.methods.registry import entry as entry
from motet.methods.registry import get as get

# The order of the registry: weights from losses first, then from gradients, relatives together.
# isort: off
from motet.methods.sum import Sum as Sum
from motet.methods.si import SI as SI
from motet.methods.gls import GLS as GLS
from motet.methods.uw import UW as UW
from motet.methods.dwa import DWA as DWA
from motet.methods.rlw import RLW as RLW
from motet.methods.imtl_l import IMTLL as IMTLL
from motet.methods.famo import FAMO as FAMO
from motet.methods.stch import STCH as STCH
from motet.methods.mgda import MGDA as MGDA
from motet.methods.pcgrad import PCGrad as PCGrad
from motet.methods.cagrad import CAGrad as CAGrad
from motet.methods.imtl_g import IMTLG as IMTLG
from motet.methods.nash_mtl import NashMTL as NashMTL
from motet.methods.fair_grad import FairGrad as FairGrad
from motet.methods.aligned_mtl import AlignedMTL as AlignedMTL
from motet.methods.upgrad import UPGrad as UPGrad
from motet.methods.dual_proj import DualProj as DualProj
from motet.methods.db_mtl import DBMTL as DBMTL
from motet.methods.grad_drop import GradDrop as GradDrop
