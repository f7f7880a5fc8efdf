"""Normalization layers, drop-in for torch's: configuration and buffers, one call into `core`."""

from normwise.layers.across_channel import AcrossChannelNorm
from normwise.layers.batch_norm import BatchNorm
from normwise.layers.batch_norm_act import BatchNormAct
from normwise.layers.conditional import ConditionalBatchNorm
from normwise.layers.domain import DomainBatchNorm
from normwise.layers.ghost import GhostBatchNorm
from normwise.layers.graph_batch_norm import GraphBatchNorm
from normwise.layers.graph_instance_norm import GraphInstanceNorm
from normwise.layers.graph_layer_norm import GraphLayerNorm
from normwise.layers.graph_norm import GraphNorm
from normwise.layers.info import BatchInfo
from normwise.layers.masked import MaskedBatchNorm
from normwise.layers.pair_norm import PairNorm
from normwise.layers.policy import Source, StatisticsPolicy
from normwise.layers.renorm import BatchRenorm
from normwise.layers.timewise import TimewiseBatchNorm

__all__ = [
    "AcrossChannelNorm",
    "BatchInfo",
    "BatchNorm",
    "BatchNormAct",
    "BatchRenorm",
    "ConditionalBatchNorm",
    "DomainBatchNorm",
    "GhostBatchNorm",
    "GraphBatchNorm",
    "GraphInstanceNorm",
    "GraphLayerNorm",
    "GraphNorm",
    "MaskedBatchNorm",
    "PairNorm",
    "Source",
    "StatisticsPolicy",
    "TimewiseBatchNorm",
]
