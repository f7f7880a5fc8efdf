"""Errors of small batches: exact cases, limits, and draws of Gaussian and of skewed values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sympy
from theory.agreement import assert_agrees

from normwise.theory import graph, small_batch


def test_variance_of_a_variance_by_enumerating_every_sample():
    """All 3^4 samples of 4 values from {0, 1, 5}: not Gaussian, so the kurtosis counts."""
    population = np.array([0.0, 1.0, 5.0])
    samples = np.stack(np.meshgrid(*[population] * 4), -1).reshape(-1, 4)
    kurtosis = np.mean((population - 2) ** 4) / population.var() ** 2 - 3
    measured = samples.var(1, ddof=1).std() / population.var()
    assert small_batch.relative_error_of_variance(4, kurtosis) == pytest.approx(measured, rel=1e-12)
    assert small_batch.relative_error_of_mean(4) == pytest.approx(samples.mean(1).std() / population.std(), rel=1e-12)


def test_published_numbers():
    assert small_batch.relative_error_of_variance(64) == pytest.approx(math.sqrt(2 / 63))
    images = 32, 64, 0.1
    exact = small_batch.relative_error_of_variance_of_gaussian_clusters(*images)
    by_size = math.sqrt(2 / small_batch.effective_size_of_variance(32 * 64, 64, 0.1))
    by_size_of_mean = math.sqrt(2 / small_batch.effective_size_of_mean(32 * 64, 64, 0.1))
    assert (exact, by_size, by_size_of_mean) == pytest.approx((0.0397, 0.0399, 0.0844), abs=1e-4)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_one_cluster_or_clusters_of_one_are_independent_values(rho):
    for clusters, size in ((1, 64), (64, 1)):
        error = small_batch.relative_error_of_variance_of_gaussian_clusters(clusters, size, rho)
        assert error == pytest.approx(small_batch.relative_error_of_variance(64))
    assert small_batch.effective_size_of_variance(64, 1, rho) == small_batch.effective_size_of_mean(64, 1, rho) == 64


def test_identical_values_are_worth_one_a_cluster():
    assert small_batch.effective_size_of_mean(12, 4, 1.0) == small_batch.effective_size_of_variance(12, 4, 1.0) == 3


def test_effective_sizes_agree_with_exact_covariances():
    count, size, rho = 12, 4, 0.3
    covariance = np.kron(np.eye(count // size), np.full((size, size), rho) + (1 - rho) * np.eye(size))
    variance_of_mean = covariance.sum() / count**2
    assert small_batch.effective_size_of_mean(count, size, rho) == pytest.approx(1 / variance_of_mean)
    mean_correlation = (covariance.sum() - count) / (count * (count - 1))
    uniform = graph.variance_of_batch_mean(1.0, mean_correlation, count)
    assert uniform == pytest.approx(variance_of_mean)  # two ways to one number
    assert small_batch.effective_size_of_variance(count, size, rho) == pytest.approx(count**2 / np.sum(covariance**2))
    centring = np.eye(count) - 1 / count
    scatter = centring @ covariance
    exact = math.sqrt(2 * np.trace(scatter @ scatter)) / np.trace(scatter)
    assert small_batch.relative_error_of_variance_of_gaussian_clusters(count // size, size, rho) == pytest.approx(exact)


def cluster_moments(clusters):
    """Moments of clusters `(n, l)` in units of their values' standard deviation, all clusters as likely."""
    values = (clusters - clusters.mean()) / clusters.std()
    mean, square = values.mean(1), np.square(values).mean(1)
    return {
        "squares": square.var(),
        "means": np.square(mean).mean(),
        "shared": np.cov(square, mean**2, bias=True)[0, 1],
        "fourth": np.mean(mean**4),
    }


@pytest.mark.parametrize("count", [1, 2, 3])
def test_variance_of_any_clusters_by_enumerating_every_batch(count):
    """Batches of 1, 2 or 3 of 4 clusters that are neither Gaussian nor alike, with replacement."""
    clusters = np.array([[0.0, 0.5, 9.0], [1.0, 1.0, 2.0], [-4.0, 0.0, 0.0], [5.0, 5.5, 7.0]])
    batches = clusters[np.stack(np.meshgrid(*[np.arange(4)] * count), -1).reshape(-1, count)]
    variance = batches.reshape(len(batches), -1).var(1)
    predicted = small_batch.relative_error_of_variance_of_any_clusters(count, **cluster_moments(clusters))
    assert predicted == pytest.approx(variance.std() / variance.mean(), rel=1e-12)


@pytest.mark.parametrize("kurtosis", [-1.2, 0.0, 6.0])
def test_clusters_of_one_value_are_independent_values(kurtosis):
    single = {"squares": 2 + kurtosis, "means": 1.0, "shared": 2 + kurtosis, "fourth": 3 + kurtosis}
    predicted = small_batch.relative_error_of_variance_of_any_clusters(np.array([2, 9, 64]), **single)
    assert predicted == pytest.approx(small_batch.relative_error_of_variance(np.array([2, 9, 64]), kurtosis))


def test_gaussian_clusters_are_a_case_of_any():
    size, rho = 10, 0.3
    means = (1 + (size - 1) * rho) / size
    squares = 2 * (1 + (size - 1) * rho**2) / size
    gaussian = {"squares": squares, "means": means, "shared": 2 * means**2, "fourth": 3 * means**2}
    for clusters in (2, 6, 100):
        predicted = small_batch.relative_error_of_variance_of_any_clusters(clusters, **gaussian)
        assert predicted == pytest.approx(
            small_batch.relative_error_of_variance_of_gaussian_clusters(clusters, size, rho)
        )


def test_running_averages_by_unrolling_them():
    a, k = sympy.Symbol("a", positive=True), 7
    weights = [a * (1 - a) ** (k - 1 - j) for j in range(k)]
    assert sympy.simplify(1 - sum(weights) - small_batch.remaining_weight(a, k)) == 0
    squares = sum(weight**2 for weight in weights)
    assert sympy.simplify(squares - small_batch.variance_of_running_average(a, 1, k)) == 0
    assert small_batch.variance_of_running_average(0.1, 3.0) == pytest.approx(3.0 / 19)
    assert small_batch.remaining_weight(0.1, 0) == 1
    assert small_batch.remaining_weight(0.1, 1e9) == 0


def test_one_update_makes_the_average_that_batch():
    assert small_batch.variance_of_running_average(1.0, 2.0, 1) == 2.0
    assert small_batch.remaining_weight(1.0, 1) == 0


@pytest.mark.parametrize(("name", "kurtosis"), [("normal", 0.0), ("exponential", 6.0), ("uniform", -1.2)])
def test_drawn_batches(name, kurtosis):
    count, rng = 8, np.random.default_rng(0)
    x = getattr(rng, name)(size=(100_000, count))
    scale = {"normal": 1.0, "exponential": 1.0, "uniform": 1 / 12}[name]
    squared_error = (x.var(1, ddof=1) / scale - 1) ** 2
    predicted = small_batch.relative_error_of_variance(count, kurtosis) ** 2
    rival = small_batch.relative_error_of_variance(count, 6.0 if kurtosis <= 0 else 0.0) ** 2
    assert_agrees(squared_error, predicted, rival=rival)


def test_drawn_clusters():
    clusters, size, rho = 6, 10, 0.5
    rng = np.random.default_rng(1)
    shared, own = rng.normal(size=(40_000, clusters, 1)), rng.normal(size=(40_000, clusters, size))
    x = (rho**0.5 * shared + (1 - rho) ** 0.5 * own).reshape(len(own), -1)
    effective = small_batch.effective_size_of_mean(60, size, rho)
    assert_agrees(x.mean(1) ** 2, 1 / effective, rival=1 / 60)
    variance = x.var(1, ddof=1)
    error = (variance / variance.mean() - 1) ** 2
    predicted = small_batch.relative_error_of_variance_of_gaussian_clusters(clusters, size, rho) ** 2
    assert_agrees(error, predicted, rival=2 / effective)  # the design effect of a mean is not that of a variance


def test_drawn_running_means():
    momentum, count, updates, runs = 0.1, 4, 12, 20_000
    rng, running = np.random.default_rng(2), np.full(20_000, 5.0)
    for _ in range(updates):
        running += momentum * (rng.normal(size=(runs, count)).mean(1) - running)
    expected = 5.0 * small_batch.remaining_weight(momentum, updates)
    assert_agrees(running, expected, rival=0.0)
    predicted = small_batch.variance_of_running_average(momentum, 1 / count, updates)
    limit = small_batch.variance_of_running_average(momentum, 1 / count)
    assert_agrees((running - expected) ** 2, predicted, rival=limit)
