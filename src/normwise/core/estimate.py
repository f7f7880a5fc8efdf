"""What becomes of a batch's moments on the way to scale and shift: merged, corrected, shrunk, filled in.

Coefficients for `core.normalize`, beyond the plain `Standardise`, and the estimates they are made of.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from normwise.core.moments import Moments
from normwise.core.standardise import Standardise, Tables


def modulate_rows(
    y: Float[Tensor, "n c"], weight: Float[Tensor, "n c"], bias: Float[Tensor, "n c"]
) -> Float[Tensor, "n c"]:
    """Return `y * weight + bias` in the dtype of y."""
    return (y * weight + bias).to(y.dtype)


def renormalise(
    moments: Moments,
    weight: Tensor | None,
    bias: Tensor | None,
    *,
    running: Moments,
    eps: float,
    r_max: float,
    d_max: float,
) -> Tables:
    r"""Return scale and shift of `((x - mean) / sigma * r + d) * weight + bias`.

    With `sigma` the root of variance plus eps, :math:`r = \sigma / \sigma_{running}` within `[1 / r_max, r_max]` and
    :math:`d = (\mu - \mu_{running}) / \sigma_{running}` within `[-d_max, d_max]`: constants, as far as gradients go.
    """
    sigma, running_sigma = ((table.variance + eps).sqrt() for table in (moments, running))
    r = (sigma / running_sigma).clamp(1 / r_max, r_max).detach()
    d = ((moments.mean - running.mean) / running_sigma).clamp(-d_max, d_max).detach()
    weight = r.new_ones(()) if weight is None else weight
    shift = d * weight if bias is None else d * weight + bias
    return Standardise(eps)(moments, r * weight, shift)


def standardise_shrunk(
    moments: Moments, weight: Tensor | None, bias: Tensor | None, *, eps: float, min_count: float
) -> Tables:
    """Return scale and shift by step, from moments shrunk towards neighbouring steps."""
    return Standardise(eps)(shrink_to_neighbours(moments, min_count), weight, bias)


def shrink_to_neighbours(moments: Moments, min_count: float) -> Moments:
    """Complete each group of n < `min_count` values by `min_count - n` values like those of the nearest full group.

    A full group has `min_count` values or more, and stays as it is. Without any, so do all others.
    """
    missing = (min_count - moments.count).clamp_min(0)
    neighbour = nearest((missing == 0).squeeze(-1))
    borrowed = Moments(missing, moments.mean[neighbour], moments.variance[neighbour] * missing)
    return moments.merge(borrowed)


def fill_from_nearest(moments: Moments, known: Bool[Tensor, " g"]) -> Moments:
    """Give each group that is not known the mean and variance of the nearest known one; with none known, change nothing."""
    index = nearest(known)
    return Moments(moments.count[index], moments.mean[index], moments.m2[index])


def fill_from_pooled(moments: Moments, batches: Int[Tensor, " g"]) -> Moments:
    """Give each group of no batches the mixture of the others, weighted by their batches; without any, change nothing.

    The variance of the mixture holds the variance between the groups.
    """
    count = batches.unsqueeze(-1)
    mixture = Moments.from_variance(count, moments.mean, moments.variance).pool(0)
    kept = (count > 0) | (batches.sum() == 0)
    mean, variance = (
        torch.where(kept, moments.mean, mixture.mean),
        torch.where(kept, moments.variance, mixture.variance),
    )
    return Moments.from_variance(moments.count, mean, variance)


def nearest(available: Bool[Tensor, " g"]) -> Int[Tensor, " g"]:
    """Return the nearest available position of each position, the earlier of two, itself where none is available."""
    position = torch.arange(len(available), device=available.device)
    far = 4 * len(available)
    before = torch.where(available, position, -far).cummax(0).values
    after = torch.where(available, position, far).flip(0).cummin(0).values.flip(0)
    chosen = torch.where(position - before <= after - position, before, after)
    return torch.where(available.any(), chosen, position)
