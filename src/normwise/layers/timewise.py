"""Batch normalization by time step."""

from __future__ import annotations

from functools import partial
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from normwise.core.estimate import fill_from_nearest, standardise_shrunk
from normwise.core.grouping import Cells, Steps
from normwise.core.moments import Moments
from normwise.core.standardise import Standardise
from normwise.errors import ShapeError
from normwise.layers.base import RunningNorm
from normwise.layers.info import padding
from normwise.layers.policy import DEFAULT, StatisticsPolicy

_SEQUENCE_DIMENSIONS = 3


@final
class TimewiseBatchNorm(RunningNorm):
    r"""Normalise each channel at each time step, over the sequences that are still alive there.

    .. math:: y_t = \frac{x_t - \mu_{tc}}{\sqrt{\sigma_{tc}^2 + eps}} \, weight_c + bias_c \text{ where valid, else } 0

    For activations whose mean drifts along the sequence, where statistics pooled over steps leave a bias at each.

    Shape: x `(n, c, t)`, t at most `max_length`, to the same; lengths `(n,)`, the valid steps of each sequence, the
    first ones, or mask `(n, t)`, True where valid, are the second argument, `mask=...`, or come from the active
    `BatchInfo`; with none of them all steps are valid. Padded steps enter no statistic, give 0 and receive no gradient.
    Accumulation in float64.

    Arguments: max_length, the number of steps there are tables for. min_count, the number of values a step needs to
    stand on its own: one of n < min_count is normalised, in training, as if it had min_count - n values more, of the
    mean and variance of the nearest step that has enough; if none has, none borrows. 1, the default, leaves every step
    on its own, and a late step of few values noisy; 16 bounds the relative error of a variance near a third. The
    others as `BatchNorm`.

    Buffers: running_mean and running_var (unbiased) `(max_length, c)`, of a step's own values, never borrowed ones;
    num_batches_tracked `(max_length,)`, the batches that updated each step, so that momentum None is each step's own
    average. Evaluation takes the statistics of the nearest updated step for one that training never updated, the
    earlier of two; with none updated, the initial values.

    Modes: train uses and tracks the statistics of each step, eval the running ones; `policy` changes either for good.
    Gradients flow through batch statistics. A single value at a step (at the default min_count), and a channel constant
    there, give `bias`; a single value leaves the step's buffers as they are.

    Raises, before any buffer changes, `ShapeError` for x that is not `(n, c, t)` or longer than `max_length`, lengths or
    a mask that do not fit x, fewer than two valid values a channel, and for whatever `BatchNorm` refuses.

    >>> TimewiseBatchNorm(3, max_length=10)(torch.randn(4, 3, 6), torch.tensor([6, 6, 5, 2])).shape
    torch.Size([4, 3, 6])

    Reference: Cooijmans et al. 2017, "Recurrent Batch Normalization", section 3 (statistics by time step).
    """

    def __init__(
        self,
        num_features: int,
        max_length: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        *,
        min_count: int = 1,
        affine: bool = True,
        track_running_stats: bool = True,
        policy: StatisticsPolicy = DEFAULT,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """See the class."""
        if max_length < 1:
            raise ShapeError(f"max_length must be at least 1, got {max_length}")
        if min_count < 1:
            raise ShapeError(f"min_count must be at least 1, got {min_count}; 1 leaves every step on its own")
        super().__init__(
            num_features, eps, momentum,
            groups=max_length, affine=affine,
            track_running_stats=track_running_stats, policy=policy, device=device, dtype=dtype,
        )  # fmt: skip
        self.max_length, self.min_count = max_length, min_count

    def forward(
        self, x: Float[Tensor, "n c t"], lengths: Int[Tensor, " n"] | None = None, *, mask: Tensor | None = None
    ) -> Float[Tensor, "n c t"]:
        """Normalise the valid steps of x."""
        self.check_input(x)
        if x.ndim != _SEQUENCE_DIMENSIONS or x.shape[-1] > self.max_length:
            raise ShapeError(
                f"x must be (n, {self.num_features}, t) of at most {self.max_length} steps, got {tuple(x.shape)}; "
                "cut the sequences, or construct the layer with a larger max_length"
            )
        coefficients = Standardise(self.eps)
        if self.min_count > 1 and self.uses_batch_statistics():
            coefficients = partial(standardise_shrunk, eps=self.eps, min_count=self.min_count)
        return self.normalise(x, Steps(*padding(x, lengths, mask)), coefficients, self.weight, self.bias)

    def known_moments(self, cells: Cells) -> Moments:
        """Return the running statistics of the first steps, those of the nearest updated step where there are none."""
        moments, batches, steps = self.running_moments(), self.num_batches_tracked, slice(cells.count)
        if batches is not None:
            moments = fill_from_nearest(moments, batches > 0)
        return Moments(moments.count[steps], moments.mean[steps], moments.m2[steps])

    def extra_repr(self) -> str:
        """Show the configuration."""
        return f"{super().extra_repr()}, max_length={self.max_length}, min_count={self.min_count}"
