"""What the norms of graphs share: which node belongs to which graph."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from normwise.core.grouping import Channelwise, Grouping, Indexed, canonical, check_side
from normwise.core.normalize import Coefficients, normalize
from normwise.errors import ShapeError
from normwise.layers.info import BatchInfo

_NODE_DIMENSIONS = 2


def check_nodes(x: Tensor) -> None:
    """Raise `ShapeError` for a tensor that is not a list of nodes."""
    if x.ndim != _NODE_DIMENSIONS:
        raise ShapeError(f"x must be (nodes, channels), got {tuple(x.shape)}; flatten graphs into one list of nodes")


def graphs(x: Float[Tensor, "nodes c"], batch: Tensor | None, batch_size: int | None) -> Grouping:
    """Return the grouping of nodes by graph.

    batch: `(nodes,)` graph of each node, in any order, gaps allowed; None for the active `BatchInfo.graph`, without
    which all nodes are one graph. batch_size: the number of graphs; None for one more than the largest index, which
    has to be read from memory (`torch.compile` breaks its graph there: give it).
    Raises `ShapeError` for x or batch of another shape, and for a batch on another device than x.
    """
    check_nodes(x)
    batch = BatchInfo.current().graph if batch is None else batch
    if batch is None:
        return Channelwise()
    check_side("batch", batch, x)
    return Indexed(batch, batch_size, name="batch")


def normalise_graphs(
    x: Float[Tensor, "nodes c"],
    batch: Tensor | None,
    batch_size: int | None,
    coefficients: Coefficients,
    *parameters: Tensor | None,
) -> Float[Tensor, "nodes c"]:
    """Normalise each graph by its own statistics; arguments as `graphs` and `core.normalize.normalize`."""
    grouping, values = graphs(x, batch, batch_size), canonical(x)
    return normalize(values, grouping.cells(values), coefficients, *parameters)[0].view_as(x)
