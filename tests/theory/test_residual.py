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


def test_finite_size_term_vanishes_with_width_and_batch_and_adds_over_blocks():
    assert residual.finite_size_term(100, 50) == pytest.approx(0.06)
    assert residual.finite_size_term(100, 50, depth=3) == pytest.approx(0.18)
    assert residual.finite_size_term(1e12, 1e12) == pytest.approx(0, abs=1e-11)


@pytest.mark.parametrize("gain", [0.5, 1.0, 2.0])
def test_products_are_products_and_tend_to_a_power_of_depth(gain):
    growth = np.prod([residual.pre_activation_factor(block, gain=gain) for block in range(9)])
    assert residual.pre_activation_growth(9, gain=gain) == pytest.approx(growth, rel=1e-13)
    assert residual.pre_activation_growth(0, gain=gain) == 1
    depth = np.array([100, 1000])
    error = residual.pre_activation_asymptote(depth, gain=gain) / residual.pre_activation_growth(depth, gain=gain) - 1
    assert abs(error[0]) < 1e-3
    assert error[1] / error[0] == pytest.approx(0.01, rel=0.15)  # of order 1/depth^2
    doubling = residual.pre_activation_asymptote(2e9, gain=gain) / residual.pre_activation_asymptote(1e9, gain=gain)
    assert np.log2(doubling) == pytest.approx(residual.POWER_OF_DEPTH, rel=1e-6)
    assert residual.pre_activation_asymptote(64.0) == pytest.approx(88.9, rel=1e-3)  # gain 1 by default


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


@pytest.mark.parametrize("block", [pre, post], ids=lambda block: block.__name__)
def test_logarithm_of_a_product(block):
    rng = np.random.default_rng(3)
    drawn = [np.log(factors(block, depth=DEPTH, width=WIDTH, batch=BATCH, rng=rng)).sum() for _ in range(60)]
    ours = residual.pre_activation_growth if block is pre else residual.post_activation_growth
    other = residual.post_activation_growth if block is pre else residual.pre_activation_growth
    allowance = 0.4 / 2 * residual.finite_size_term(WIDTH, BATCH, depth=DEPTH)  # the stated .4 L (1/n + 1/m)
    assert_agrees(np.array(drawn), np.log(ours(DEPTH)), rival=np.log(other(DEPTH)), allowance=allowance)


def test_the_batch_s_part_of_the_finite_size_term_is_exact():
    """Block 0, white gradient: 1 + (1/2) (m - 2) / (m - 3), against the infinite batch's 1.5."""
    rng, batch = np.random.default_rng(4), 6
    drawn = []
    for _ in range(4000):
        x, g, weight = (rng.normal(size=shape) for shape in ((batch, 8), (batch, 8), (8, 8)))
        x_hat, scale = normalised(x)
        drawn.append(np.square(back_through_norm((g @ weight.T / 8**0.5) * (x_hat > 0), x_hat, scale)).sum() / g.size)
    assert_agrees(np.array(drawn), 0.5 * (batch - 2) / (batch - 3), rival=0.5)
