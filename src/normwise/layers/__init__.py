"""Normalization layers, drop-in for torch's: configuration and buffers, one call into `core`."""

from normwise.layers.batch_norm import BatchNorm
from normwise.layers.info import BatchInfo
from normwise.layers.policy import Source, StatisticsPolicy

__all__ = ["BatchInfo", "BatchNorm", "Source", "StatisticsPolicy"]
