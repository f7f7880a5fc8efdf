"""Drift and causality: the published biases, autograd as the oracle of the Jacobian, and draws of sequences."""

from __future__ import annotations

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
