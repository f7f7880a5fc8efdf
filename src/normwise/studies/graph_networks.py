"""A small graph network in which the norm is chosen, and how well it tells the nodes of a graph."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from normwise.layers import BatchNorm, GraphBatchNorm, GraphInstanceNorm, GraphLayerNorm, GraphNorm, PairNorm
from normwise.studies.graphs import Graph, propagate

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda c: nn.Identity(),
    "BatchNorm": BatchNorm,
    "GraphBatchNorm": GraphBatchNorm,
    "GraphNorm": GraphNorm,
    "GraphInstanceNorm": lambda c: GraphInstanceNorm(c, affine=True),
    "GraphLayerNorm": GraphLayerNorm,
    "GraphLayerNorm, node": lambda c: GraphLayerNorm(c, mode="node"),
    "PairNorm": lambda c: PairNorm(),
}


def classified(graph: Graph, norm: Callable[[int], nn.Module], epochs: int, generator: torch.Generator) -> float:
    """Return the accuracy on held-back nodes of a graph convolutional network with this norm."""
    torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
    classes = int(graph.labels.max()) + 1
    first, second, after = nn.Linear(graph.features.shape[1], 16), nn.Linear(16, classes), norm(16)
    model = nn.ModuleList([first, second, after])
    optimizer = torch.optim.Adam(model.parameters(), 3e-2, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    order = torch.randperm(len(graph.labels), generator=generator)
    few, held = order[: 20 * classes], order[20 * classes :]

    def forward() -> Tensor:
        return propagate(graph, second(torch.relu(after(propagate(graph, first(graph.features))))))

    for _ in range(epochs):
        optimizer.zero_grad()
        nn.functional.cross_entropy(forward()[few], graph.labels[few]).backward()
        optimizer.step()
        schedule.step()
    model.eval()
    with torch.no_grad():
        return float((forward()[held].argmax(1) == graph.labels[held]).double().mean())
