"""Pair normalization: the distances between nodes keep their size, layer after layer."""

from __future__ import annotations

from functools import partial
from typing import final

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from normwise.core.graph import centre, scale_by_distance
from normwise.errors import ShapeError
from normwise.layers.affine import check_eps
from normwise.layers.graph import normalise_graphs


@final
class PairNorm(nn.Module):
    r"""Centre each graph and scale it to a fixed mean squared distance; drop-in for `torch_geometric.nn.PairNorm`.

    .. math:: y_i = scale \cdot \frac{x_i - \mu_g}{\sqrt{E_g[\|x - \mu_g\|^2] + eps}}, \quad g = batch_i

    Against oversmoothing: graph convolutions pull nodes together, and this holds the total pairwise squared distance.

    Shape: x `(nodes, c)`, any c, to the same; batch and batch_size as `GraphNorm`. Accumulation in float64.

    Arguments: scale, the root mean squared distance of a graph's nodes from their mean (1; larger ones suit deeper
    networks). scale_individually: divide each node by its own distance :math:`\sqrt{\|x_i - \mu_g\|^2 + eps}` instead.
    eps, added to the squared distance inside the root (1e-5). PyG adds it outside the root where scale_individually:
    at a distance d from the mean, outputs then differ by less than :math:`eps / d + eps / (2 d^2)` of their size.

    Parameters and buffers: none. Modes: one; no graph depends on another. Gradients flow through the statistics. A
    graph of one node, and one of equal nodes, give 0; graphs without nodes, and no nodes at all, are allowed.

    Raises `ShapeError` for a negative eps, x that is not `(nodes, c)` or not floating, and a batch that `GraphNorm`
    refuses.

    >>> y = PairNorm()(torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 2]))
    >>> bool(y[4].abs().max() < 1e-6)
    True

    Reference: Zhao and Akoglu 2020, "PairNorm: Tackling Oversmoothing in GNNs", eq. 10 and 11.
    """

    def __init__(self, scale: float = 1.0, *, scale_individually: bool = False, eps: float = 1e-5) -> None:
        """See the class."""
        super().__init__()
        check_eps(eps)
        self.scale, self.scale_individually, self.eps = scale, scale_individually, eps

    def forward(
        self, x: Float[Tensor, "nodes c"], batch: Int[Tensor, " nodes"] | None = None, batch_size: int | None = None
    ) -> Float[Tensor, "nodes c"]:
        """Normalise x, each node within its graph."""
        if not isinstance(x, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ShapeError(f"x must be a tensor (nodes, channels), got {type(x).__name__}")
        if not x.is_floating_point():
            raise ShapeError(f"x must be of a floating dtype, got {x.dtype}; call .float() on it")
        if not self.scale_individually:
            coefficients = partial(scale_by_distance, scale=self.scale, eps=self.eps)
            return normalise_graphs(x, batch, batch_size, coefficients)
        centred, channels = normalise_graphs(x, batch, batch_size, centre), x.shape[1]
        return functional.rms_norm(centred, (channels,), eps=self.eps / channels) * (self.scale / channels**0.5)

    def extra_repr(self) -> str:
        """Show the configuration."""
        return f"scale={self.scale}, scale_individually={self.scale_individually}, eps={self.eps}"
