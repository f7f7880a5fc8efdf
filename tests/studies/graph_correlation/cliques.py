"""A graph that is easy to learn: two classes, each joined only to its own."""

from __future__ import annotations

import torch

from normwise.studies.graph_correlation.graphs import Graph


def cliques(nodes: int = 120) -> Graph:
    """Two classes, nodes joined to the ten next ones of their own; features say a little."""
    labels = torch.arange(nodes) % 2
    pairs = [(i, (i + 2 * k) % nodes) for i in range(nodes) for k in range(1, 6)]
    edges = torch.tensor(pairs).t()
    features = torch.randn(nodes, 8, generator=torch.Generator().manual_seed(0))
    features[:, 0] += 2 * labels
    return Graph("cliques", features, labels, torch.cat([edges, edges.flip(0)], 1).unique(dim=1))
