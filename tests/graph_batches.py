"""Graphs for the tests of their norms: which node belongs to which, and what all these layers refuse."""

from __future__ import annotations

import torch
from conformance import BAD_INPUT, Refusal, Side
from torch import Tensor

GRAPHS = 5
SHAPES = ((9, 3), (14, 2), (6, 4))


def some_graphs(x: Tensor) -> Side:
    """Graphs in no order: one of a single node, one of nobody (and in small batches more of either)."""
    return torch.tensor([3, 0, 2, 0, 3, 4, 2, 0, 3])[torch.arange(len(x)) % 9], GRAPHS


def one_graph(x: Tensor) -> Side:
    """All nodes belong to one graph."""
    return torch.zeros(len(x), dtype=torch.int32), 1


def index(x: Tensor, side: Side) -> Tensor:
    """The graph of each node, one column."""
    return side[0].reshape(-1, 1)


def refused(message: str, *side: Tensor | int) -> Refusal:
    """A batch that four nodes cannot have."""
    return Refusal(message, (4, 3), side=lambda x: side)


BAD_BATCH = (
    refused(r"batch must lie in \[0, 4\], got values from 0 to 5", torch.tensor([0, 5, 1, 1]), 5),
    refused(r"batch must lie in \[0, 4\], got values from -1", torch.tensor([0, -1, 1, 1]), 5),
    refused(r"batch must lie in \[0, 1\], got values from -1", torch.tensor([0, -1, 1, 1])),
    refused(r"batch must have one entry a sample, \(4,\)", torch.tensor([0, 1, 1])),
    refused(r"batch must have one entry a sample, \(4,\)", torch.zeros(4, 1, dtype=torch.long)),
    refused("batch must be of an integer dtype", torch.full((4,), torch.nan)),
    refused("batch must be of an integer dtype", torch.ones(4, dtype=torch.bool)),
    refused("batch must be on the device of x, cpu, got meta", torch.zeros(4, dtype=torch.long, device="meta")),
)
BAD_NODES = (
    *(Refusal(bad.message, bad.shape[:2], bad.dtype, bad.device) for bad in BAD_INPUT),
    Refusal(r"x must be \(nodes, channels\), got \(4, 3, 2\)", (4, 3, 2)),
)
REFUSALS = (*BAD_NODES, *BAD_BATCH)
