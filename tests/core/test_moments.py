"""Moments against float64, as a monoid, and the errors they claim against Monte Carlo."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from normwise.core.kernels import reference
from normwise.core.moments import (
    ClusteredMoments,
    Moments,
    effective_size_of_mean,
    effective_size_of_variance,
    gaussian_kl,
    standardised_shift,
)
from normwise.errors import ShapeError

values = st.lists(st.floats(-1e3, 1e3, allow_nan=False, width=32), min_size=0, max_size=12)


def of(numbers: list[float]) -> Moments:
    return Moments.of(torch.tensor(numbers, dtype=torch.float64).view(-1, 1))


def assert_same(a: Moments, b: Moments) -> None:
    scale = 1 + max(float(a.mean.abs().max()), float(a.m2.max()))
    for x, y in ((a.count, b.count), (a.mean, b.mean), (a.m2, b.m2)):
        torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-10 * scale)


@given(values, values, values)
def test_merge_is_a_commutative_monoid_and_exact(a, b, c):
    x, y, z = of(a), of(b), of(c)
    assert_same(x.merge(y).merge(z), x.merge(y.merge(z)))
    assert_same(x.merge(y), y.merge(x))
    assert_same(x.merge(of([])), x)
    assert_same(x.merge(y).merge(z), of(a + b + c))


@given(st.lists(values, min_size=1, max_size=6))
def test_pooling_and_merging_by_index_are_merges(groups):
    tables = [of(group) for group in groups]
    stacked = Moments(*(torch.stack([getattr(t, name) for t in tables]) for name in ("count", "mean", "m2")))
    whole = Moments.merge_all(tables)
    assert_same(stacked.pool(0), whole)
    index = torch.arange(len(groups)) % 2
    by = stacked.merge_by(index, 3)
    assert float(by.count[2]) == 0
    assert_same(by.pool(0), whole)


def test_nothing_to_merge_is_refused():
    with pytest.raises(ShapeError, match="at least one"):
        Moments.merge_all([])


@pytest.mark.parametrize("shape", [(64, 2, 16384), (1 << 20, 2, 1), (1 << 17, 2, 8), (1 << 15, 2, 32)])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_a_million_single_precision_values_a_channel(shape, offset):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 2 + offset
    moments = reference.reduce_samples(x).pool(0)
    exact = Moments.of(x.double().movedim(1, 2).reshape(-1, 2))
    torch.testing.assert_close(moments.variance, exact.variance, rtol=2e-6, atol=0)
    torch.testing.assert_close(moments.mean, exact.mean, rtol=2e-6, atol=2e-6)


def test_unbiased_and_biased_variance():
    m = of([1.0, 2.0, 6.0])
    assert m.variance.item() == pytest.approx(14 / 3)
    assert m.unbiased_variance.item() == pytest.approx(7)
    assert m.standard_error.item() == pytest.approx(math.sqrt(7 / 3))
    assert of([5.0]).unbiased_variance.item() == 0


def test_shift_and_divergence_between_gaussians():
    source = Moments.from_variance(1.0, torch.tensor([1.0]), torch.tensor([4.0]))
    target = Moments.from_variance(1.0, torch.tensor([2.0]), torch.tensor([1.0]))
    shift, ratio = standardised_shift(source, target)
    assert (shift.item(), ratio.item()) == (0.5, 0.25)
    p, q = torch.distributions.Normal(2.0, 1.0), torch.distributions.Normal(1.0, 2.0)
    assert gaussian_kl(source, target).item() == pytest.approx(torch.distributions.kl_divergence(p, q).item())


def clusters(batches: int, n: int, length: int, rho: float, generator: torch.Generator) -> torch.Tensor:
    shared = torch.randn(batches, n, 1, generator=generator, dtype=torch.float64)
    own = torch.randn(batches, n, length, generator=generator, dtype=torch.float64)
    return math.sqrt(rho) * shared + math.sqrt(1 - rho) * own


@pytest.mark.parametrize("rho", [0.0, 0.1, 0.6])
def test_errors_of_correlated_values_are_those_of_repeated_draws(rho):
    """4000 draws: the standard error of a standard deviation is 1/sqrt(8000); four of them are allowed."""
    generator, draws, n, length = torch.Generator().manual_seed(5), 4000, 32, 16
    x = clusters(draws, n, length, rho, generator)
    mean_error, variance_error = x.mean((1, 2)).std(), x.var((1, 2), correction=0).std()
    one = reference.reduce_samples(x.reshape(draws * n, 1, length))
    seen = ClusteredMoments.of(one)
    tolerance = 4 / math.sqrt(2 * draws)
    assert seen.relative_error_of_mean(float(n)).item() == pytest.approx(mean_error.item(), rel=tolerance)
    assert seen.relative_error_of_variance(float(n)).item() == pytest.approx(
        variance_error.item(), rel=tolerance + 1 / n
    )
    assert seen.intraclass_correlation.item() == pytest.approx(rho, abs=0.01)
    assert effective_size_of_mean(float(n * length), float(length), rho) == pytest.approx(
        1 / mean_error.item() ** 2, rel=2 * tolerance
    )
    assert effective_size_of_variance(float(n * length), float(length), rho) == pytest.approx(
        2 / variance_error.item() ** 2, rel=0.15
    )


@given(st.integers(1, 5))
def test_clustered_moments_merge_as_their_parts(split):
    x = torch.randn(6, 2, 5, dtype=torch.float64)
    a, b = (ClusteredMoments.of(reference.reduce_samples(part)) for part in (x[:split], x[split:]))
    merged, whole = a.merge(b), ClusteredMoments.of(reference.reduce_samples(x))
    assert_same(merged.values, whole.values)
    assert_same(merged.means, whole.means)
    assert merged.clusters == 6
