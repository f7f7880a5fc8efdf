"""The kernel contract in torch operators: any device, any floating dtype, differentiable.

Values are summed in blocks in their own dtype (float32 for half types) about a block's own mean, and blocks are
merged in the accumulation dtype: as exact as a float64 sum to about one float32 rounding, at a fraction of its cost.
Being made of differentiable operators, these functions also serve as the composite that `torch.compile` traces
and that second derivatives are taken through.
"""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from normwise.core.grouping import Cells
from normwise.core.moments import MIN_VALUES, Moments, accumulation_dtype

CHUNK = 1 << 19  # elements processed at a time, so that the centred copy stays in cache
_PIVOT = 16  # values that a row's pivot is the mean of
_FEW = 8  # positions below which a sample's own sum is not worth a block


def supports(x: Tensor) -> bool:
    """Return whether this backend takes the tensor: it takes all."""
    return x.is_floating_point()


def fuses(x: Float[Tensor, "n c l"], cells: Cells) -> bool:
    """Return whether a standardisation is done in one go: there is nothing to gain."""
    return False


def reduce(x: Float[Tensor, "n c l"], cells: Cells) -> Moments:
    """Measure the moments of every cell; tables `(g, c)`, counts `(g, 1)`."""
    if cells.steps:
        return _reduce_steps(x, cells)
    samples = _reduce_masked(x, cells.mask) if cells.mask is not None else reduce_samples(x)
    if cells.sample is None:
        pooled = samples.pool(0)
        return Moments(pooled.count.unsqueeze(0), pooled.mean.unsqueeze(0), pooled.m2.unsqueeze(0))
    return samples.merge_by(cells.sample, cells.count)


def reduce_samples(x: Float[Tensor, "n c l"]) -> Moments:
    """Measure the moments of every sample and channel; tables `(n, c)`, counts `(n, 1)`."""
    n, channels, positions = x.shape
    dtype = accumulation_dtype(x.device)
    count = x.new_full((n, 1), positions, dtype=dtype)
    if positions == 1:
        values = x.squeeze(-1).to(dtype)
        return Moments(count, values, torch.zeros_like(values))
    if not x.numel():
        empty = x.new_zeros((n, channels), dtype=dtype)
        return Moments(count, empty, empty)
    if positions <= _FEW:
        values = x.to(dtype)
        mean = values.mean(-1)
        return Moments(count, mean, (values - mean.unsqueeze(-1)).square().sum(-1))
    parts = torch.split(x, max(1, CHUNK // (channels * positions)))
    tables = [_centred_sums(part) for part in parts]
    mean = torch.cat([table[0] for table in tables])
    return Moments(count, mean, torch.cat([table[1] for table in tables]))


def _centred_sums(x: Float[Tensor, "n c l"]) -> tuple[Tensor, Tensor]:
    """Return mean and m2 of each row, from sums about a pivot near its mean: that of a few of its values.

    With `s` and `q` the sums of `x - pivot` and of its square, mean is `pivot + s / l` and m2 `q - s^2 / l`: exact for
    any pivot, and free of cancellation where it lies within a few standard deviations.
    """
    dtype, positions = accumulation_dtype(x.device), x.shape[-1]
    x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    pivot = x.detach()[..., :: max(1, positions // _PIVOT)].mean(-1, keepdim=True)
    centred = x - pivot
    total = centred.sum(-1).to(dtype)
    squares = cast("Tensor", torch.linalg.vecdot(centred, centred))  # pyright: ignore[reportUnknownMemberType]
    m2 = squares.to(dtype) - total.square() / positions
    return pivot.squeeze(-1).to(dtype) + total / positions, m2.clamp_min(0)


def _reduce_masked(x: Float[Tensor, "n c l"], mask: Tensor) -> Moments:
    """Measure each sample's valid positions only; whatever stands at the others, NaN included, is not read."""
    values = torch.where(mask.unsqueeze(1), x, x.new_zeros(())).to(accumulation_dtype(x.device))
    count = mask.sum(-1, keepdim=True).to(values.dtype)
    mean = values.sum(-1) / count.clamp_min(1)
    centred = (values - mean.unsqueeze(-1)) * mask.unsqueeze(1)
    return Moments(count, mean, centred.square().sum(-1))


def _reduce_steps(x: Float[Tensor, "n c l"], cells: Cells) -> Moments:
    """Measure each step over the samples alive there; tables `(l, c)`."""
    by_step = x.permute(2, 1, 0)
    if cells.mask is not None:
        return _reduce_masked(by_step, cells.mask.t())
    return reduce_samples(by_step)


def apply(
    x: Float[Tensor, "n c l"],
    scale: Float[Tensor, "g c"],
    shift: Float[Tensor, "g c"],
    cells: Cells,
    residual: Float[Tensor, "n c l"] | None = None,
    rectify: bool = False,
) -> Float[Tensor, "n c l"]:
    """Return `x * scale[g] + shift[g]`, plus the residual, rectified; 0 at masked positions, in the dtype of x."""
    x = _masked(x, cells)  # or a NaN in the padding would reach the gradient of the tables as 0 * NaN
    y = _affine(x, scale, shift, cells)
    y = y if residual is None else y + residual
    return _masked((functional.relu(y) if rectify else y).to(x.dtype), cells)


def reduce_backward(
    dy: Float[Tensor, "n c l"],
    x: Float[Tensor, "n c l"],
    mean: Float[Tensor, "g c"],
    cells: Cells,
    gate: tuple[Float[Tensor, "g c"], Float[Tensor, "g c"]] | None = None,
) -> tuple[Float[Tensor, "g c"], Float[Tensor, "g c"]]:
    """Return `S = sum dy` and `T = sum dy * (x - mean[g])`; tables `(g, c)`."""
    dy = _gated(dy, x, cells, gate)
    dtype = accumulation_dtype(x.device)
    dy, centred = _masked(dy, cells).to(dtype), _masked(x.to(dtype) - _spread(mean, x, cells, dtype), cells)
    axis = 0 if cells.steps else 2
    total, product = dy.sum(axis), (dy * centred).sum(axis)
    if cells.steps:
        return total.t(), product.t()
    if cells.sample is None:
        return total.sum(0, keepdim=True), product.sum(0, keepdim=True)
    zeros = total.new_zeros(cells.count, total.shape[1])
    return zeros.index_add(0, cells.sample, total), zeros.index_add(0, cells.sample, product)


def apply_backward(
    dy: Float[Tensor, "n c l"],
    x: Float[Tensor, "n c l"],
    a: Float[Tensor, "g c"],
    b: Float[Tensor, "g c"],
    d: Float[Tensor, "g c"],
    cells: Cells,
    gate: tuple[Float[Tensor, "g c"], Float[Tensor, "g c"]] | None = None,
) -> Float[Tensor, "n c l"]:
    """Return `dy * a[g] + x * b[g] + d[g]`, 0 at masked positions, in the dtype of x."""
    dy = _gated(dy, x, cells, gate)
    dx = _affine(x, b, d, cells)
    return _masked(dx.addcmul(dy.to(dx.dtype), _spread(a, x, cells)).to(x.dtype), cells)


def standardise(
    moments: Moments,
    weight: Float[Tensor, "... c"] | None = None,
    bias: Float[Tensor, "... c"] | None = None,
    share: Float[Tensor, "... c"] | None = None,
    *,
    eps: float,
) -> tuple[Float[Tensor, "... c"], Float[Tensor, "... c"]]:
    """Return `weight / sqrt(variance + ((1 - share) mean)^2 + eps)` and `bias - share mean scale`."""
    taken = moments.mean if share is None else share * moments.mean
    square = moments.variance if share is None else moments.variance + ((1 - share) * moments.mean).square()
    scale = (square + eps).rsqrt()
    scale = scale if weight is None else scale * weight
    shift = -taken * scale
    return scale, (shift if bias is None else shift + bias)


def pull_back(
    total: Float[Tensor, "g c"],
    product: Float[Tensor, "g c"],
    moments: Moments,
    weight: Float[Tensor, "... c"] | None,
    bias: Float[Tensor, "... c"] | None,
    share: Float[Tensor, "... c"] | None,
    *,
    eps: float,
) -> tuple[list[Tensor | None], tuple[Float[Tensor, "... c"], Float[Tensor, "... c"]]]:
    """Return the gradients of weight, bias and share, and slope and constant of what reaches x through its moments.

    With r one over the root and P the gradient of the scale, that of the shift included, `dq = -P weight r^3 / 2`
    reaches the mean square under the root.
    """
    mean, kept = moments.mean, 1.0 if share is None else share.to(moments.mean.dtype)
    rest = (1 - kept) * mean
    r = (moments.variance + rest.square() + eps).rsqrt()
    r = torch.where(moments.count > 0, r, r.new_zeros(()))  # of no values, and with an eps of 0, infinite
    scale = r if weight is None else r * weight
    through_scale = product + rest * total
    by_square = -0.5 * through_scale * scale * r.square()
    shares = -mean * (scale * total + 2 * by_square * rest)
    affine = [
        None if table is None else gradient.sum_to_size(table.shape).to(table.dtype)
        for table, gradient in ((weight, through_scale * r), (bias, total), (share, shares))
    ]
    n = moments.count.clamp_min(1)
    d_mean = (2 * by_square * (1 - kept) * rest - kept * scale * total).sum_to_size(mean.shape)
    slope = 2 * by_square.sum_to_size(mean.shape) / n
    return affine, (slope, d_mean / n - slope * mean)


def follow(
    running_mean: Float[Tensor, "... c"],
    running_var: Float[Tensor, "... c"],
    batch: Moments,
    momentum: float | Tensor,
    *,
    exact: bool,
) -> tuple[Float[Tensor, "... c"], Float[Tensor, "... c"]]:
    """Return running mean and variance after a batch, as they are where it has fewer than two values."""
    variance = batch.variance if exact else batch.unbiased_variance
    new_mean, new_var = _mix(running_mean, batch.mean, momentum), _mix(running_var, variance, momentum)
    if exact:
        gap = (batch.mean - running_mean.to(batch.mean.dtype)).square()
        new_var = new_var + (momentum * (1 - momentum) * gap).to(new_var.dtype)
    measured = batch.count >= MIN_VALUES
    return torch.where(measured, new_mean, running_mean), torch.where(measured, new_var, running_var)


def _mix(old: Tensor, new: Tensor, momentum: float | Tensor) -> Tensor:
    weight = momentum.to(old.dtype) if isinstance(momentum, Tensor) else momentum
    return torch.lerp(old, new.to(old.dtype), weight)


def _affine(x: Tensor, scale: Tensor, shift: Tensor, cells: Cells) -> Tensor:
    """Return `x * scale + shift` as `(x - z) * scale + (shift + z * scale)`, z near the zero crossing.

    The difference is exact where x is close to z, so an offset of x costs nothing; `x * scale + shift` would round
    both terms at the offset's magnitude.
    """
    working = torch.promote_types(x.dtype, torch.float32)
    crossing = (-shift / scale).detach().to(working)
    crossing = torch.where(crossing.isfinite(), crossing, 0).to(shift.dtype)
    rest = shift + crossing * scale
    return torch.addcmul(_spread(rest, x, cells), x - _spread(crossing, x, cells), _spread(scale, x, cells))


def _spread(table: Float[Tensor, "g c"], x: Tensor, cells: Cells, dtype: torch.dtype | None = None) -> Tensor:
    """Shape a table so that it broadcasts against x, in the dtype that x is computed in."""
    table = table.to(dtype or torch.promote_types(x.dtype, torch.float32))
    if cells.steps:
        return table.t().unsqueeze(0)
    return (table if cells.sample is None else table[cells.sample]).unsqueeze(-1)


def _gated(dy: Tensor, x: Tensor, cells: Cells, gate: tuple[Tensor, Tensor] | None) -> Tensor:
    """Return dy where what was rectified, `x * scale + shift`, was positive (or not a number), else 0."""
    return dy if gate is None else torch.where(_affine(x, *gate, cells) <= 0, dy.new_zeros(()), dy)


def _masked(values: Tensor, cells: Cells) -> Tensor:
    if cells.mask is None:
        return values
    return torch.where(cells.mask.unsqueeze(1), values, values.new_zeros(()))
