"""Correlated batches: any correlation matrix exactly, limits, and draws of batches."""

from __future__ import annotations

import numpy as np
import pytest
import sympy
from theory.agreement import assert_agrees

from normwise.theory import graph


def batches(rng, *, count, correlation, draws, variance=1.0):
    shared, own = rng.normal(size=(draws, 1)), rng.normal(size=(draws, count))
    return variance**0.5 * (correlation**0.5 * shared + (1 - correlation) ** 0.5 * own)


def mean_correlation(correlations):
    count = len(correlations)
    return float((correlations.sum() - np.trace(correlations)) / (count * (count - 1)))


def test_expectations_for_any_correlation_matrix_exactly():
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(7, 4))
    covariance = factor @ factor.T + np.eye(7)
    correlations = covariance / np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    rho, centring = mean_correlation(correlations), np.eye(7) - 1 / 7
    assert np.trace(centring @ correlations) / 6 == pytest.approx(graph.batch_variance(1.0, rho))
    assert np.trace(centring @ correlations) / 7 == pytest.approx(graph.population_batch_variance(1.0, rho, 7))
    assert correlations.sum() / 49 == pytest.approx(graph.variance_of_batch_mean(1.0, rho, 7))


def test_bounds_are_reached_by_values_that_sum_to_zero():
    count = 5
    correlations = np.full((count, count), graph.smallest_correlation(count))
    np.fill_diagonal(correlations, 1)
    assert np.linalg.eigvalsh(correlations)[0] == pytest.approx(0, abs=1e-14)  # below, not a correlation matrix
    rho = mean_correlation(correlations)
    assert graph.variance_of_batch_mean(1.0, rho, count) == pytest.approx(0, abs=1e-15)
    assert graph.batch_variance(2.0, rho) == pytest.approx(2.0 * graph.largest_overestimate(count))
    assert graph.population_batch_variance(2.0, rho, count) == pytest.approx(2.0)  # never above


def test_variances_within_and_between_symbolically():
    v, rho, m, k, a = sympy.symbols("v rho m k a", positive=True)
    between = graph.variance_of_batch_mean(v, rho, m)
    within = graph.population_batch_variance(v, rho, m)
    assert sympy.simplify(within + between - v) == 0
    assert sympy.simplify(graph.merged_variance(v, rho, m, 1) - graph.batch_variance(v, rho)) == 0
    assert sympy.limit(graph.merged_variance(v, rho, m, k), k, sympy.oo) == v
    merged = graph.exponentially_merged_variance(v, rho, m, a, unbiased=False)
    assert sympy.simplify(merged - (v - a * between / (2 - a))) == 0
    bessel = graph.exponentially_merged_variance(v, rho, m, a)
    assert sympy.simplify(bessel - merged - (1 - rho) * v / m) == 0


def test_mixed_batches_by_their_matrix():
    """Three batches of four put together: 12 values, correlated in blocks."""
    blocks = np.kron(np.eye(3), np.full((4, 4), 0.7))
    np.fill_diagonal(blocks, 1)
    assert graph.mixed_correlation(0.7, 4, 3) == pytest.approx(mean_correlation(blocks))
    assert graph.mixed_correlation(0.7, 4, 1) == pytest.approx(0.7)
    assert graph.mixed_correlation(0.7, 4, 10**9) == pytest.approx(0, abs=1e-9)


def test_training_keeps_rms_one_at_any_correlation():
    for rho in (0.0, 0.5, 0.999):
        assert graph.training_mean_square(rho, 32, 0.0) == 1
    first_order = 1 - 1e-7 / 0.01 * 32 / 29
    assert graph.training_mean_square(0.99, 32, 1e-7) == pytest.approx(first_order, abs=1e-9)
    assert graph.training_mean_square(0.99, 10**6, 1e-3) == pytest.approx(0.01 / 0.011, rel=1e-5)  # v is certain
    assert graph.training_mean_square(0.5, 4, 1e12) == pytest.approx(0, abs=1e-6)


def test_training_and_evaluation_of_drawn_batches():
    """Eps as large as the variance, so that what it takes is far from its first order."""
    rho, count, averaged, eps, draws = 0.9, 4, 3, 0.1, 40_000
    rng = np.random.default_rng(1)
    x = batches(rng, count=count, correlation=rho, draws=draws * averaged)
    trained = (((x - x.mean(1, keepdims=True)) ** 2) / (x.var(1, keepdims=True) + eps)).mean(1)
    ratio_of_expectations = 0.075 / 0.175
    assert_agrees(trained, graph.training_mean_square(rho, count, eps), rival=ratio_of_expectations)
    running_mean = x.mean(1).reshape(draws, averaged).mean(1)
    running_var = x.var(1, ddof=1).reshape(draws, averaged).mean(1)
    evaluated = (rng.normal(size=draws) - running_mean) ** 2 / (running_var + eps)
    predicted = graph.evaluation_mean_square(rho, count, averaged, eps)
    assert_agrees(evaluated, predicted, rival=(1 + 0.925 / averaged) / (1 - rho + eps))


def test_evaluation_explodes():
    assert graph.eval_inflation(0.99) ** 0.5 == pytest.approx(10)
    assert graph.eval_inflation(0.0) == 1
    settled = graph.evaluation_mean_square(0.99, 32, 10**7, 0.0)
    assert settled == pytest.approx(graph.eval_inflation(0.99), rel=1e-5)
    one_batch = graph.evaluation_mean_square(0.0, 5, 1, 0.0)
    assert one_batch == pytest.approx((1 + 1 / 5) * 4 / 2)  # E[1/v] of four degrees of freedom
    assert graph.evaluation_mean_square(0.9, 32, 80, 1e9) == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("rho", [0.3, 0.9])
def test_drawn_batches(rho):
    count, variance = 16, 2.0
    x = batches(np.random.default_rng(2), count=count, correlation=rho, draws=20_000, variance=variance)
    assert_agrees(x.var(1, ddof=1), graph.batch_variance(variance, rho), rival=variance)
    assert_agrees(
        x.var(1), graph.population_batch_variance(variance, rho, count), rival=graph.batch_variance(variance, rho)
    )
    assert_agrees(x.mean(1) ** 2, graph.variance_of_batch_mean(variance, rho, count), rival=variance / count)
    output = x / graph.batch_variance(variance, rho) ** 0.5  # running statistics at their expectation
    assert_agrees((output**2).mean(1), graph.eval_inflation(rho), rival=1.0)


def test_merging_batches_exactly_recovers_the_variance():
    count, rho, merged = 8, 0.6, 5
    x = batches(np.random.default_rng(3), count=count, correlation=rho, draws=4000 * merged)
    together = x.reshape(4000, -1).var(1, ddof=1)
    assert_agrees(together, graph.merged_variance(1.0, rho, count, merged), rival=graph.batch_variance(1.0, rho))


@pytest.mark.parametrize("unbiased", [False, True])
def test_exponential_running_variance(unbiased):
    """4000 independent runs of 60 updates at momentum .2: (1 - .2)^60 of the start is left, 2e-6."""
    count, rho, momentum, runs = 8, 0.6, 0.2, 4000
    rng = np.random.default_rng(4)
    mean, variance, averaged = np.zeros(runs), np.ones(runs), np.ones(runs)
    for _ in range(60):
        x = batches(rng, count=count, correlation=rho, draws=runs)
        batch = x.var(1, ddof=int(unbiased))
        between = momentum * (1 - momentum) * (x.mean(1) - mean) ** 2
        variance = (1 - momentum) * variance + momentum * batch + between
        averaged = (1 - momentum) * averaged + momentum * batch
        mean = (1 - momentum) * mean + momentum * x.mean(1)
    predicted = graph.exponentially_merged_variance(1.0, rho, count, momentum, unbiased=unbiased)
    assert_agrees(variance, predicted, rival=1.0)
    plain = graph.batch_variance(1.0, rho) if unbiased else graph.population_batch_variance(1.0, rho, count)
    assert_agrees(averaged, plain, rival=predicted)
