"""Batch normalization over parts of the batch."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from normwise.core.grouping import Channelwise, Ghost
from normwise.core.standardise import Standardise
from normwise.errors import ShapeError
from normwise.layers.affine import check_number
from normwise.layers.base import RunningNorm
from normwise.layers.policy import DEFAULT, StatisticsPolicy


@final
class GhostBatchNorm(RunningNorm):
    r"""Normalise each channel over contiguous parts of the batch, as if each were on a device of its own.

    .. math:: y_i = \frac{x_i - \mu_{gc}}{\sqrt{\sigma_{gc}^2 + eps}} \, weight_c + bias_c, \quad g = \lfloor i / m \rfloor,
       \quad m = \lceil n / splits \rceil

    It keeps the noise of a small batch, a regulariser, at a large one. The last part may be smaller; there may be fewer
    parts than `splits`, as with `torch.chunk`.

    Shape: `(n, c, *)` to the same. Accumulation in float64.

    Arguments: splits, the number of parts, from 1 (plain batch normalization) to n. The others as `BatchNorm`.

    Buffers: as `BatchNorm`; they take the pooled moments, those of the whole batch, so that evaluation knows nothing of
    the parts. State dict as `nn.BatchNorm2d`.

    Modes: train uses the statistics of each part, eval the running ones; `policy` changes either for good. Gradients
    flow through batch statistics. A channel that is constant in a part gives `bias` there.

    Raises `ShapeError`, before any buffer changes, where parts are needed for fewer samples than `splits`, for a last
    part of a single value a channel, and for whatever `BatchNorm` refuses.

    >>> GhostBatchNorm(3, splits=4)(torch.randn(8, 3, 4, 4)).shape
    torch.Size([8, 3, 4, 4])

    Reference: Hoffer, Hubara and Soudry 2017, "Train longer, generalize better", algorithm 1, with pooled running
    statistics instead of a decayed sum over parts.
    """

    def __init__(
        self,
        num_features: int,
        splits: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        *,
        affine: bool = True,
        track_running_stats: bool = True,
        policy: StatisticsPolicy = DEFAULT,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """See the class."""
        super().__init__(
            num_features, eps, momentum,
            affine=affine, track_running_stats=track_running_stats, policy=policy, device=device, dtype=dtype,
        )  # fmt: skip
        check_number("splits", splits)
        if splits < 1:
            raise ShapeError(f"splits must be at least 1, got {splits}")
        self.splits = splits

    def forward(self, x: Float[Tensor, "n c *l"]) -> Float[Tensor, "n c *l"]:
        """Normalise x."""
        self.check_input(x)
        by_batch = self.uses_batch_statistics()
        if not by_batch and self.goes_native(x):
            return self.with_torch(x)
        grouping = Ghost(self.splits) if by_batch else Channelwise()
        return self.normalise(x, grouping, Standardise(self.eps), self.weight, self.bias)

    def extra_repr(self) -> str:
        """Show the configuration."""
        return f"{super().extra_repr()}, splits={self.splits}"
