"""Batch normalization for padded batches."""

from __future__ import annotations

from typing import final

from jaxtyping import Float, Int
from torch import Tensor

from normwise.core.grouping import Prefix
from normwise.core.standardise import Standardise
from normwise.layers.base import RunningNorm
from normwise.layers.info import missing, padding


@final
class MaskedBatchNorm(RunningNorm):
    r"""Normalise each channel over the valid positions of a padded batch; `nn.BatchNorm1d` on the unpadded data.

    .. math:: y = \frac{x - \mu_c}{\sqrt{\sigma_c^2 + eps}} \, weight_c + bias_c \text{ where valid, else } 0

    Padded positions enter no statistic, give 0 and receive no gradient, whatever stands there, NaN included.

    Shape: x `(n, c, l)` with lengths `(n,)`, the valid positions of each sample, the first ones; or x `(n, c, *)` with
    mask `(n, *)`, True where VALID (the opposite of torch's key_padding_mask). To the shape of x. Either is the second
    argument, `mask=...`, or comes from the active `BatchInfo`. Accumulation in float64.

    Arguments: as `BatchNorm`. Buffers: as `BatchNorm`, over valid positions only. State dict as `nn.BatchNorm1d`.

    Modes: train uses and tracks batch statistics (population variance), eval uses the running ones; `policy` changes
    either for good. Gradients flow through batch statistics. A constant channel gives `bias`.

    Raises, before any buffer changes: `DataError` without lengths and mask; `ShapeError` for those that do not fit x,
    lengths below 1 or beyond l, fewer than two valid values a channel where batch statistics are used or tracked, and
    whatever `BatchNorm` refuses.

    >>> layer = MaskedBatchNorm(3)
    >>> layer(torch.randn(2, 3, 5), torch.tensor([5, 2]))[1, :, 2:].abs().max().item()
    0.0

    Reference: Ioffe and Szegedy 2015, "Batch Normalization", algorithm 1, over the values that are there.
    """

    def forward(
        self, x: Float[Tensor, "n c *l"], lengths: Int[Tensor, " n"] | None = None, *, mask: Tensor | None = None
    ) -> Float[Tensor, "n c *l"]:
        """Normalise the valid positions of x."""
        self.check_input(x)
        lengths, mask = padding(x, lengths, mask)
        if lengths is None and mask is None:
            raise missing("lengths")
        return self.normalise(x, Prefix(lengths, mask), Standardise(self.eps), self.weight, self.bias)
