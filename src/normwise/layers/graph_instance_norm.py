"""Instance normalization of graphs."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from normwise.core.graph import typical
from normwise.core.moments import Moments
from normwise.core.standardise import Standardise
from normwise.layers.base import RunningNorm
from normwise.layers.graph import graphs
from normwise.layers.policy import DEFAULT, StatisticsPolicy


@final
class GraphInstanceNorm(RunningNorm):
    r"""Normalise each channel over the nodes of each graph; drop-in for `torch_geometric.nn.InstanceNorm`.

    .. math:: y_i = \frac{x_i - \mu_{gc}}{\sqrt{\sigma_{gc}^2 + eps}} \, weight_c + bias_c, \quad g = batch_i

    Shape: x `(nodes, c)` to the same; batch and batch_size as `GraphNorm`. Accumulation in float64.

    Arguments: in_channels c. eps, added to the variance inside the root (1e-5). momentum in [0, 1], the weight of the
    new batch (0.1), or None for the cumulative average. affine, whether weight and bias exist (False, as PyG).
    track_running_stats, whether buffers exist and evaluation uses them (False, as PyG: evaluation then treats each
    graph as training does). policy, see `StatisticsPolicy`.

    Buffers: running_mean and running_var `(c,)` follow a typical graph: the average, over the graphs of the batch, of
    mean and unbiased variance; num_batches_tracked. State dict as PyG's, both ways. PyG's averages differ where a
    graph has one node or none (it counts them in with variance 0, or as 0 altogether), and it never counts batches.

    Modes: with buffers, train uses each graph's statistics and tracks them, eval uses the running ones; `policy`
    changes either for good. Gradients flow through the statistics of the batch. A graph of one node, and a channel
    constant in its graph, give `bias`; a graph of one node changes no buffer. No nodes at all are allowed.

    Raises, before any buffer changes, whatever `GraphNorm` raises.

    >>> GraphInstanceNorm(3)(torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 2])).shape
    torch.Size([5, 3])

    Reference: Ulyanov, Vedaldi and Lempitsky 2016, "Instance Normalization", eq. 2, over nodes instead of pixels.
    """

    def __init__(
        self,
        in_channels: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        *,
        affine: bool = False,
        track_running_stats: bool = False,
        policy: StatisticsPolicy = DEFAULT,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """See the class."""
        super().__init__(
            in_channels, eps, momentum,
            affine=affine, track_running_stats=track_running_stats, policy=policy, device=device, dtype=dtype,
        )  # fmt: skip
        self.in_channels = in_channels

    def forward(
        self, x: Float[Tensor, "nodes c"], batch: Int[Tensor, " nodes"] | None = None, batch_size: int | None = None
    ) -> Float[Tensor, "nodes c"]:
        """Normalise x, each node within its graph."""
        self.check_input(x)
        grouping = graphs(x, batch, batch_size)
        return self.normalise(x, grouping, Standardise(self.eps), self.weight, self.bias)

    def check_enough_values(self, x: Tensor, mask: Tensor | None = None) -> None:
        """Refuse nothing: whether a graph of one node comes alone or with others, it gives `bias`."""

    def summarise(self, batch: Moments) -> Moments:
        """Return the moments of a typical graph of the batch."""
        return typical(batch)
