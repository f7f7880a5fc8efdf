"""Batch normalization for tensors of any rank."""

from __future__ import annotations

from typing import final

from jaxtyping import Float
from torch import Tensor

from normwise.core.grouping import Channelwise
from normwise.core.standardise import Standardise
from normwise.layers.base import RunningNorm


@final
class BatchNorm(RunningNorm):
    r"""Normalise each channel over the batch and all positions; drop-in for `nn.BatchNorm1d/2d/3d`.

    .. math:: y = \frac{x - \mu_c}{\sqrt{\sigma_c^2 + eps}} \, weight_c + bias_c

    Shape: `(n, c, *)` to the same; accumulation in float64 (torch's operator: its own dtype).

    Arguments: num_features c. eps, added to the variance inside the root (1e-5: far below a useful variance, far above
    float32 rounding). momentum in [0, 1], the weight of the new batch (0.1: a memory of about ten batches); None for
    the cumulative average. affine, whether weight and bias exist. track_running_stats, whether buffers exist.
    policy, see `StatisticsPolicy`.

    Buffers: running_mean; running_var (unbiased, as torch); num_batches_tracked. State dict as `nn.BatchNorm2d`.

    Modes: train uses and tracks batch statistics (population variance), eval uses the running ones; `policy` changes
    either for good. Gradients flow through batch statistics. A constant channel gives `bias`.

    Raises: `ShapeError`, before any buffer changes, for a wrong number of channels or dimensions, an integer input,
    a dtype or device other than the layer's, or fewer than two values a channel where batch statistics are used.

    >>> layer = BatchNorm(3)
    >>> layer(torch.randn(8, 3, 4, 4)).shape
    torch.Size([8, 3, 4, 4])

    Reference: Ioffe and Szegedy 2015, "Batch Normalization", algorithms 1 and 2.
    """

    def forward(self, x: Float[Tensor, "n c *l"]) -> Float[Tensor, "n c *l"]:
        """Normalise x."""
        self.check_input(x)
        if not self.goes_native(x) and (self.uses_batch_statistics() or self.eps == 0):
            return self.normalise(x, Channelwise(), Standardise(self.eps), self.weight, self.bias)
        return self.with_torch(x)
