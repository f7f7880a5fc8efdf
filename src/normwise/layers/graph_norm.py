"""Graph normalization: each graph by its own statistics, with a learnt share of the mean taken off."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from normwise.core.standardise import Standardise
from normwise.layers.affine import AffineNorm
from normwise.layers.graph import normalise_graphs


@final
class GraphNorm(AffineNorm):
    r"""Normalise each channel over the nodes of each graph; drop-in for `torch_geometric.nn.GraphNorm`.

    .. math:: y_i = \frac{z_i}{\sqrt{E_g[z_c^2] + eps}} \, weight_c + bias_c,
        \quad z_i = x_i - mean\_scale_c \, \mu_{gc}, \quad g = batch_i

    The mean of a graph says something about it (a regular graph is all mean), so how much of it goes is learnt.

    Shape: x `(nodes, c)` to the same; batch `(nodes,)`, the graph of each node, in any order, gaps allowed: the second
    argument or from the active `BatchInfo.graph`; with neither, all nodes are one graph. batch_size, the number of
    graphs: read from batch if not given (give it under `torch.compile(fullgraph=True)`). Accumulation in float64.

    Arguments: in_channels c. eps, added to the mean square inside the root (1e-5, as PyG).

    Parameters: weight, bias and mean_scale `(c,)`, from 1, 0 and 1. Buffers: none. State dict as PyG's, both ways.

    Modes: one; no graph depends on another. Gradients flow through the statistics. A graph of one node, and a channel
    constant in its graph, give `bias` while mean_scale is 1; graphs without nodes, and no nodes at all, are allowed.

    Raises `ShapeError` for x that is not `(nodes, c)`, an integer input, a dtype or device other than the layer's, a
    batch of another length, of a floating dtype, below 0 or beyond `batch_size`, or on another device than x.

    >>> GraphNorm(3)(torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 2])).shape
    torch.Size([5, 3])

    Reference: Cai et al. 2021, "GraphNorm: A Principled Approach to Accelerating Graph Neural Network Training", section 4.
    """

    def __init__(
        self,
        in_channels: int,
        eps: float = 1e-5,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """See the class."""
        super().__init__(in_channels, eps, device=device, dtype=dtype)
        self.in_channels = in_channels
        self.mean_scale = nn.Parameter(torch.empty(in_channels, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set weight 1, bias 0 and mean_scale 1."""
        super().reset_parameters()
        nn.init.ones_(self.mean_scale)

    def forward(
        self, x: Float[Tensor, "nodes c"], batch: Int[Tensor, " nodes"] | None = None, batch_size: int | None = None
    ) -> Float[Tensor, "nodes c"]:
        """Normalise x, each node within its graph."""
        self.check_input(x)
        coefficients = Standardise(self.eps)
        return normalise_graphs(x, batch, batch_size, coefficients, self.weight, self.bias, self.mean_scale)

    def extra_repr(self) -> str:
        """Show the configuration."""
        return f"{self.in_channels}, eps={self.eps}"
