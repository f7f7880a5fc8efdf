"""Layer normalization of graphs or of nodes."""

from __future__ import annotations

from functools import partial
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from normwise.core.graph import standardise_across
from normwise.core.grouping import canonical
from normwise.errors import one_of
from normwise.layers.affine import AffineNorm
from normwise.layers.graph import graphs, normalise_graphs


@final
class GraphLayerNorm(AffineNorm):
    r"""Normalise each graph over all its nodes and channels, or each node; drop-in for `torch_geometric.nn.LayerNorm`.

    .. math:: y_{ic} = \frac{x_{ic} - \mu_g}{\sqrt{\sigma_g^2 + eps}} \, weight_c + bias_c, \quad g = batch_i

    Shape: x `(nodes, c)` to the same; batch and batch_size as `GraphNorm`. Accumulation in float64 (mode "node":
    torch's layer_norm).

    Arguments: in_channels c. eps, added to the variance inside the root (1e-5). affine, whether weight and bias `(c,)`
    exist. mode: "graph", one mean and variance a graph, or "node", one a node, which makes it `nn.LayerNorm(c)`
    whatever the batch.

    Buffers: none. State dict as PyG's, both ways. PyG adds eps outside the root where it is given no batch, inside it
    where it is; here it stands inside, always, so that one graph gives the same with and without a batch.

    Modes of training: one; no graph depends on another. Gradients flow through the statistics. A graph (or node) whose
    values are all equal gives `bias`; graphs without nodes, and no nodes at all, are allowed.

    Raises `UsageError` for another mode, and whatever `GraphNorm` raises.

    >>> GraphLayerNorm(3)(torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 2])).shape
    torch.Size([5, 3])

    Reference: Ba, Kiros and Hinton 2016, "Layer Normalization", eq. 3, over a graph's nodes and channels.
    """

    def __init__(
        self,
        in_channels: int,
        eps: float = 1e-5,
        *,
        affine: bool = True,
        mode: str = "graph",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """See the class."""
        if mode not in ("graph", "node"):
            raise one_of("mode", mode, ("graph", "node"))
        super().__init__(in_channels, eps, affine=affine, device=device, dtype=dtype)
        self.in_channels, self.mode = in_channels, mode
        self.reset_parameters()

    def forward(
        self, x: Float[Tensor, "nodes c"], batch: Int[Tensor, " nodes"] | None = None, batch_size: int | None = None
    ) -> Float[Tensor, "nodes c"]:
        """Normalise x, each node within its graph or by itself."""
        self.check_input(x)
        if self.mode == "graph":
            coefficients = partial(standardise_across, eps=self.eps)
            return normalise_graphs(x, batch, batch_size, coefficients, self.weight, self.bias)
        graphs(x, batch, batch_size).cells(canonical(x))  # refuses what does not fit; no node depends on another
        return functional.layer_norm(x, (self.in_channels,), self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Show the configuration."""
        return f"{super().extra_repr()}, mode={self.mode}"
