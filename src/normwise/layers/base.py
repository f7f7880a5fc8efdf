"""What all layers with running statistics share: parameters, buffers, checkpoints, refusals."""

from __future__ import annotations

from abc import ABC
from typing import Any

import torch
from torch import Tensor, nn

from normwise.core import running
from normwise.core.moments import MIN_VALUES, Moments
from normwise.errors import ModelError, ShapeError
from normwise.layers.policy import DEFAULT, Source, StatisticsPolicy

_LEAST_DIMENSIONS = 2


class RunningNorm(nn.Module, ABC):
    """Abstract: affine parameters `(c,)`, running statistics, and the rules for using and updating them.

    Not a subclass of torch's `_BatchNorm`: tools that replace every such subclass would take these layers apart.
    """

    _version = 2  # of the checkpoint's layout, as torch counts: since 2 there is num_batches_tracked
    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        *,
        affine: bool = True,
        track_running_stats: bool = True,
        policy: StatisticsPolicy = DEFAULT,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """See the subclass for the arguments."""
        super().__init__()
        if num_features < 1:
            raise ShapeError(f"num_features must be at least 1, got {num_features}")
        if eps < 0:
            raise ShapeError(f"eps must not be negative, got {eps}")
        if momentum is not None and not 0 <= momentum <= 1:
            raise ShapeError(f"momentum must lie in [0, 1] (the weight of the new batch) or be None, got {momentum}")
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats, self.policy = affine, track_running_stats, policy
        for name in ("weight", "bias"):
            table = torch.empty(num_features, device=device, dtype=dtype)
            self.register_parameter(name, nn.Parameter(table) if affine else None)
        for name in ("running_mean", "running_var"):
            table = torch.empty(self._table_shape(), device=device, dtype=dtype)
            self.register_buffer(name, table if track_running_stats else None)
        counter = torch.zeros((), dtype=torch.long, device=device) if track_running_stats else None
        self.register_buffer("num_batches_tracked", counter)
        self.reset_parameters()

    def _table_shape(self) -> tuple[int, ...]:
        """Shape of the running statistics."""
        return (self.num_features,)

    def reset_parameters(self) -> None:
        """Set weight 1, bias 0 and the running statistics to their initial values."""
        self.reset_running_stats()
        if self.weight is not None and self.bias is not None:
            nn.init.ones_(self.weight)
            nn.init.zeros_(self.bias)

    def reset_running_stats(self) -> None:
        """Set mean 0, variance 1, count 0."""
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self.num_batches_tracked.zero_()

    def uses_batch_statistics(self) -> bool:
        """Return whether the current mode normalises with the batch's own statistics."""
        source = self.policy.training if self.training else self.policy.evaluation
        return source is Source.BATCH or self.running_mean is None

    def updates_statistics(self) -> bool:
        """Return whether the current mode updates the running statistics."""
        return self.training and self.policy.update and self.running_mean is not None

    def check_input(self, x: Tensor, channels: int | None = None) -> None:
        """Raise `ShapeError` for a tensor this layer cannot take, before any buffer has changed."""
        expected = self.num_features if channels is None else channels
        if x.ndim < _LEAST_DIMENSIONS:
            raise ShapeError(
                f"x must be (n, {expected}, *), got {tuple(x.shape)}; add a batch axis with x.unsqueeze(0)"
            )
        if x.shape[1] != expected:
            raise ShapeError(f"x must have {expected} channels on axis 1, got {x.shape[1]} in {tuple(x.shape)}")
        if not x.is_floating_point():
            raise ShapeError(f"x must be of a floating dtype, got {x.dtype}; call .float() on it")
        for table in (self.running_mean, self.weight):
            if table is not None and table.device != x.device:
                raise ShapeError(f"x must be on the layer's device, {table.device}, got {x.device}; move one of them")
            if table is not None and x.dtype != table.dtype and not _mixed_precision(x.dtype, table.dtype):
                raise ShapeError(
                    f"x must be of the layer's dtype, {table.dtype}, or float16 or bfloat16 into float32, got {x.dtype}; "
                    f"call layer.to({x.dtype})"
                )

    def check_enough_values(self, x: Tensor) -> None:
        """Raise `ShapeError` if a channel has fewer than two values; for where batch statistics are used or tracked."""
        values = x.numel() // x.shape[1] if x.numel() else 0
        if values < MIN_VALUES:
            raise ShapeError(
                f"x must hold more than 1 value per channel when batch statistics are used, got {values} in "
                f"{tuple(x.shape)}; use drop_last=True or a larger batch, or normwise.freeze(model)"
            )

    def next_momentum(self) -> float:
        """Return the weight the next batch gets."""
        if self.momentum is not None or self.num_batches_tracked is None:
            return 0.0 if self.momentum is None else self.momentum
        return running.cumulative_momentum(int(self.num_batches_tracked) + 1)

    def count_batch(self) -> None:
        """Add one to `num_batches_tracked`: the last thing a training step changes."""
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)

    @torch.no_grad()
    def update_statistics(self, batch: Moments, update: running.Update) -> None:
        """Replace the running statistics by `update` of them and the batch's moments."""
        if self.running_mean is None or self.running_var is None:
            raise ModelError("this layer tracks no statistics; construct it with track_running_stats=True")
        mean, variance = update(self.running_mean, self.running_var, batch, self.next_momentum())
        self.running_mean.copy_(mean)
        self.running_var.copy_(variance)
        self.count_batch()

    def extra_repr(self) -> str:
        """Show the configuration, the policy only where it is not the default."""
        text = (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )
        return text if self.policy == DEFAULT else f"{text}, policy={self.policy}"

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Accept checkpoints from before `num_batches_tracked` existed, as torch does."""
        key = prefix + "num_batches_tracked"
        if (local_metadata.get("version") or 1) < self._version and self.num_batches_tracked is not None:
            state_dict.setdefault(key, self.num_batches_tracked)
        super()._load_from_state_dict(  # pyright: ignore[reportUnknownMemberType]
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


def _mixed_precision(values: torch.dtype, tables: torch.dtype) -> bool:
    """Return whether half-precision values meet float32 tables, which every backend computes with."""
    return values in (torch.float16, torch.bfloat16) and tables == torch.float32
