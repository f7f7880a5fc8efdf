"""Coefficients of the norms of graphs, from the moments of each graph over its nodes, tables `(g, c)`.

Statistics over channels too are merges along a row of the tables: no further pass over x.
"""

from __future__ import annotations

from torch import Tensor

from normwise.core.moments import MIN_VALUES, Moments
from normwise.core.standardise import Standardise, Tables


def standardise_across(moments: Moments, weight: Tensor | None, bias: Tensor | None, *, eps: float) -> Tables:
    """Return scale and shift of one mean and one variance a graph, over the values of all its nodes and channels."""
    return Standardise(eps)(across_channels(moments), weight, bias)


def across_channels(moments: Moments) -> Moments:
    """Merge the channels of each group; tables `(g, 1)`."""
    count, mean, m2 = (table.unsqueeze(-1) for table in (moments.count, moments.mean, moments.m2))
    return Moments(count, mean, m2).pool(1)


def scale_by_distance(moments: Moments, *, scale: float, eps: float) -> Tables:
    """Return scale and shift of `scale * (x - mean) / sqrt(D + eps)`, D the nodes' mean squared distance from the mean.

    D is the sum of the channels' variances; half the mean squared distance of two nodes drawn from the graph.
    """
    factor = scale * (moments.variance.sum(-1, keepdim=True) + eps).rsqrt()
    return factor, -moments.mean * factor


def centre(moments: Moments) -> Tables:
    """Return scale and shift of `x - mean`."""
    return moments.mean.new_ones(1), -moments.mean


def typical(moments: Moments) -> Moments:
    """Return moments, tables `(c,)`, with the average mean and the average unbiased variance of the groups.

    A typical group's, without what lies between groups. Groups of fewer than two values do not count; if none counts,
    the result is empty.
    """
    counts = moments.count >= MIN_VALUES
    groups = counts.sum(0).clamp_min(1)
    mean, variance = ((table * counts).sum(0) / groups for table in (moments.mean, moments.unbiased_variance))
    count = (moments.count * counts).sum(0)
    return Moments(count, mean, variance * (count - 1).clamp_min(0))
