"""`Moments`: count, mean and summed squared deviation, with the one exact way of merging them.

Every average of statistics in this package, over blocks, batches, ranks, clients or chunks of a file, is
`Moments.merge` or its many-at-once forms `pool` and `merge_by`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from normwise.errors import ShapeError

MIN_VALUES = 2  # below this a variance says nothing


def accumulation_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype tables of statistics are kept in: float64, or float32 where the device has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


@dataclass(frozen=True, eq=False)
class Moments:
    r"""The first two moments of groups of values, as a commutative monoid.

    .. math:: n, \quad \mu = \frac1n \sum_i x_i, \quad M_2 = \sum_i (x_i - \mu)^2

    Shape: `mean` and `m2` are `(*g, c)`; `count` broadcasts against them, usually `(*g, 1)`.
    An empty group has count, mean and m2 zero and is the neutral element of `merge`.
    Tables are float64 (`accumulation_dtype`). All methods are differentiable in `mean` and `m2`.

    Reference: Chan, Golub and LeVeque 1979, "Updating formulae and a pairwise algorithm", eq. 2.1.

    >>> a, b = Moments.of(torch.tensor([[1.0], [3.0]])), Moments.of(torch.tensor([[5.0]]))
    >>> merged = a.merge(b)
    >>> merged.mean.item(), merged.m2.item()
    (3.0, 8.0)
    """

    count: Float[Tensor, "*n"]
    mean: Float[Tensor, "*g c"]
    m2: Float[Tensor, "*g c"]

    @staticmethod
    def of(values: Float[Tensor, "n ..."]) -> Moments:
        """Measure `(n, *c)` values over their first axis, in the accumulation dtype."""
        values = values.to(accumulation_dtype(values.device))
        count = values.new_full((1,), float(len(values)))
        mean = values.mean(0) if len(values) else values.new_zeros(values.shape[1:])
        return Moments(count, mean, (values - mean).square().sum(0))

    @staticmethod
    def from_variance(count: Tensor | float, mean: Tensor, variance: Tensor) -> Moments:
        """Build from a population (biased) variance."""
        dtype = accumulation_dtype(mean.device)
        count = torch.as_tensor(count, dtype=dtype, device=mean.device)
        mean, variance = mean.to(dtype), variance.to(dtype)
        return Moments(count, mean, variance * count)

    @staticmethod
    def merge_all(parts: Iterable[Moments]) -> Moments:
        """Merge one or more; raises `ShapeError` when there is none."""
        merged: Moments | None = None
        for part in parts:
            merged = part if merged is None else merged.merge(part)
        if merged is None:
            raise ShapeError("parts must hold at least one Moments, got none")
        return merged

    @staticmethod
    def cat(parts: Sequence[Moments]) -> Moments:
        """Return the groups of several tables as one table, along the first axis."""
        counts = [part.count.expand(len(part.mean), *part.count.shape[1:]) for part in parts]
        return Moments(
            torch.cat(counts), torch.cat([part.mean for part in parts]), torch.cat([part.m2 for part in parts])
        )

    def merge(self, other: Moments) -> Moments:
        """Return the moments of both groups of values together: exact, associative, weighted by count."""
        count = self.count + other.count
        share = torch.where(count > 0, other.count / count.clamp_min(1), torch.zeros_like(count))
        delta = other.mean - self.mean
        return Moments(count, self.mean + delta * share, self.m2 + other.m2 + delta.square() * self.count * share)

    def pool(self, dim: int = 0, *, keepdim: bool = False) -> Moments:
        """Merge all groups along one axis of the tables (not the channel axis)."""
        if keepdim:
            pooled = self.pool(dim)
            return Moments(*(table.unsqueeze(dim) for table in (pooled.count, pooled.mean, pooled.m2)))
        count = self.count.expand(*self.mean.shape[:-1], self.count.shape[-1])
        if self.mean.shape[dim] == 1:
            return Moments(count.squeeze(dim), self.mean.squeeze(dim), self.m2.squeeze(dim))
        total = count.sum(dim)
        mean = (count * self.mean).sum(dim) / total.clamp_min(1)
        between = (count * (self.mean - mean.unsqueeze(dim)).square()).sum(dim)
        return Moments(total, mean, self.m2.sum(dim) + between)

    def merge_by(self, index: Int[Tensor, " g"], num_groups: int) -> Moments:
        """Merge the groups along the first axis that share an index into `num_groups` groups; some may be empty."""
        channels = self.mean.shape[1:]
        count = self.count.expand(len(self.mean), *self.count.shape[1:])
        total = count.new_zeros(num_groups, *count.shape[1:]).index_add(0, index, count)
        mean = self.mean.new_zeros(num_groups, *channels).index_add(0, index, count * self.mean)
        mean = mean / total.clamp_min(1)
        within_and_between = self.m2 + count * (self.mean - mean[index]).square()
        return Moments(total, mean, torch.zeros_like(mean).index_add(0, index, within_and_between))

    def detach(self) -> Moments:
        """Return the same moments outside the graph."""
        return Moments(self.count.detach(), self.mean.detach(), self.m2.detach())

    @property
    def variance(self) -> Float[Tensor, "*g c"]:
        """Population (biased) variance, `m2 / n`; 0 for an empty group."""
        return self.m2 / self.count.clamp_min(1)

    @property
    def unbiased_variance(self) -> Float[Tensor, "*g c"]:
        """Bessel's variance, `m2 / (n - 1)`; 0 for fewer than two values."""
        return self.m2 / (self.count - 1).clamp_min(1)

    @property
    def standard_error(self) -> Float[Tensor, "*g c"]:
        """Standard error of the mean of independent values, in the values' unit."""
        return (self.unbiased_variance / self.count.clamp_min(1)).sqrt()


def standardised_shift(
    source: Moments, target: Moments, floor: float = 0.0
) -> tuple[Float[Tensor, "*g c"], Float[Tensor, "*g c"]]:
    """Return how far `target` lies from `source`: (mean shift in source sd, target over source variance).

    `floor` is added to both variances, as `eps` is in a layer, so that dead channels compare as equal.
    """
    source_variance = source.variance + floor
    shift = (target.mean - source.mean) / source_variance.sqrt()
    return shift, (target.variance + floor) / source_variance


def gaussian_kl(source: Moments, target: Moments, floor: float = 0.0) -> Float[Tensor, "*g c"]:
    r"""Return :math:`KL(N_{target} \| N_{source})` in nats, channel by channel, of Gaussians with these moments."""
    shift, ratio = standardised_shift(source, target, floor)
    return 0.5 * (ratio - 1 - ratio.log() + shift.square())


def effective_size_of_mean(count: float, cluster: float, correlation: float) -> float:
    """Return how many independent values `count` values in clusters of `cluster` are worth for a mean.

    `correlation` is the intra-class correlation. Reference: Kish 1965, design effect `1 + (L - 1) rho`.
    """
    return count / (1 + (cluster - 1) * correlation)


def effective_size_of_variance(count: float, cluster: float, correlation: float) -> float:
    """Return the same for a variance, where the squared correlation counts: `n / (1 + (L - 1) rho^2)`."""
    return count / (1 + (cluster - 1) * correlation**2)


@dataclass(frozen=True, eq=False)
class ClusteredMoments:
    """Moments of values that come in clusters (an image's pixels, a sequence's steps), with honest errors.

    Positions of one image are not independent, so the error of a statistic comes from its spread BETWEEN
    clusters: of the cluster means `a_i` for the mean, of `u_i = w_i + (a_i - mean)^2` (with `w_i` the variance
    inside cluster i) for the variance. `u` is taken about the mean of ALL clusters: with `cross`, the co-moment
    sum_i (a_i - mean a)(u_i - mean u), its moments move exactly to another centre, so merging is exact however small
    the batches were.

    Shape: every table is `(c,)`.
    """

    values: Moments
    means: Moments
    squares: Moments
    cross: Float[Tensor, " c"]

    @staticmethod
    def of(clusters: Moments) -> ClusteredMoments:
        """Build from the moments of each cluster, tables `(n, c)`, of one batch."""
        values, means = clusters.pool(0), Moments.of(clusters.mean)
        spread = clusters.variance + (clusters.mean - values.mean).square()
        squares = Moments.of(spread)
        cross = ((clusters.mean - means.mean) * (spread - squares.mean)).sum(0)
        return ClusteredMoments(values, means, squares, cross)

    def merge(self, other: ClusteredMoments) -> ClusteredMoments:
        """Merge with the clusters of another batch."""
        values = self.values.merge(other.values)
        mine, others = self._about(values.mean), other._about(values.mean)
        means, squares = mine.means.merge(others.means), mine.squares.merge(others.squares)
        weight = mine.means.count * others.means.count / means.count.clamp_min(1)
        gap = (others.means.mean - mine.means.mean) * (others.squares.mean - mine.squares.mean)
        return ClusteredMoments(values, means, squares, mine.cross + others.cross + gap * weight)

    def _about(self, centre: Tensor) -> ClusteredMoments:
        """Move the centre of `squares`: with a step d, `u_i` becomes `u_i - 2 d (a_i - old centre) + d^2`."""
        step, means = centre - self.values.mean, self.means
        mean = self.squares.mean - 2 * step * (means.mean - self.values.mean) + step.square()
        m2 = self.squares.m2 - 4 * step * self.cross + 4 * step.square() * means.m2
        squares = Moments(self.squares.count, mean, m2.clamp_min(0))
        return ClusteredMoments(self.values, means, squares, self.cross - 2 * step * means.m2)

    @property
    def clusters(self) -> float:
        """Number of clusters."""
        return float(self.means.count.max())

    @property
    def size(self) -> float:
        """Mean number of values in a cluster, a channel."""
        return float(self.values.count.max()) / max(self.clusters, 1.0)

    def relative_error_of_mean(self, clusters: float) -> Float[Tensor, " c"]:
        """Return the standard error of a mean over that many clusters, in standard deviations of the values."""
        return (self.means.unbiased_variance / self._floored_variance / clusters).sqrt()

    def relative_error_of_variance(self, clusters: float) -> Float[Tensor, " c"]:
        """Return the standard error of a variance over that many clusters, relative to the variance.

        With single values for clusters this is Gaussian-free: it uses the fourth moment the data have.
        """
        freedom = max(clusters - 1.0, 1.0)
        return (self.squares.unbiased_variance / freedom).sqrt() / self._floored_variance

    @property
    def intraclass_correlation(self) -> Float[Tensor, " c"]:
        """Share of the variance that lies between clusters, in [0, 1]; Fisher's ANOVA estimate."""
        size = self.size
        if size <= 1:
            return torch.ones_like(self.values.mean)
        between = self.means.unbiased_variance
        within = (self.values.m2 - self.means.m2 * size) / max(self.clusters * (size - 1), 1.0)
        true_between = (between - within / size).clamp_min(0)
        return true_between / (true_between + within.clamp_min(0)).clamp_min(torch.finfo(within.dtype).tiny)

    @property
    def _floored_variance(self) -> Tensor:
        return self.values.variance.clamp_min(torch.finfo(self.values.mean.dtype).tiny)
