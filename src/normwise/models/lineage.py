"""Which uses of norms a gradient meets on its way back, read from autograd's graph."""

from __future__ import annotations

from collections.abc import Container, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

Node = Any  # a node of autograd's graph


@dataclass
class Lineage:
    """The uses of a pass in order of execution: nodes, the uses each descends from directly, whether x takes a gradient."""

    nodes: list[Node] = field(default_factory=list)
    sources: list[set[int]] = field(default_factory=list)
    learns: list[bool] = field(default_factory=list)

    def add(self, x: Tensor, y: Tensor) -> None:
        """Note the next use, `y` made from `x` by one node."""
        node, places = y.grad_fn, {node: place for place, node in enumerate(self.nodes) if node is not None}
        found = () if node is None else _upstream(_inputs(node), places)
        self.sources.append({places[source] for source in found if source in places})
        self.nodes.append(node)
        self.learns.append(node is not None and x.requires_grad)

    def of(self, place: int) -> tuple[set[int], bool] | None:
        """Return what is known of a use, None if the pass did not get there."""
        return (self.sources[place], self.learns[place]) if place < len(self.nodes) else None

    def sweeps(self) -> list[list[int]]:
        """Return the uses that learn, by sweep: those of one feed, as far as gradients go, only those of earlier ones."""
        depth = [0] * len(self.nodes)
        for place in reversed(range(len(depth))):
            for source in self.sources[place]:
                depth[source] = max(depth[source], depth[place] + 1)
        learning = [place for place, learns in enumerate(self.learns) if learns]
        return [[place for place in learning if depth[place] == d] for d in sorted({depth[p] for p in learning})]


def leaves_of(loss: Tensor, apart: Sequence[Tensor]) -> list[Tensor]:
    """Return the leaves that `loss.backward()` reaches, all but those `apart`."""
    excluded = {id(tensor) for tensor in apart}
    leaves = (getattr(node, "variable", None) for node in _upstream([loss.grad_fn], ()))
    return [leaf for leaf in leaves if leaf is not None and id(leaf) not in excluded]


def _upstream(nodes: Sequence[Node], ends: Container[Node]) -> Generator[Node]:
    """Yield these nodes and all that a gradient reaches from there, but nothing beyond `ends`."""
    waiting, seen = list(nodes), {None}
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        yield node
        if node not in ends:
            waiting.extend(_inputs(node))


def _inputs(node: Node) -> list[Node]:
    return [source for source, _ in node.next_functions]
