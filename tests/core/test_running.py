"""Running estimates: torch's, the exact mixture, the cumulative average."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from normwise.core.moments import Moments
from normwise.core.running import cumulative_momentum, exact, exponential, weight_of_initial_value


def test_exponential_is_torchs():
    layer, x = nn.BatchNorm1d(3, momentum=0.3), torch.randn(16, 3) + 2
    layer(x)
    mean, variance = exponential(torch.zeros(3), torch.ones(3), Moments.of(x), 0.3)
    torch.testing.assert_close(mean, layer.running_mean)
    torch.testing.assert_close(variance, layer.running_var)


def test_exact_is_the_variance_of_the_mixture():
    """Draw from the old distribution with probability 1 - a, from the batch with probability a."""
    a, x = 0.25, torch.randn(40, 2, dtype=torch.float64) * 3 + 5
    batch = Moments.of(x)
    mean, variance = exact(torch.tensor([1.0, -2.0]).double(), torch.tensor([4.0, 0.5]).double(), batch, a)
    old_mean, old_var = torch.tensor([1.0, -2.0]).double(), torch.tensor([4.0, 0.5]).double()
    second = (1 - a) * (old_var + old_mean**2) + a * (batch.variance + batch.mean**2)
    torch.testing.assert_close(mean, (1 - a) * old_mean + a * batch.mean)
    torch.testing.assert_close(variance, second - mean**2)


def test_correlated_batches_keep_their_variance_only_when_exact():
    """With one common part a batch, batch variances average to (1 - rho) s^2; the exact estimate keeps s^2."""
    generator, rho, a = torch.Generator().manual_seed(0), 0.6, 0.002
    usual = precise = (torch.zeros(1).double(), torch.ones(1).double())
    for _ in range(8000):
        shared = torch.randn(1, 1, generator=generator, dtype=torch.float64)
        own = torch.randn(32, 1, generator=generator, dtype=torch.float64)
        batch = Moments.of(rho**0.5 * shared + (1 - rho) ** 0.5 * own)
        usual, precise = exponential(*usual, batch, a), exact(*precise, batch, a)
    # the estimate's own standard error is about sqrt(2 a / (2 - a)) = 4.5%; three of them are allowed
    assert usual[1].item() == pytest.approx(1 - rho, rel=0.135)
    assert precise[1].item() == pytest.approx(1, rel=0.135)


def test_exact_over_all_batches_is_the_population_variance_of_all_values():
    values = torch.randn(50, 4, 3, dtype=torch.float64) * 2 + 1
    tables = (torch.zeros(3).double(), torch.ones(3).double())
    for number, batch in enumerate(values, start=1):
        tables = exact(*tables, Moments.of(batch), 1 / number)
    torch.testing.assert_close(tables[0], values.flatten(0, 1).mean(0))
    torch.testing.assert_close(tables[1], values.flatten(0, 1).var(0, unbiased=False))


def test_groups_with_fewer_than_two_values_are_left():
    batch = Moments(torch.tensor([[1.0], [2.0]]), torch.full((2, 3), 5.0), torch.ones(2, 3))
    for update in (exponential, exact):
        mean, variance = update(torch.zeros(2, 3), torch.ones(2, 3), batch, 0.5)
        assert (mean[0] == 0).all()
        assert (variance[0] == 1).all()
        assert (mean[1] == 2.5).all()


def test_cumulative_average_and_the_weight_of_the_beginning():
    assert cumulative_momentum(torch.tensor([1, 2, 4])).tolist() == [1.0, 0.5, 0.25]
    assert weight_of_initial_value(0.1, 10) == pytest.approx(0.9**10)


@pytest.mark.parametrize("update", [exponential, exact])
def test_a_momentum_a_group_is_that_groups_own(update):
    batch = Moments(torch.full((2, 1), 4.0), torch.randn(2, 3), torch.rand(2, 3))
    mean, variance = torch.randn(2, 3), torch.rand(2, 3)
    together = update(mean, variance, batch, torch.tensor([[0.5], [0.1]], dtype=torch.float64))
    for group, momentum in enumerate((0.5, 0.1)):
        alone = Moments(batch.count[group], batch.mean[group], batch.m2[group])
        for table, expected in zip(together, update(mean[group], variance[group], alone, momentum), strict=True):
            torch.testing.assert_close(table[group], expected)
