"""Normalization across channels: no statistic leaves its sample or its position."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from normwise.errors import ShapeError
from normwise.layers.affine import AffineNorm


@final
class AcrossChannelNorm(AffineNorm):
    r"""Normalise each position of each sample over its channels: `nn.LayerNorm(c)` for tensors with channels on axis 1.

    .. math:: y_{ncl} = \frac{x_{ncl} - \mu_{nl}}{\sqrt{\sigma_{nl}^2 + eps}} \, weight_c + bias_c

    The alternative to one statistic a channel: independent of the batch and of other positions, the same in training
    and evaluation; but it ties channels that measure different things to one scale, and takes their common level away.

    Shape: `(n, c, *)` to the same. Accumulation: torch's layer_norm, in float32 for half types.

    Arguments: num_features c, at least 2: one channel has nothing to be compared with. eps, added to the variance
    inside the root (1e-5, as `BatchNorm`). affine, whether weight and bias `(c,)` exist. Buffers: none. State dict as
    `nn.LayerNorm(c)`.

    Modes: one. Gradients flow through the statistics. A position where all channels are equal gives `bias`. One sample
    and none are as good as many.

    Raises `ShapeError` for a wrong number of channels or dimensions, an integer input, or a dtype or device other than
    the layer's.

    >>> AcrossChannelNorm(3)(torch.randn(8, 3, 4, 4)).shape
    torch.Size([8, 3, 4, 4])

    Reference: Ba, Kiros and Hinton 2016, "Layer Normalization", eq. 3, at each position.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        *,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """See the class."""
        if num_features == 1:
            raise ShapeError("num_features must be at least 2 to normalise across channels, got 1; use BatchNorm")
        super().__init__(num_features, eps, affine=affine, device=device, dtype=dtype)
        self.reset_parameters()

    def forward(self, x: Float[Tensor, "n c *l"]) -> Float[Tensor, "n c *l"]:
        """Normalise x."""
        self.check_input(x)
        values = x.movedim(1, -1)
        values = values if self.weight is None else values.to(self.weight.dtype)  # some devices take no mixture
        y = functional.layer_norm(values, (self.num_features,), self.weight, self.bias, self.eps)
        return y.movedim(-1, 1).to(x.dtype)
