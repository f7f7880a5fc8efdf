"""Real graphs: the citations of Cora, and the digits each joined to its nearest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from normwise.errors import MissingExtraError
from normwise.studies.data import digits, packaged

_NEAREST = 8


@dataclass(frozen=True, eq=False)
class Graph:
    """Features `(nodes, c)`, labels `(nodes,)` and undirected edges `(2, edges)`, each in both directions."""

    name: str
    features: Tensor
    labels: Tensor
    edges: Tensor

    @cached_property
    def adjacency(self) -> Tensor:
        """Sparse `D^-1/2 (A + I) D^-1/2`. Reference: Kipf and Welling 2017, eq. 2."""
        nodes = len(self.labels)
        loops = torch.arange(nodes).repeat(2, 1)
        edges = torch.cat([self.edges, loops], 1).unique(dim=1)
        weight = torch.bincount(edges[0], minlength=nodes).float().rsqrt()
        values = weight[edges[0]] * weight[edges[1]]
        return torch.sparse_coo_tensor(edges, values, (nodes, nodes), check_invariants=True).coalesce()

    @cached_property
    def whole(self) -> Batch:
        """All nodes."""
        return Batch(self.adjacency @ self.features, self.adjacency, torch.arange(len(self.labels)))

    @cached_property
    def neighbours(self) -> list[list[int]]:
        """The neighbours of each node."""
        found: list[list[int]] = [[] for _ in range(len(self.labels))]
        for one, other in self.edges.t().tolist():
            found[one].append(other)
        return found

    def ball(self, centre: int, size: int) -> list[int]:
        """Return the `size` nodes nearest to one, breadth first; from another component where one is too small."""
        inside, queue, start = [centre], [centre], centre
        known = {centre}
        while len(inside) < size:
            if not queue:
                start = (start + 1) % len(self.labels)
                if start not in known:
                    known.add(start)
                    inside.append(start)
                    queue.append(start)
                continue
            for node in self.neighbours[queue.pop(0)]:
                if node not in known and len(inside) < size:
                    known.add(node)
                    inside.append(node)
                    queue.append(node)
        return inside

    def part(self, nodes: Sequence[int]) -> Batch:
        """Return some nodes and the edges among them, as if the graph had no others."""
        chosen, place = torch.tensor(nodes), torch.full((len(self.labels),), -1)
        place[chosen] = torch.arange(len(chosen))
        ends = place[self.edges]
        one, other = ends[:, (ends >= 0).all(0)]
        adjacency = torch.eye(len(chosen))
        adjacency[one, other] = 1
        weight = adjacency.sum(1).rsqrt()
        adjacency = weight[:, None] * adjacency * weight
        return Batch(adjacency @ self.features[chosen], adjacency, chosen)


class Batch(NamedTuple):
    """What a graph network is shown: `smooth` `(n, c)`, each node's features averaged with its neighbours'.

    `adjacency` `(n, n)` averages, and `nodes` `(n,)` are the places of these nodes in the graph.
    """

    smooth: Tensor
    adjacency: Tensor
    nodes: Tensor


def side_by_side(batches: Sequence[Batch]) -> Batch:
    """Return several batches as one, no edges between them."""
    smooth, adjacency, nodes = zip(*batches, strict=True)
    return Batch(torch.cat(smooth), torch.block_diag(*adjacency), torch.cat(nodes))


def cora() -> Graph:
    """Return the citations of 2708 papers with bags of 1433 words, in 7 subjects; from the package graphdatascience."""
    try:
        from pyarrow.parquet import read_table
    except ImportError as error:
        raise MissingExtraError("pyarrow", "studies", "the Cora data set") from error
    package, purpose = "graphdatascience==2.2", "the Cora data set"
    folder = "graphdatascience/resources/cora"
    nodes = read_table(packaged(f"{folder}/cora_nodes.parquet.gzip", package=package, purpose=purpose)).to_pydict()
    links = read_table(packaged(f"{folder}/cora_rels.parquet.gzip", package=package, purpose=purpose)).to_pydict()
    place = {node: i for i, node in enumerate(nodes["nodeId"])}
    one, other = ([place[node] for node in links[name]] for name in ("sourceNodeId", "targetNodeId"))
    edges = torch.tensor([one + other, other + one]).unique(dim=1)
    words = torch.tensor(nodes["features"], dtype=torch.float32)
    words = words / words.sum(1, keepdim=True).clamp_min(1)
    return Graph("Cora", words, torch.tensor(nodes["subject"]), edges)


def neighbours_of_digits() -> Graph:
    """Return scikit-learn's digits, each joined to the 8 whose pixels are nearest."""
    images, labels = digits()
    pixels = images.flatten(1)
    nearest = torch.cdist(pixels, pixels).fill_diagonal_(torch.inf).topk(_NEAREST, largest=False).indices
    one = torch.arange(len(pixels)).repeat_interleave(_NEAREST)
    edges = torch.stack([torch.cat([one, nearest.flatten()]), torch.cat([nearest.flatten(), one])]).unique(dim=1)
    return Graph("digits", pixels - pixels.mean(0), labels, edges)
