"""Drift: the published biases, and draws of sequences."""

from __future__ import annotations

import numpy as np
import pytest
import sympy
from theory.agreement import assert_agrees

from normwise.theory import sequence
from normwise.theory.mixture import MeanVariance


def drifting(steps, drift=0.3, variance=1.0):
    return MeanVariance(drift * np.arange(steps), np.full(steps, variance))


def test_published_biases():
    equal = sequence.linear_drift_bias(np.array([0, 19]), 20, 0.3)
    uneven = sequence.pooled_output(drifting(20), sequence.alive(np.arange(5, 21))).mean[[0, -1]]
    assert equal == pytest.approx([-1.43, 1.43], abs=5e-3)
    assert uneven == pytest.approx([-1.13, 2.13], abs=5e-3)


def test_equal_lengths_are_the_closed_form():
    step = np.arange(7)
    pooled = sequence.pooled_output(drifting(7, 0.4, 2.0), np.full(7, 9))
    np.testing.assert_allclose(pooled.mean, sequence.linear_drift_bias(step, 7, 0.4, 2.0), atol=1e-15)
    t, steps = sympy.symbols("t T", integer=True, positive=True)
    spread = sympy.summation((t - (steps - 1) / 2) ** 2, (t, 0, steps - 1)) / steps
    assert sympy.simplify(spread - (steps**2 - 1) / 12) == 0


def test_limits_of_drift():
    assert sequence.linear_drift_bias(3, 8, 0.0) == 0
    assert sequence.linear_drift_bias(19, 20, 1e9) == pytest.approx((3 * 19 / 21) ** 0.5)
    still = sequence.pooled_output(MeanVariance(np.full(4, 7.0), np.full(4, 2.0)), np.array([4, 3, 2, 1]))
    np.testing.assert_allclose(still.mean, 0)
    np.testing.assert_allclose(still.variance, 1)


def test_pooled_output_is_an_identity_between_sample_moments():
    rng, counts = np.random.default_rng(0), np.array([5, 3, 2])
    steps = [rng.exponential(size=count) + t for t, count in enumerate(counts)]
    values = np.concatenate(steps)
    output = [(x - values.mean()) / np.sqrt(values.var() + 0.1) for x in steps]
    measured = MeanVariance(np.array([x.mean() for x in steps]), np.array([x.var() for x in steps]))
    predicted = sequence.pooled_output(measured, counts, eps=0.1)
    np.testing.assert_allclose(predicted.mean, [y.mean() for y in output], rtol=1e-12)
    np.testing.assert_allclose(predicted.variance, [y.var() for y in output], rtol=1e-12)


def test_alive_counts_sequences_that_have_a_step():
    lengths = np.array([2, 5, 1, 5])
    assert sequence.alive(lengths).tolist() == [int(sum(lengths > t)) for t in range(5)]


def test_drawn_sequences_of_uneven_length():
    rng, steps, runs = np.random.default_rng(1), 20, 2000
    lengths = np.repeat(np.arange(5, 21), 8)
    counts = sequence.alive(lengths)
    mask = lengths[:, None] > np.arange(steps)
    biases, timewise = np.empty((runs, steps)), np.empty((runs, steps))
    for run in range(runs):
        x = np.where(mask, 0.3 * np.arange(steps) + rng.normal(size=mask.shape), np.nan)
        means = np.nansum(x, 0) / counts
        biases[run] = (means - np.nanmean(x)) / np.nanstd(x)
        timewise[run] = means - 0.3 * np.arange(steps)
    equal_lengths = sequence.linear_drift_bias(np.arange(steps), steps, 0.3)
    predicted = sequence.pooled_output(drifting(steps), counts)
    # sample moments of n values in place of true ones: relative order 1/n
    assert_agrees(biases, predicted.mean, rival=equal_lengths, allowance=np.abs(predicted.mean) * 2 / counts.sum())
    assert_agrees(timewise**2, sequence.timewise_error(counts) ** 2, rival=1 / len(lengths))


def test_limit_of_a_steps_own_error():
    assert sequence.timewise_error(np.array([1.0, 4.0, 1e12])) == pytest.approx([1, 0.5, 0], abs=1e-5)
