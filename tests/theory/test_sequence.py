"""Drift: the published biases, and draws of sequences."""

from __future__ import annotations

import math

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


def exact_bias(utterances, draws):
    """The mean output at every step over all batches of `draws` out of three utterances, with replacement."""
    sums, alive = np.zeros((2, 4))
    padded = np.array([np.pad(one, (0, 4 - len(one)), constant_values=np.nan) for one in utterances])
    for first in range(draws + 1):
        for second in range(draws + 1 - first):
            times = np.array([first, second, draws - first - second])
            chance = math.factorial(draws) / math.prod(map(math.factorial, times.tolist())) / 3**draws
            values = np.repeat(padded, times, axis=0)
            sums += chance * np.nansum((values - np.nanmean(values)) / np.nanstd(values), 0)
            alive += chance * np.count_nonzero(~np.isnan(values), 0)
    return sums / alive


def drawn_scatter(utterances, draws):
    """Sums over `draws` of the utterances vary as one's does, times so many."""
    values = np.concatenate(utterances)
    z = [(one - values.mean()) / values.std() for one in utterances]
    size = np.array([len(one) for one in utterances])
    step, alive = (
        np.array([np.pad(part, (0, 4 - len(part))) for part in parts]) for parts in (z, map(np.ones_like, z))
    )
    total, square = step.sum(1), (step**2).sum(1) - size

    def covariance(one, other):
        return draws * np.mean((one - one.mean(0)).T * (other - other.mean()), -1)

    return sequence.Scatter(
        values=draws * size.mean(),
        counts=draws * alive.mean(0),
        mean=covariance(total, total),
        square=covariance(square, square),
        mean_square=covariance(total, square),
        mean_values=covariance(total, size),
        square_values=covariance(square, size),
        step_square=covariance(step, square),
        counts_mean=covariance(alive, total),
    )


def test_what_all_batches_of_three_utterances_leave():
    """Utterances whose steps resemble each other, of other lengths: what is neglected falls as the square of the batch."""
    utterances = [np.array([1.0, 2.0, 2.5, 4.0]), np.array([0.5, 0.0]), np.array([2.0, 1.0, 1.5])]
    counts, values = np.array([3, 3, 2, 1]), np.concatenate(utterances)
    means = np.array([np.mean([one[t] for one in utterances if len(one) > t]) for t in range(4)])
    large_batch = (means - values.mean()) / values.std()
    first, rest = {}, {}
    for draws in (20, 40):
        exact = exact_bias(utterances, draws)
        first[draws] = np.linalg.norm(exact - large_batch)
        rest[draws] = np.linalg.norm(exact - sequence.drawn_bias(large_batch, drawn_scatter(utterances, draws)))
    assert counts.sum() == len(values)
    assert first[20] / first[40] == pytest.approx(2, rel=0.1)
    assert rest[20] / rest[40] == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize(
    ("drift", "variances"), [(0.5, [1.0, 1.0, 1.0, 1.0]), (-0.8, [2.0, 1.0, 0.5, 0.1])], ids=["alike", "not alike"]
)
def test_drawn_batches_of_few_values(drift, variances):
    counts, runs, rng = np.array([20, 15, 10, 5]), 400_000, np.random.default_rng(6)
    steps = MeanVariance(drift * np.arange(4), np.array(variances))
    own = np.repeat(np.arange(4), counts)
    biases, spreads = np.empty((2, 100, 4))
    for block in range(100):
        x = steps.mean[own] + steps.variance[own] ** 0.5 * rng.normal(size=(runs // 100, len(own)))
        y = (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)
        biases[block] = [y[:, own == t].mean() for t in range(4)]
        spreads[block] = [y[:, own == t].var(1, ddof=1).mean() for t in range(4)]
    large, drawn = sequence.pooled_output(steps, counts), sequence.drawn_output(steps, counts)
    # the next order, 1/N^2, with a factor of the size of the first order's
    rest = 3 / counts.sum() ** 2
    assert_agrees(biases, drawn.mean, rival=large.mean, allowance=rest * np.abs(drawn.mean))
    assert_agrees(spreads, drawn.variance, rival=large.variance, allowance=rest * drawn.variance)


def test_exact_and_large_batches():
    one = sequence.drawn_output(MeanVariance(np.zeros(1), np.ones(1)), np.array([1000]))
    assert one.mean == pytest.approx(0)
    assert one.variance == pytest.approx(1000 / 999, abs=1e-5)
    still = MeanVariance(np.array([0.0, 1.0, 4.0]), np.zeros(3))  # nothing is drawn
    np.testing.assert_allclose(
        sequence.drawn_output(still, np.array([3, 2, 1])), sequence.pooled_output(still, np.array([3, 2, 1]))
    )
    for count in (1e2, 1e8):
        bias = np.asarray(sequence.drawn_output(drifting(7), np.full(7, count)).mean)
        r = 1 / (1 + 0.3**2 * 48 / 12)
        expected = sequence.linear_drift_bias(np.arange(7), 7, 0.3) * (1 + r * (1 - 0.75 * r) / (7 * count))
        np.testing.assert_allclose(bias, expected, rtol=1e-12, atol=1e-15)


def test_own_mean_where_utterances_are_drawn():
    rng, lengths = np.random.default_rng(7), np.array([1, 2, 3, 3])
    values = rng.exponential(size=(4, 3))
    chosen = rng.integers(4, size=(100, 4000, 6))
    for step, share in enumerate((1.0, 0.75, 0.5)):
        alive = (lengths > step)[chosen]
        own = values[lengths > step, step]
        with np.errstate(invalid="ignore"):
            errors = np.where(alive, values[chosen, step], 0).sum(2) / alive.sum(2) - own.mean()
        taken = alive.sum(2) >= 2
        squares = np.array([np.mean(one[there] ** 2) for one, there in zip(errors, taken, strict=True)])
        predicted = own.var() * sequence.drawn_timewise_error(6, share, least=2) ** 2
        assert_agrees(squares, predicted, rival=own.var() / (6 * share) if share < 1 else 0.0)
    assert sequence.drawn_timewise_error(9, 1.0) == sequence.timewise_error(9)
    assert sequence.drawn_timewise_error(100_000, 0.5) == pytest.approx(sequence.timewise_error(50_000), rel=1e-4)
    assert sequence.drawn_timewise_error(1000, 0.5) == pytest.approx(sequence.timewise_error(500), rel=1e-3)


@pytest.mark.parametrize("mean", [0.0, 5.7, 40.0])
@pytest.mark.parametrize("count", [4, 30])
def test_rounding_stays_below_its_bound(count, mean):
    """In half precision, 11 binary digits, computed as x/s - m/s."""
    x = (mean + np.random.default_rng(8).normal(size=(4000, count))).astype(np.float16)
    total = x[:, 0]
    for one in x.T[1:]:
        total = total + one  # one by one, each sum rounded
    center = total / np.float16(count)
    factor = np.float16(1) / x.astype(float).std(1).astype(np.float16)
    y = x * factor[:, None] - (center * factor)[:, None]
    off = np.abs(y.astype(float).mean(1)).mean()
    bound = sequence.timewise_rounding(count, mean, digits=11)
    assert bound / 200 < off < bound
    assert sequence.timewise_rounding(count, mean) == bound / 2**13


def test_rounding_far_from_zero_is_that_of_the_mean():
    """There the bound is (n + 3) u mu E[1/s]."""
    spread = np.random.default_rng(9).normal(size=(100, 2000, 5)).std(2)
    assert sequence.timewise_rounding(4000, 0.0) == pytest.approx(2.0**-24 * (4003 * (4000**-0.5 + 1) + 1), rel=1e-3)
    predicted = sequence.timewise_rounding(5, 1e9) * 2**24 / 8e9
    assert_agrees((1 / spread).mean(1), predicted, rival=1 / spread.mean())


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
