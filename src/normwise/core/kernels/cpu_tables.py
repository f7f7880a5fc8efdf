"""The kernel contract over tables, in compiled loops; and tables as these loops take them."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from normwise.core.kernels.compiled import tables
from normwise.core.kernels.cpu_walk import Array
from normwise.core.moments import Moments


def standardise(
    moments: Moments,
    weight: Float[Tensor, "... c"] | None,
    bias: Float[Tensor, "... c"] | None,
    share: Float[Tensor, "... c"] | None,
    *,
    eps: float,
) -> tuple[Float[Tensor, "... c"], Float[Tensor, "... c"]]:
    """Return `weight / sqrt(variance + ((1 - share) mean)^2 + eps)` and `bias - share mean scale`."""
    count, mean, m2 = arrays(moments)
    affine = [rows(table, mean.shape[1]) for table in (weight, bias, share)]
    groups, channels = max(len(table) for table in (mean, *affine)), mean.shape[1]
    scale, shift = (np.empty((groups, channels)) for _ in range(2))
    tables.standardise(0, groups, 0, channels, count, mean, m2, *affine, eps, scale, shift)
    return torch.from_numpy(scale), torch.from_numpy(shift)  # pyright: ignore[reportUnknownMemberType]


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
    """Return the gradients of weight, bias and share, and slope and constant of what reaches x through its moments."""
    sums, measured = (total.numpy(), product.numpy()), arrays(moments)
    mean = measured[1]
    slope, constant = np.zeros(mean.shape), np.zeros(mean.shape)
    weights, _, shares = given = [rows(table, total.shape[1]) for table in (weight, bias, share)]
    scale = standardise(moments, weight, bias, share, eps=eps)[0].numpy()
    scale = scale if len(scale) == len(total) else scale.repeat(len(total), 0)
    small = (*sums, *measured, weights, shares, eps, scale, slope, constant)
    tables.backward_of_moments(0, len(total), 0, mean.shape[1], *small)
    line = torch.from_numpy(slope), torch.from_numpy(constant)  # pyright: ignore[reportUnknownMemberType]
    found = [np.zeros(table.shape) for table in given]
    tables.backward_of_affine(*sums, *measured, weights, shares, eps, *found)
    affine = [
        None if table is None else torch.from_numpy(gradient).view(table.shape).to(table.dtype)  # pyright: ignore
        for table, gradient in zip((weight, bias, share), found, strict=True)
    ]
    return affine, line


def follow(
    running_mean: Float[Tensor, "... c"],
    running_var: Float[Tensor, "... c"],
    batch: Moments,
    momentum: float | Tensor,
    *,
    exact: bool,
) -> tuple[Float[Tensor, "... c"], Float[Tensor, "... c"]]:
    """Return running mean and variance after a batch, as they are where it has fewer than two values."""
    channels = running_mean.shape[-1]
    measured = arrays(Moments(*(table.reshape(-1, table.shape[-1]) for table in (batch.count, batch.mean, batch.m2))))
    old = [rows(table, channels) for table in (running_mean, running_var)]
    new = [torch.empty_like(table, dtype=torch.float64) for table in (running_mean, running_var)]
    weight = (
        torch.as_tensor(momentum, dtype=torch.float64, device="cpu")
        .expand((*running_mean.shape[:-1], 1))
        .reshape(-1, 1)
    )
    tables.follow(*measured, *old, weight.numpy(), exact, *(table.view(-1, channels).numpy() for table in new))
    return new[0].to(running_mean.dtype), new[1].to(running_var.dtype)


def arrays(moments: Moments) -> tuple[Array, Array, Array]:
    """Return count, mean and m2 as arrays `(g, 1)`, `(g, c)`, `(g, c)`."""
    count, mean, m2 = (table.detach().double() for table in (moments.count, moments.mean, moments.m2))
    return count.expand(len(mean), 1).contiguous().numpy(), mean.contiguous().numpy(), m2.contiguous().numpy()


def rows(table: Tensor | None, channels: int) -> Array:
    """Return an affine table as `(0, c)` for none, `(1, c)` or `(g, c)`."""
    if table is None:
        return np.empty((0, channels))
    return table.detach().double().contiguous().view(-1, channels).numpy()
