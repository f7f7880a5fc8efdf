"""Causality: autograd as the oracle of the Jacobian, draws of sequences, and every batch of tosses there is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from theory.agreement import assert_agrees

from normwise.theory import causality

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
    np.testing.assert_allclose(causality.jacobian(x, groups, eps), expected.numpy(), atol=1e-13)


def test_who_shares_statistics_settles_causality():
    n, t, c = np.indices((2, 3, 4)).reshape(3, -1)  # sequences of tokens of features
    x = np.random.default_rng(3).normal(size=n.size)
    future = t[:, None] < t
    assert np.abs(causality.jacobian(x, c)[future & (c[:, None] == c)]).min() > 0  # batch norm pooled over time
    assert not causality.jacobian(x, c * 3 + t)[future].any()  # time-wise
    assert causality.jacobian(x, c * 3 + t)[n[:, None] != n].any()  # which still joins sequences
    layer_norm = causality.jacobian(x, n * 3 + t)
    assert not layer_norm[future].any()
    assert not layer_norm[n[:, None] != n].any()


def test_rms_influence_is_exact_for_every_batch():
    x = np.random.default_rng(4).exponential(size=30)
    y = (x - x.mean()) / x.std()
    apart = ~np.eye(30, dtype=bool)
    measured = np.sqrt(np.mean(causality.jacobian(x, np.zeros(30))[apart] ** 2))
    assert causality.rms_influence(30, np.mean(y**4), x.std()) == pytest.approx(measured, rel=1e-12)


def test_influence_falls_as_one_over_the_number_of_values():
    large = causality.rms_influence(np.array([1e6, 2e6]), scale=0.5)
    assert large * np.array([1e6, 2e6]) == pytest.approx([2 * 2**0.5] * 2, rel=1e-5)


def test_drawn_influence_of_the_future():
    """Gaussian sequences, the influence of each step on earlier ones: the mean square is 2 / (n T)^2, not 1."""
    n, steps, rng = 8, 10, np.random.default_rng(5)
    time = np.tile(np.arange(steps), n)
    future = time[:, None] < time
    drawn = []
    for _ in range(300):
        x = rng.normal(size=n * steps)
        drawn.append(np.mean(causality.jacobian(x, 0 * time)[future] ** 2) * x.var())
    predicted = causality.rms_influence(n * steps) ** 2
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
    assert causality.composition_leak(count) == pytest.approx(np.log(2) - loss, abs=1e-12)


def test_what_a_batch_tells_falls_as_one_over_its_tokens():
    assert causality.composition_leak(1000) * 2 * 999 == pytest.approx(1, abs=2e-3)


def test_limits_of_a_repetition():
    assert causality.believed_repetition(2) == 0  # the other token is the other side
    assert causality.believed_repetition(1e9) == pytest.approx(0.5)


def test_a_repetition_in_a_balanced_batch():
    batches = tosses(10)
    balanced = batches[batches.sum(1) == 5]
    repeated = np.mean(balanced[:, 0] == balanced[:, 1])
    assert causality.believed_repetition(10) == pytest.approx(repeated, rel=1e-12)


def test_price_of_a_belief():
    """Tosses that a believer foretells, one by one; nothing is lost by who believes what is true."""
    rng, belief = np.random.default_rng(6), 0.4
    repeated = rng.integers(0, 2, (400, 1000)) == 1
    loss = -np.where(repeated, np.log(belief), np.log(1 - belief)).mean(1) - np.log(2)
    assert_agrees(loss, causality.price_of_belief(belief), rival=0.0)
    assert causality.price_of_belief(0.5) == pytest.approx(0, abs=1e-15)
    far = causality.price_of_belief(causality.believed_repetition(1001))
    assert far * 2 * 1000**2 == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("count", [4, 8, 100])
def test_no_belief_is_farther_off_than_what_is_left_to_gain_allows(count):
    right = causality.believed_repetition(count)
    chance = np.mean(np.random.default_rng(7).binomial(count, 0.5, 1_000_000) == count // 2)
    belief = np.linspace(1e-6, 1 - 1e-6, 1001)
    spread = right * np.log(right / belief) + (1 - right) * np.log((1 - right) / (1 - belief))
    allowed = causality.belief_error(chance / 2 * spread, count)
    assert (np.abs(belief - right) <= 1.01 * allowed + 1e-9).all()
    near = np.abs(belief - right) < 0.02  # at p = 1/2 the bound is reached, elsewhere it is wider
    assert (allowed[near] <= 1.02 * np.abs(belief - right)[near] / (4 * right * (1 - right)) ** 0.5 + 1e-3).all()


@pytest.mark.parametrize("count", [1030, 10**6])
def test_a_belief_among_many_tokens(count):
    """Stirling: a half of so many tosses are heads with the chance sqrt(2/(pi N))."""
    allowed = causality.belief_error(1e-6, count)
    assert allowed == pytest.approx((1e-6 * (np.pi * count / 2) ** 0.5) ** 0.5, rel=1 / count)


def test_drawn_shift_from_training_to_evaluation():
    rng, count = np.random.default_rng(8), 6
    x = rng.normal(size=(200, 500, count))
    y = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)
    assert_agrees(((y - x) ** 2).mean((1, 2)), causality.rms_shift(count) ** 2, rival=1 / count)


def test_limits_of_the_shift():
    assert causality.rms_shift(2) == pytest.approx((2 - 2 / np.pi**0.5) ** 0.5)  # two values are always -1 and 1
    counts = np.array([1e4, 1e5])
    assert causality.rms_shift(counts) ** 2 * counts == pytest.approx([1.5, 1.5], rel=1e-3)
