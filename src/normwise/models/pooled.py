"""One use of a norm, normalised by statistics of more values than are there, and differentiated through them.

The values are normalised by tables that are leaves of the graph, so that the gradient of a loss ends there. What the
tables' gradient, once it is known for all values together, adds to the gradient of x, is added on the way back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from normwise.core import running
from normwise.core.grouping import Cells
from normwise.core.kernels.dispatch import current_backend
from normwise.core.moments import MIN_VALUES, Moments
from normwise.core.normalize import Activation, Coefficients, transform
from normwise.errors import ModelError, ShapeError
from normwise.layers.base import RunningNorm

Follow = Callable[[Moments], None]


@dataclass(frozen=True, eq=False)
class Call:
    """What a norm is asked to do with x `(n, c, l)`; arguments as in `core.normalize`.

    follow: changes the running statistics as a step with some moments does; None where none are tracked. by_group:
    whether cells have statistics of their own, instead of one for all.
    """

    name: str
    x: Tensor
    cells: Cells
    coefficients: Coefficients
    parameters: tuple[Tensor | None, ...]
    follow: Follow | None
    by_group: bool = False
    residual: Tensor | None = None
    activation: Activation | None = None

    def measure(self) -> Moments:
        """Return the moments of x, tables `(g, c)`, or `(1, c)`."""
        with torch.no_grad(), torch.autocast(self.x.device.type, enabled=False):
            moments = current_backend(self.x).reduce(self.x, self.cells)
            if self.by_group:
                return moments
            pooled = moments.pool(0)
            return Moments(pooled.count.unsqueeze(0), pooled.mean.unsqueeze(0), pooled.m2.unsqueeze(0))


@dataclass(eq=False)
class Use:
    """One use of a norm in a forward pass, the same in the pass of every batch.

    moments: what it normalises by. learns: whether its x takes a gradient, so that its tables must. gradient: that of
    the loss by mean and m2, all batches together, once it is known.
    """

    name: str
    follow: Follow | None
    moments: Moments
    learns: bool = False
    gradient: tuple[Tensor, Tensor] | None = None

    @property
    def tables(self) -> tuple[Tensor, Tensor]:
        """Mean and m2."""
        return self.moments.mean, self.moments.m2

    def settle(self, parts: list[Moments]) -> None:
        """Normalise by these moments together from now on."""
        shapes = sorted({tuple(part.mean.shape) for part in parts})
        if len(shapes) > 1:
            raise ModelError(
                f"model: layer '{self.name}' has {shapes[0]} and {shapes[-1]} statistics in different micro-batches, which "
                "cannot be pooled; pad them to one length if it keeps statistics by step"
            )
        self.moments = Moments.merge_all(parts)
        values = float(self.moments.count.sum())
        if values < MIN_VALUES:
            raise ShapeError(
                f"micro_batches must hold more than 1 value per channel in all, got {values:.0f} at layer "
                f"'{self.name}'; pass more samples, or normwise.freeze(model)"
            )
        for table in self.tables:
            table.requires_grad_(self.learns)

    def normalise(self, call: Call, expected: Callable[[], bool]) -> Tensor:
        """Return what is asked for; gradients through x may be taken only while `expected()`."""
        x = _ThroughStatistics.apply(call.x, call.cells, self, expected) if call.x.requires_grad else call.x
        coefficients = partial(_of_tables, call.coefficients, self.moments.count)
        return transform(
            x, call.cells, coefficients, *self.tables, *call.parameters,
            residual=call.residual, activation=call.activation, centre=self.moments.mean.detach(),
        )  # fmt: skip


class _ThroughStatistics(torch.autograd.Function):
    """The identity; its backward adds what reaches x through the statistics, `2 dm2 (x - mean) + dmean / n`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cells: Cells, use: Use, expected: Callable[[], bool]) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x)
        ctx.cells, ctx.use, ctx.expected = cells, use, expected
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        use: Use = ctx.use
        if not ctx.expected():
            raise ModelError(
                f"model: forward or loss takes a gradient through layer '{use.name}', and what goes through its pooled "
                "statistics is not known at that point; leave such a term out"
            )
        if use.gradient is None:
            return dy, None, None, None
        (x,) = ctx.saved_tensors
        d_mean, d_m2 = use.gradient
        slope = 2 * d_m2
        constant = d_mean / use.moments.count.clamp_min(1) - slope * use.moments.mean.detach()
        one, slope, constant = (t.expand(ctx.cells.count, -1) for t in (torch.ones_like(slope), slope, constant))
        return current_backend(x).apply_backward(dy, x, one, slope, constant, ctx.cells), None, None, None


def _of_tables(
    coefficients: Coefficients, count: Tensor, mean: Tensor, m2: Tensor, *parameters: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the coefficients of moments whose tables are arguments, where autograd sees them."""
    return coefficients(Moments(count, mean, m2), *parameters)


@torch.no_grad()
def follow_torch(running_mean: Tensor, running_var: Tensor, momentum: float, batch: Moments) -> None:
    """Change buffers `(c,)` as torch's `batch_norm` does."""
    new = running.exponential(running_mean, running_var, batch.pool(0), momentum)
    for table, values in zip((running_mean, running_var), new, strict=True):
        table.copy_(values)


def follow_ours(module: RunningNorm, batch: Moments) -> None:
    """Change the buffers of one of our layers as it does itself."""
    module.update_statistics(module.summarise(batch))
