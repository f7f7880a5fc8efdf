"""Per channel or across channels: exact traces, symmetric cases, and draws of Gaussian positions."""

from __future__ import annotations

from math import erf

import numpy as np
import pytest
from theory.agreement import assert_agrees

from normwise.theory import channels, graph

SCALES = np.array([5.0, 1.0, 1.0, 0.1])  # an object part, two ordinary channels, a faint texture
MEANS = np.array([1.0, -2.0, 0.0, 0.5])


def across(x, eps=0.0):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(np.mean(centred**2, -1, keepdims=True) + eps)


def positions(rng, covariance, mean, draws):
    return mean + rng.normal(size=(draws, len(covariance))) @ np.linalg.cholesky(covariance).T


@pytest.mark.parametrize("rho", [-0.1, 0.0, 0.7])
def test_equal_channels_are_correlated_nodes(rho):
    covariance = channels.uniform_covariance(np.full(6, 3.0), rho)
    assert channels.across_channel_variance(covariance) == pytest.approx(graph.batch_variance(9.0, rho))


def test_expected_variance_is_a_trace():
    covariance = channels.uniform_covariance(SCALES, 0.4)
    centring = np.eye(4) - 1 / 4
    second_moment = covariance + np.outer(MEANS, MEANS)
    expected = np.trace(centring @ second_moment) / 3
    assert channels.across_channel_variance(covariance, MEANS) == pytest.approx(expected)


@pytest.mark.parametrize("rho", [-0.1, 0.0, 0.95])
@pytest.mark.parametrize("count", [2, 3, 8])
def test_equal_channels_share_the_output_equally_at_any_correlation(count, rho):
    output = channels.across_channel_output(channels.uniform_covariance(np.full(count, 0.3), rho))
    np.testing.assert_allclose(output.variance, 1, rtol=1e-12)
    np.testing.assert_allclose(output.mean, 0, atol=1e-14)


@pytest.mark.parametrize("rho", [0.0, 0.6])
def test_outputs_alike_are_correlated_by_the_least_there_is(rho):
    x = positions(np.random.default_rng(2), channels.uniform_covariance(np.ones(5), rho), np.zeros(5), 40_000)
    correlations = np.corrcoef(across(x).T)
    assert correlations[np.triu_indices(5, 1)].mean() == pytest.approx(
        channels.correlation_across_channels(5), abs=2e-3
    )
    assert channels.correlation_across_channels(2) == -1


def test_correlation_lets_a_loud_channel_take_more():
    """Two channels of scale 1 beside one of 10: in the limit of equal channels what differs is the loud one alone."""
    taken = [
        channels.across_channel_output(channels.uniform_covariance(np.array([10.0, 1.0, 1.0]), rho)).variance
        for rho in (0.0, 0.6, 1 - 1e-9)
    ]
    assert taken[0][0] < taken[1][0] < taken[2][0]
    np.testing.assert_allclose(taken[2], [2, 0.5, 0.5], rtol=1e-3)  # y is +-(2, -1, -1) / sqrt(2)


def test_outputs_of_a_position_always_share_one_budget():
    """The squared outputs sum to C, so the expected squares do, at any scales, means and correlation."""
    output = channels.across_channel_output(channels.uniform_covariance(SCALES, 0.4), MEANS)
    assert np.sum(output.variance + output.mean**2) == pytest.approx(4, rel=1e-12)


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_only_relative_scales_matter(factor):
    covariance = channels.uniform_covariance(SCALES, 0.4)
    plain = channels.across_channel_output(covariance, MEANS)
    scaled = channels.across_channel_output(covariance * factor**2, MEANS * factor)
    np.testing.assert_allclose(scaled.variance, plain.variance, rtol=1e-10)
    np.testing.assert_allclose(scaled.mean, plain.mean, rtol=1e-10, atol=1e-12)


def test_limits_of_certain_means_and_of_a_large_eps():
    certain = channels.across_channel_output(1e-12 * np.eye(4), MEANS)
    np.testing.assert_allclose(certain.mean, across(MEANS), rtol=1e-6)
    np.testing.assert_allclose(certain.variance, 0, atol=1e-9)
    covariance, centring = channels.uniform_covariance(SCALES, 0.4), np.eye(4) - 1 / 4
    linear = channels.across_channel_output(covariance, MEANS, eps=1e8)
    np.testing.assert_allclose(linear.variance * 1e8, np.diag(centring @ covariance @ centring), rtol=1e-5)
    np.testing.assert_allclose(linear.mean * 1e4, MEANS - MEANS.mean(), rtol=1e-5)


def test_two_channels_leave_only_a_sign():
    """y is +1 or -1 by which channel is larger: mean 2 Phi(m / s) - 1, square 1."""
    covariance = channels.uniform_covariance(np.array([2.0, 1.0]), 0.25)
    output = channels.across_channel_output(covariance, np.array([1.0, 0.0]))
    spread = 4 + 1 - 2 * 0.25 * 2
    expected = erf(1 / (2 * spread) ** 0.5)
    np.testing.assert_allclose(output.mean, [expected, -expected], rtol=1e-9)
    np.testing.assert_allclose(output.variance, 1 - expected**2, rtol=1e-9)


def test_per_channel_output_is_an_identity():
    x = np.random.default_rng(0).exponential(size=(50, 3)) * SCALES[:3]
    output = (x - x.mean(0)) / np.sqrt(x.var(0) + 0.1)
    predicted = channels.per_channel_output(x.var(0), 0.1)
    np.testing.assert_allclose(output.var(0), predicted.variance, rtol=1e-12)
    np.testing.assert_allclose(output.mean(0), predicted.mean, atol=1e-14)
    assert channels.per_channel_output(7.0) == (0.0, 1.0)


@pytest.mark.parametrize("rho", [0.0, 0.6])
@pytest.mark.parametrize("eps", [0.0, 0.5])
def test_drawn_positions(rho, eps):
    covariance = channels.uniform_covariance(SCALES, rho)
    x = positions(np.random.default_rng(1), covariance, MEANS, 40_000)
    variance = channels.across_channel_variance(covariance, MEANS)
    assert_agrees(x.var(1, ddof=1), variance, rival=np.mean(SCALES**2))
    y, output = across(x, eps), channels.across_channel_output(covariance, MEANS, eps)
    assert_agrees(y, output.mean, rival=0.0)
    per_channel = channels.per_channel_output(SCALES**2, eps)
    assert_agrees((y - output.mean) ** 2, output.variance, rival=per_channel.variance)
    centred = covariance.mean() + covariance - covariance.mean(0) - covariance.mean(1)[:, None]
    ratio_of_expectations = np.diag(centred) / (0.75 * variance + eps)  # the approximation the integral replaces
    assert_agrees((y - output.mean) ** 2, output.variance, rival=ratio_of_expectations)


def test_channels_without_spread_are_refused():
    with pytest.raises(ValueError, match="covariance must let channels differ at a position, or eps be positive"):
        channels.across_channel_output(np.zeros((3, 3)))
    still = channels.across_channel_output(np.zeros((3, 3)), eps=1.0)
    assert np.allclose(still.variance, 0.0, atol=1e-12)
