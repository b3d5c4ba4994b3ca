"""Blocks for several views, bags of instances and related tasks: each a torch.nn.Module, each useful alone."""

from motet.nn.bag import Bag as Bag
from motet.nn.branching import TaskBranching as TaskBranching
from motet.nn.cross_view import HybridCrossViewAttention as HybridCrossViewAttention
from motet.nn.diagnostics import effective_rank as effective_rank
from motet.nn.diagnostics import shuffled_coherence as shuffled_coherence
from motet.nn.diagnostics import view_consistency as view_consistency
from motet.nn.instance_pooling import GraphInstancePooling as GraphInstancePooling
from motet.nn.label_hierarchy import label_hierarchy_loss as label_hierarchy_loss
from motet.nn.pooling import GatedAttentionPooling as GatedAttentionPooling
from motet.nn.pooling import MaxPooling as MaxPooling
from motet.nn.pooling import MeanPooling as MeanPooling
from motet.nn.pooling import TransformerPooling as TransformerPooling
from motet.nn.sharing import CGC as CGC
from motet.nn.sharing import LTB as LTB
from motet.nn.sharing import MTAN as MTAN
from motet.nn.sharing import PLE as PLE
from motet.nn.sharing import AdaShare as AdaShare
from motet.nn.sharing import CrossStitch as CrossStitch
from motet.nn.sharing import DSelectK as DSelectK
from motet.nn.sharing import HardSharing as HardSharing
from motet.nn.sharing import MMoE as MMoE
from motet.nn.sharing import SharedModel as SharedModel
from motet.nn.token_attention import TokenCrossViewAttention as TokenCrossViewAttention
from motet.nn.umda import UMDA as UMDA
