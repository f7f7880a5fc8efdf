"""Drift and causality: the published biases, autograd as the oracle of the Jacobian, and draws of sequences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sympy
import torch
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


GROUPINGS = {
    "pooled": lambda sequences, steps: 0 * steps,
    "time-wise": lambda sequences, steps: steps,
    "one sequence": lambda sequences, steps: sequences,
}


@pytest.mark.parametrize("eps", [0.0, 0.3])
@pytest.mark.parametrize("name", GROUPINGS)
def test_jacobian_against_autograd(name, eps):
    sequences, steps = (index.ravel() for index in np.indices((4, 5)))
    groups = GROUPINGS[name](sequences, steps)
    x = np.random.default_rng(2).normal(size=20)

    def normalise(values):
        y = torch.zeros_like(values)
        for group in np.unique(groups):
            chosen = torch.from_numpy(groups == group)
            part = values[chosen]
            y = y.masked_scatter(chosen, (part - part.mean()) / (part.var(unbiased=False) + eps).sqrt())
        return y

    expected = torch.autograd.functional.jacobian(normalise, torch.from_numpy(x))
    np.testing.assert_allclose(sequence.jacobian(x, groups, eps), expected.numpy(), atol=1e-13)


def test_who_shares_statistics_settles_causality():
    n, t, c = np.indices((2, 3, 4)).reshape(3, -1)  # sequences of tokens of features
    x = np.random.default_rng(3).normal(size=n.size)
    future = t[:, None] < t
    assert np.abs(sequence.jacobian(x, c)[future & (c[:, None] == c)]).min() > 0  # batch norm pooled over time
    assert not sequence.jacobian(x, c * 3 + t)[future].any()  # time-wise
    assert sequence.jacobian(x, c * 3 + t)[n[:, None] != n].any()  # which still joins sequences
    layer_norm = sequence.jacobian(x, n * 3 + t)
    assert not layer_norm[future].any()
    assert not layer_norm[n[:, None] != n].any()


def test_rms_influence_is_exact_for_every_batch():
    x = np.random.default_rng(4).exponential(size=30)
    y = (x - x.mean()) / x.std()
    apart = ~np.eye(30, dtype=bool)
    measured = np.sqrt(np.mean(sequence.jacobian(x, np.zeros(30))[apart] ** 2))
    assert sequence.rms_influence(30, np.mean(y**4), x.std()) == pytest.approx(measured, rel=1e-12)


def test_influence_falls_as_one_over_the_number_of_values():
    large = sequence.rms_influence(np.array([1e6, 2e6]), scale=0.5)
    assert large * np.array([1e6, 2e6]) == pytest.approx([2 * 2**0.5] * 2, rel=1e-5)


def test_drawn_influence_of_the_future():
    """Gaussian sequences, the influence of each step on earlier ones: the mean square is 2 / (n T)^2, not 1."""
    n, steps, rng = 8, 10, np.random.default_rng(5)
    time = np.tile(np.arange(steps), n)
    future = time[:, None] < time
    drawn = []
    for _ in range(300):
        x = rng.normal(size=n * steps)
        drawn.append(np.mean(sequence.jacobian(x, 0 * time)[future] ** 2) * x.var())
    predicted = sequence.rms_influence(n * steps) ** 2
    # 3 in place of each batch's own fourth moment: relative order 1/N^2
    assert_agrees(np.array(drawn), predicted, rival=1 / (n * steps) ** 2, allowance=predicted * 2 / (n * steps) ** 2)


def tosses(count):
    """Every batch of tosses, `(2^n, n)`."""
    return (np.arange(2**count)[:, None] >> np.arange(count)) & 1


@pytest.mark.parametrize("count", [2, 3, 6, 9])
def test_what_all_batches_of_tosses_tell(count):
    """The best predictor of the second token from the first one's normalised value, over every batch there is."""
    batches = tosses(count)
    spread = batches.std(1)
    y = np.where(spread > 0, (batches[:, 0] - batches.mean(1)) / np.where(spread > 0, spread, 1), 0).round(9)
    loss = 0.0
    for value in np.unique(y):
        heads = batches[y == value, 1]
        given = [share for share in (heads.mean(), 1 - heads.mean()) if share > 0]
        loss -= len(heads) / len(batches) * sum(share * np.log(share) for share in given)
    assert sequence.composition_leak(count) == pytest.approx(np.log(2) - loss, abs=1e-12)


def test_what_a_batch_tells_falls_as_one_over_its_tokens():
    assert sequence.composition_leak(1000) * 2 * 999 == pytest.approx(1, abs=2e-3)


def test_limits_of_a_repetition_and_of_a_steps_own_error():
    assert sequence.believed_repetition(2) == 0  # the other token is the other side
    assert sequence.believed_repetition(1e9) == pytest.approx(0.5)
    assert sequence.timewise_error(np.array([1.0, 4.0, 1e12])) == pytest.approx([1, 0.5, 0], abs=1e-5)


def test_a_repetition_in_a_balanced_batch():
    batches = tosses(10)
    balanced = batches[batches.sum(1) == 5]
    repeated = np.mean(balanced[:, 0] == balanced[:, 1])
    assert sequence.believed_repetition(10) == pytest.approx(repeated, rel=1e-12)
