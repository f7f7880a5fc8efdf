"""What all layers with running statistics share: buffers, modes, updates, checkpoints."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from normwise.core import running
from normwise.core.grouping import Cells, Grouping, can_look, canonical
from normwise.core.kernels.dispatch import prefers_native
from normwise.core.moments import MIN_VALUES, Moments, accumulation_dtype
from normwise.core.normalize import Activation, measure, normalize
from normwise.core.passes import Coefficients
from normwise.errors import ModelError, ShapeError
from normwise.layers.affine import AffineNorm, table_shape
from normwise.layers.policy import DEFAULT, Source, StatisticsPolicy


class RunningNorm(AffineNorm, ABC):
    """Abstract: an affine norm with running statistics, and the rules for using and updating them.

    With `groups`, running statistics are `(groups, c)` and `num_batches_tracked` is `(groups,)`: it counts the batches
    in which a group had two values or more, those that changed its statistics.

    A layer called again during a backward pass, by activation checkpointing, updates nothing.

    Not a subclass of torch's `_BatchNorm`: tools that replace every such subclass would take these layers apart.
    """

    _version = 2  # of the checkpoint's layout, as torch counts: since 2 there is num_batches_tracked
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None
    observer: Callable[[Tensor, Cells], None] | None = None  # told of x and its cells while someone watches the model

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        *,
        affine: bool = True,
        track_running_stats: bool = True,
        policy: StatisticsPolicy = DEFAULT,
        groups: int | None = None,
        affine_groups: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """See the subclass for the arguments."""
        super().__init__(num_features, eps, affine=affine, affine_groups=affine_groups, device=device, dtype=dtype)
        if momentum is not None and not 0 <= momentum <= 1:
            raise ShapeError(f"momentum must lie in [0, 1] (the weight of the new batch) or be None, got {momentum}")
        self.momentum, self.track_running_stats = momentum, track_running_stats
        self.policy, self.groups = policy, groups
        for name in ("running_mean", "running_var"):
            table = torch.empty(table_shape(groups, num_features), device=device, dtype=dtype)
            self.register_buffer(name, table if track_running_stats else None)
        counter = torch.zeros(() if groups is None else (groups,), dtype=torch.long, device=device)
        self.register_buffer("num_batches_tracked", counter if track_running_stats else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set weight 1, bias 0 and the running statistics to their initial values."""
        self.reset_running_stats()
        super().reset_parameters()

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
        """Return whether a forward pass now updates the running statistics."""
        return self.training and self.policy.update and self.running_mean is not None and not _recomputing()

    def goes_native(self, x: Tensor, *, fused: bool = False) -> bool:
        """Return whether torch's own operator does this layer's plain batch normalization, and is the better way.

        It takes no eps of 0, and no momentum that `torch.compile` cannot know.
        """
        follows = self.momentum is not None or not torch.compiler.is_compiling()
        return self.eps > 0 and follows and prefers_native(x, fused=fused)

    def check_enough_values(self, x: Tensor, mask: Tensor | None = None) -> None:
        """Raise `ShapeError` if a channel has fewer than two values; for where batch statistics are used or tracked."""
        if mask is not None and not can_look(mask):
            return
        everywhere = x.numel() // x.shape[1] if x.numel() else 0
        values = everywhere if mask is None else int(mask.sum())
        if values < MIN_VALUES:
            raise ShapeError(
                f"x must hold more than 1 value per channel when batch statistics are used, got {values} in "
                f"{tuple(x.shape)}; use drop_last=True or a larger batch, or normwise.freeze(model)"
            )

    def normalise(
        self,
        x: Float[Tensor, "n c *l"],
        grouping: Grouping,
        coefficients: Coefficients,
        *parameters: Tensor | None,
        residual: Float[Tensor, "n c *l"] | None = None,
        activation: Activation | None = None,
    ) -> Float[Tensor, "n c *l"]:
        """Normalise x by the statistics of the current mode, and update the running ones if it says so.

        coefficients: `(moments, *parameters) -> (scale, shift)`, of the moments of the batch's groups or known ones.
        residual and activation: as in `core.normalize.normalize`.
        """
        update, by_batch = self.updates_statistics(), self.uses_batch_statistics()
        if update or by_batch:
            self.check_enough_values(x)
        values = canonical(x)
        cells = grouping.cells(values)
        if self.observer is not None:
            self.observer(values, cells)
        if cells.mask is not None and (update or by_batch):
            self.check_enough_values(x, cells.mask)
        added = None if residual is None else canonical(residual)
        known = None if by_batch else self.known_moments(cells)
        y, batch = normalize(
            values, cells, coefficients, *parameters, known=known, residual=added, activation=activation
        )
        if update:
            self.update_statistics(self.summarise(batch if by_batch else measure(values, cells)))
        return y.view_as(x)

    def with_torch(self, x: Float[Tensor, "n c *l"]) -> Float[Tensor, "n c *l"]:
        """Do the same for a plain batch normalization, one statistic a channel, with torch's own operator."""
        by_batch, update = self.uses_batch_statistics(), self.updates_statistics()
        if by_batch or update:
            self.check_enough_values(x)
        mean, variance, momentum = self.running_mean, self.running_var, 0.0
        own = by_batch and update and not self.follows_as_torch()
        if own and mean is not None and variance is not None:
            mean, variance, momentum = (
                torch.zeros_like(mean),
                torch.ones_like(variance),
                1.0,
            )  # to be those of the batch
        elif by_batch and update:
            momentum = float(self.next_momentum())
        elif (by_batch or update) and mean is not None and variance is not None:
            mean, variance = mean.clone(), variance.clone()  # not to be changed, now or before the backward pass
        y = functional.batch_norm(x, mean, variance, self.weight, self.bias, by_batch, momentum, self.eps)
        if own and mean is not None and variance is not None:
            count = x.new_full((1,), x.numel() / x.shape[1], dtype=accumulation_dtype(x.device))
            self.update_statistics(Moments.from_variance(count, mean, variance * (count - 1) / count))
        elif update and by_batch:
            self.count_batch()
        elif update:
            values = canonical(x)
            self.update_statistics(measure(values, Cells()).pool(0))
        return y

    def follows_as_torch(self) -> bool:
        """Return whether the running statistics follow a batch as those of `nn.BatchNorm` do."""
        return True

    def summarise(self, batch: Moments) -> Moments:
        """Return what of the batch's groups the running statistics follow: each of them, or all together."""
        return batch.pool(0) if self.groups is None else batch

    def known_moments(self, cells: Cells) -> Moments:
        """Return the running statistics that these cells are normalised by, tables `(g, c)` or `(1, c)`."""
        return self.running_moments()

    def running_moments(self) -> Moments:
        """Return the running statistics as they are now, tables `(groups, c)` or `(1, c)`, the variance as variance."""
        if self.running_mean is None or self.running_var is None:
            raise ModelError("this layer tracks no statistics; construct it with track_running_stats=True")
        mean, variance = (t.detach().clone().view(-1, self.num_features) for t in (self.running_mean, self.running_var))
        return Moments.from_variance(torch.ones_like(mean[:, :1]), mean, variance)

    def next_momentum(self) -> float | Tensor:
        """Return the weight the next batch gets; the cumulative one is a tensor that broadcasts against the tables."""
        if self.momentum is not None or self.num_batches_tracked is None:
            return 0.0 if self.momentum is None else self.momentum
        weight = running.cumulative_momentum(self.num_batches_tracked + 1)
        return weight if self.groups is None else weight.unsqueeze(-1)

    def count_batch(self) -> None:
        """Add one to `num_batches_tracked`: the last thing a training step changes."""
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)

    @torch.no_grad()
    def update_statistics(self, batch: Moments, update: running.Update = running.exponential) -> None:
        """Replace the running statistics by `update` of them and the batch's moments.

        batch: tables `(c,)`, or those of the first groups, `(g, c)`.
        """
        if self.running_mean is None or self.running_var is None:
            raise ModelError("this layer tracks no statistics; construct it with track_running_stats=True")
        rows = ... if self.groups is None else slice(len(batch.mean))
        mean, variance, momentum = self.running_mean[rows], self.running_var[rows], self.next_momentum()
        momentum = momentum[rows] if isinstance(momentum, Tensor) else momentum
        for table, new in zip((mean, variance), update(mean, variance, batch, momentum), strict=True):
            table.copy_(new)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked[rows] += (batch.count >= MIN_VALUES).squeeze(-1)

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


def _recomputing() -> bool:
    """Return whether this is called from inside a backward pass, as activation checkpointing does."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1  # pyright: ignore
