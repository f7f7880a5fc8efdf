"""A small graph network in which the norm is chosen: trained on batches of a graph, judged on all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from normwise.layers import BatchNorm, GraphBatchNorm, GraphInstanceNorm, GraphLayerNorm, GraphNorm, PairNorm
from normwise.studies.graph_correlation.graphs import Batch, Graph

NormOf = Callable[[int], nn.Module]
NODE = "GraphLayerNorm, node"
NORMS: dict[str, NormOf] = {
    "none": lambda c: nn.Identity(),
    "BatchNorm": BatchNorm,
    "GraphBatchNorm": GraphBatchNorm,
    "GraphNorm": GraphNorm,
    "GraphInstanceNorm": lambda c: GraphInstanceNorm(c, affine=True),
    "GraphLayerNorm": GraphLayerNorm,
    NODE: lambda c: GraphLayerNorm(c, mode="node"),
    "PairNorm": lambda c: PairNorm(),
}
NORM_CHANNELS = 16
_LABELLED = 20  # nodes of each class, on average, whose labels are known


class Network(nn.Module):
    """Two graph convolutions and a norm between them. Reference: Kipf and Welling 2017, eq. 9."""

    def __init__(self, channels: int, classes: int, norm: NormOf) -> None:
        """Make one for features `(n, channels)`."""
        super().__init__()
        self.first, self.norm, self.second = (
            nn.Linear(channels, NORM_CHANNELS),
            norm(NORM_CHANNELS),
            nn.Linear(NORM_CHANNELS, classes),
        )

    def forward(self, smooth: Tensor, adjacency: Tensor) -> Tensor:
        """Return `(n, classes)`."""
        return adjacency @ self.second(torch.relu(self.norm(self.first(smooth))))


@dataclass(frozen=True, eq=False)
class Split:
    """The nodes whose labels are known, in training, and all others."""

    known: Tensor
    held: Tensor

    @staticmethod
    def of(graph: Graph, seed: int) -> Split:
        """Draw as many known nodes as 20 for each class, not by class."""
        order = torch.randperm(len(graph.labels), generator=torch.Generator().manual_seed(seed))
        return Split(*order.tensor_split([_LABELLED * (int(graph.labels.max()) + 1)]))


def trained(graph: Graph, norm: NormOf, batches: Iterable[Batch], steps: int, split: Split, seed: int) -> Network:
    """Train a network on so many batches; of each the loss is that of the nodes whose labels are known."""
    torch.manual_seed(seed)
    model = Network(graph.features.shape[1], int(graph.labels.max()) + 1, norm)
    optimizer = torch.optim.Adam(model.parameters(), 3e-2, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    known = torch.zeros(len(graph.labels), dtype=torch.bool)
    known[split.known] = True
    for _, batch in zip(range(steps), batches):  # batches may be without end
        told = known[batch.nodes]
        output = model(batch.smooth, batch.adjacency)[told]
        optimizer.zero_grad()
        functional.cross_entropy(output, graph.labels[batch.nodes][told]).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def accuracy(model: Network, graph: Graph, split: Split) -> float:
    """Return the share of held-back nodes that are told right, all edges known, by running statistics."""
    with torch.no_grad():
        output = model.eval()(graph.whole.smooth, graph.adjacency)[split.held]
    return float((output.argmax(1) == graph.labels[split.held]).double().mean())
