"""Growth of gradients: published numbers, limits, and a numpy network with its backward pass written out."""

from __future__ import annotations

import numpy as np
import pytest
import sympy
from theory.agreement import assert_agrees

from normwise.theory import residual


def test_variance_of_a_rectified_gaussian_by_integration():
    z = sympy.Symbol("z", real=True)
    density = sympy.exp(-(z**2) / 2) / sympy.sqrt(2 * sympy.pi)
    mean, second = (sympy.integrate(z**k * density, (z, 0, sympy.oo)) for k in (1, 2))
    assert float(second - mean**2) == pytest.approx(residual.RELU_VARIANCE, rel=1e-15)
    assert float(second) == 0.5


def test_published_numbers():
    assert residual.idealised_pre_activation_factor() == 1.5
    assert residual.idealised_post_activation_factor() == residual.idealised_post_activation_factor(2.0) == 1
    assert residual.post_activation_factor() == pytest.approx(1.1187, abs=5e-5)
    assert pytest.approx(1.467, abs=5e-4) == residual.PLAIN_FACTOR
    assert pytest.approx(1 / (2 * residual.RELU_VARIANCE), rel=1e-14) == residual.POWER_OF_DEPTH
    assert residual.pre_activation_growth(np.array([16, 64])) == pytest.approx([14.12, 88.9], rel=5e-4)
    assert residual.post_activation_growth(np.array([16, 64])) == pytest.approx([6.02, 1311], rel=5e-4)


def test_the_layouts_trade_places_at_depth_32():
    assert residual.crossing_depth() == 32
    before, after = np.array([31, 32])
    assert residual.pre_activation_growth(before) > residual.post_activation_growth(before)
    assert residual.pre_activation_growth(after) < residual.post_activation_growth(after)


def test_without_norm_the_weights_gain_is_all():
    assert residual.unnormalised_factor(skip=False) == 0.5
    assert residual.unnormalised_factor(skip=True) == 1.5
    assert residual.unnormalised_factor(skip=False, gain=2.0) == 1  # He: what ReLU takes
    assert residual.unnormalised_factor(skip=True, gain=0.0) == 1  # the skip alone
    assert residual.idealised_pre_activation_factor(0.0) == residual.post_activation_factor(gain=0.0) == 1


def test_finite_size_terms_vanish_with_width_and_batch():
    assert residual.finite_size_term(100, 50) == pytest.approx(0.045)
    assert residual.finite_size_term_of_growth(100, 50, 10) == pytest.approx(0.12)
    assert residual.finite_size_term(1e12, 1e12) == pytest.approx(0, abs=1e-11)
    assert residual.finite_size_term_of_growth(1e12, 1e12, 10) == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("gain", [0.5, 1.0, 2.0])
def test_products_are_products_and_tend_to_a_power_of_depth(gain):
    growth = np.prod([residual.pre_activation_factor(block, gain=gain) for block in range(9)])
    assert residual.pre_activation_growth(9, gain=gain) == pytest.approx(growth, rel=1e-13)
    assert residual.pre_activation_growth(0, gain=gain) == 1
    doubled = residual.pre_activation_growth(np.array([50_000, 100_000]), gain=gain)
    assert np.log2(doubled[1] / doubled[0]) == pytest.approx(residual.POWER_OF_DEPTH, abs=1e-3)


def test_late_pre_activation_blocks_are_the_identity_and_the_first_is_the_source_s():
    assert residual.pre_activation_factor(0, gain=1.3) == residual.idealised_pre_activation_factor(1.3)
    assert residual.pre_activation_factor(1e12) == pytest.approx(1)


def normalised(x):
    scale = x.std(0)
    return (x - x.mean(0)) / scale, scale


def back_through_norm(gradient, x_hat, scale):
    return (gradient - gradient.mean(0) - x_hat * (gradient * x_hat).mean(0)) / scale


def pre(x, weight):
    x_hat, scale = normalised(x)
    branch = np.maximum(x_hat, 0) @ weight
    return x + branch, lambda g: g + back_through_norm((g @ weight.T) * (x_hat > 0), x_hat, scale)


def post(x, weight):
    y, scale = normalised(x + np.maximum(x, 0) @ weight)

    def back(g):
        g = back_through_norm(g, y, scale)
        return g + (g @ weight.T) * (x > 0)

    return y, back


def plain(x, weight):
    y, scale = normalised(np.maximum(x, 0) @ weight)
    return y, lambda g: (back_through_norm(g, y, scale) @ weight.T) * (x > 0)


def skip(x, weight):
    return x + np.maximum(x, 0) @ weight, lambda g: g + (g @ weight.T) * (x > 0)


def no_skip(x, weight):
    return np.maximum(x, 0) @ weight, lambda g: (g @ weight.T) * (x > 0)


def factors(block, *, depth, width, batch, rng):
    """One draw of weights and data: the ratio of squared gradient norms before and after every block."""
    x, backs = normalised(rng.normal(size=(batch, width)))[0], []
    for _ in range(depth):
        x, back = block(x, rng.normal(size=(width, width)) / width**0.5)
        backs.append(back)
    gradients = [rng.normal(size=x.shape)]
    for back in reversed(backs):
        gradients.append(back(gradients[-1]))
    norms = np.array([np.square(gradient).sum() for gradient in reversed(gradients)])
    return norms[:-1] / norms[1:]


DEPTH, WIDTH, BATCH = 16, 64, 128
PREDICTED = {
    pre: (residual.pre_activation_factor(np.arange(DEPTH)), residual.idealised_pre_activation_factor()),
    post: (residual.post_activation_factor(), residual.idealised_post_activation_factor()),
    skip: (residual.unnormalised_factor(skip=True), residual.post_activation_factor()),
    no_skip: (residual.unnormalised_factor(skip=False), 1.0),
}


@pytest.mark.parametrize("block", PREDICTED, ids=lambda block: block.__name__)
def test_blocks_of_a_network(block):
    rng = np.random.default_rng(1)
    drawn = np.array([factors(block, depth=DEPTH, width=WIDTH, batch=BATCH, rng=rng) for _ in range(80)])
    predicted, rival = PREDICTED[block]
    allowance = predicted * residual.finite_size_term(WIDTH, BATCH)
    assert_agrees(drawn, predicted, rival=rival, allowance=allowance)


def test_first_layer_without_skip():
    rng = np.random.default_rng(2)
    drawn = np.array([factors(plain, depth=1, width=96, batch=192, rng=rng) for _ in range(100)])
    allowance = residual.PLAIN_FACTOR * residual.finite_size_term(96, 192)
    assert_agrees(drawn, residual.PLAIN_FACTOR, rival=1.0, allowance=allowance)  # 1: were BN to undo exactly W's gain


def test_norms_of_samples_drift_apart_without_skip():
    """By 4/n a layer in the variance of their logarithm, so that ReLU's outputs vary more than v and the factor falls."""
    rng, width, layers = np.random.default_rng(6), 192, 10
    drift, variance = [], []
    for _ in range(20):
        x = rng.normal(size=(256, width))
        for _ in range(layers):
            y, _ = normalised(x @ rng.normal(size=(width, width)))
            x = np.maximum(y, 0)
        drift.append(np.log(np.square(y).mean(1)).var(ddof=1))
        variance.append(x.var(0).mean())
    assert_agrees(
        np.array(drift), 4 * layers / width, rival=2 / width, allowance=0.6 * layers / width
    )  # 2/n: of inputs alone
    assert np.mean(variance) > 1.01 * residual.RELU_VARIANCE


@pytest.mark.parametrize("block", [pre, post], ids=lambda block: block.__name__)
def test_finite_size_terms_are_what_nets_of_two_widths_show(block):
    """Every factor, and the growth, is off by no more; some factor by a fifth at least: no net needs a wider term."""
    rng, depth = np.random.default_rng(3), DEPTH
    predicted = residual.pre_activation_factor(np.arange(depth)) if block is pre else residual.post_activation_factor()
    for width, draws in ((24, 300), (64, 100)):
        drawn = [factors(block, depth=depth, width=width, batch=2 * width, rng=rng) for _ in range(draws)]
        ratios = np.array(drawn) / predicted
        term = residual.finite_size_term(width, 2 * width)
        assert_agrees(ratios, 1.0, rival=1 + 2 * term, allowance=term)
        growth_term = residual.finite_size_term_of_growth(width, 2 * width, depth)
        assert_agrees(ratios.prod(1), 1.0, rival=1 + 3 * growth_term, allowance=growth_term)
        assert np.abs(ratios.mean(0) - 1).max() > 0.2 * term


def test_first_block_of_a_finite_batch_is_exact():
    """White gradient, at any width: 1 + (1/2) (m - 2) / (m - 3), against the infinite batch's 1.5."""
    rng, batch = np.random.default_rng(4), 6
    drawn = []
    for _ in range(4000):
        x, g, weight = (rng.normal(size=shape) for shape in ((batch, 8), (batch, 8), (8, 8)))
        x_hat, scale = normalised(x)
        drawn.append(np.square(back_through_norm((g @ weight.T / 8**0.5) * (x_hat > 0), x_hat, scale)).sum() / g.size)
    predicted = residual.idealised_pre_activation_factor(batch=batch) - 1
    assert predicted == pytest.approx(0.5 * 4 / 3)
    assert_agrees(np.array(drawn), predicted, rival=0.5)
    assert residual.idealised_pre_activation_factor(batch=1e12) == pytest.approx(1.5)


def test_norm_by_the_second_moment_at_finite_width():
    """Draws of W alone, whose rows have w^T S w with S = v I + 1 1^T / (2 pi) exactly known, at gain 1."""
    rng, width = np.random.default_rng(5), 400
    along = rng.normal(size=(20_000, width))  # of every row, on the direction of ReLU's mean
    length = rng.chisquare(width - 1, size=along.shape) + along**2
    branch = residual.RELU_VARIANCE * length / width + along**2 / (2 * np.pi)
    share = (1 + branch.mean(1)) / 1.5
    drawn = 1 / share + (share - 1)  # less what averages to 0
    predicted = residual.idealised_post_activation_factor(width=width)
    assert_agrees(drawn, predicted, rival=1.0, allowance=9 / width * (predicted - 1))  # of S's other eigenvalues
    assert residual.idealised_post_activation_factor(2.0, width=1e12) == pytest.approx(1)
